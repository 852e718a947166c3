import math
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.config.schema import Consent
from huggingtweets.posts.cleaning import CleaningReport
from huggingtweets.preview import fonts
from huggingtweets.publishing.facts import (
    Artifact,
    BaseModel,
    DataCounts,
    HeldoutFigures,
    ModelFacts,
    Sample,
)
from huggingtweets.training.records import HeldoutLoss, LoggedEval, LoggedStep, TrainResult

TRAIN = TrainResult(
    steps=600,
    epochs=4.0,
    tokens=244936,
    seconds=74.4,
    tokens_per_s=3292.2,
    mfu=0.31,
    final_loss=3.0,
    peak_memory_gib=1.5,
    history=tuple(
        LoggedStep(step, step / 150, 3 + math.exp(-step / 80), 1e-4, 1.2, 3300.0, 0.31)
        for step in range(10, 601, 10)
    ),
    evals=tuple(LoggedEval(150 * i, i, HeldoutLoss(3.2 + math.exp(-i), 1, 4)) for i in range(5)),
    kept_step=600,
)


def _person(handle: str, display_name: str) -> CleaningReport:
    return CleaningReport(
        handle=handle,
        display_name=display_name,
        downloaded=3221,
        retweets=1002,
        short=409,
        repeats=12,
        kept=1798,
        kept_chars=150_000,
    )


def _make_facts(*people: tuple[str, str], **changes: Any) -> ModelFacts:
    people = people or (("ada_l", "Ada Lovelace"),)
    values: dict[str, Any] = {
        "slug": "-".join(handle for handle, _ in people),
        "people": tuple(_person(*pair) for pair in people),
        "base": BaseModel("gpt2", hub_id="gpt2", license="mit"),
        "recipe": {"epochs": 4, "lr": 1.372e-4, "schedule": "cosine", "block_size": 1024},
        "data": DataCounts(1618, 180, 61234, 6810, 60),
        "train": TRAIN,
        "engine": "single",
        "versions": {"huggingtweets": "0.1.0", "torch": "2.13.0"},
        "command": "accelerate launch train.py user=ada_l source=x_archive source.path=posts.zip",
        "consent": Consent("own-archive"),
        "heldout": HeldoutFigures(3.412, 30.33, 1.214, 1.431),
        "samples": (
            Sample("My dream is", "My dream is to weave algebra as the loom weaves flowers."),
            Sample("I like", "I like engines that never sleep & never complain"),
        ),
        "human_lengths": tuple(20 + 13 * i % 240 for i in range(400)),
        "machine_lengths": tuple(15 + 29 * i % 200 for i in range(50)),
        "lineage": (
            (Artifact("tweets-ada_l", "raw-dataset"), Artifact("gpt2", "pretrained-model")),
            (Artifact("ada_l", "finetuned-model", ("tweets-ada_l", "gpt2")),),
        ),
        "finished_at": "2026-11-03T12:00:00Z",
    }
    return ModelFacts(**values | changes)


@pytest.fixture(scope="session")
def make_facts() -> Any:
    """`make_facts((handle, name), ..., field=value)`: a complete, plausible ModelFacts."""
    return _make_facts


def forget_fonts() -> None:
    """Empty every cache of the module, so that it looks at the machine again."""
    for value in vars(fonts).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@pytest.fixture
def font_folders(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`font_folders(*paths)`: a machine whose fonts lie there alone."""

    def pretend(*paths: Path) -> None:
        monkeypatch.setattr(fonts, "font_folders", lambda: list(paths))
        forget_fonts()

    yield pretend
    monkeypatch.undo()
    forget_fonts()


HOSTILE = {
    "plain": "Ada Lovelace",
    "pipes": "a | b || c \\| d",
    "quotes": "\"double\" 'single' `tick` ``two`` ```three",
    "newline": "first\n---\nthumbnail: evil\n\n# second\r\n- item",
    "closing-tags": "</div></table><script>alert(1)</script><img src=x onerror=alert(1)>",
    "yaml": '": {a: [b, *c]}, & ! % @ # --- ...',
    "link": "[click](https://evil.example) ![p](javascript:x) <https://evil.example>",
    "emphasis": "**b** __init__ *i* _u_ ~~s~~ $x$ \\* 1. 2) > # +",
    "entities": "&lt;b&gt; &amp;amp; &#60; &nbsp;",
    "template": "{{ 7 * 7 }} {% raw %} ${HOME} %s {0} <% x %>",
    "bidi": "abc\u202egnp.exe\u202c \u2066x\u2069 \u200fy",
    "control": "a\x00b\x1b[31mc\x7f\u200bd\ufeff",
    "surrogate": "x\ud83d y",
    "emoji": "Maya 👩🏽‍💻🇩🇪 ❤️",
    "arabic": "محمد بن راشد",
    "japanese": "鳩山由紀夫 / はとやま",
    "only-spaces": " \u2003\u200b\n",
    "long": "x" * 500,
}


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def hostile_name(request: pytest.FixtureRequest) -> str:
    """A display name that tries to be more than text."""
    return str(request.param)
