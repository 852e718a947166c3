"""What is said of a job: of its posts while it runs, and of its settings in card and record."""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from small import SMALL_MODEL

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, differences, make_plan
from huggingtweets.handles import Job
from huggingtweets.pipeline import recorder
from huggingtweets.pipeline.notices import tell_of_posts
from huggingtweets.pipeline.outcome import command_of, told_identity
from huggingtweets.pipeline.stages import begin_job, prepare_job
from huggingtweets.tracking.base import Phase, Tracker


def plan_of(tmp_path: Path, texts: list[str]) -> Plan:
    """A job on these posts."""
    posts = tmp_path / "ann.jsonl"
    posts.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    register()
    words = ["user=ann", "source=jsonl", f"source.path={posts}", f"output_dir={tmp_path / 'out'}"]
    words += ["cleaning.min_chars=1", "recipe.block_size=64"]
    config = to_config(compose_config([*words, *SMALL_MODEL]))
    return make_plan(config, Job.of(["ann"]))


ALIKE = [f"The clock in the old tower strikes at {hour} again, as it does" for hour in range(30)]
UNLIKE = [
    "rain all day and one wet dog in the hall",
    "my boss sings when she thinks nobody is near",
    "soup again, third time this week, no regrets",
    "two trains late, one seat free, a stranger's cat on it",
]


@pytest.mark.parametrize(
    ("texts", "frac", "is_said"), [(ALIKE, 0.1, True), (ALIKE, 0.0, False), (UNLIKE, 0.1, False)]
)
def test_posts_that_leave_nothing_to_hold_out_are_told(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    texts: list[str],
    frac: float,
    is_said: bool,
) -> None:
    plan = plan_of(tmp_path, texts)
    recipe = replace(plan.config.recipe, heldout_frac=frac)
    plan = replace(plan, config=replace(plan.config, recipe=recipe))
    with caplog.at_level(logging.WARNING, "huggingtweets"):
        base = find_base(plan.config.model)
        prepared = prepare_job(plan, base, begin_job(plan))
        tell_of_posts(plan, prepared, base.max_positions)
    assert (prepared.heldout is None) == (is_said or not frac)
    assert ("nothing is held out" in caplog.text) == is_said


@pytest.mark.parametrize(
    ("block_size", "isolate", "is_said"), [(16, True, True), (64, True, False), (16, False, False)]
)
def test_posts_that_are_cut_are_told_with_the_blocks_that_would_hold_them(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    block_size: int,
    isolate: bool,
    is_said: bool,
) -> None:
    plan = plan_of(tmp_path, UNLIKE)
    recipe = replace(plan.config.recipe, block_size=block_size, isolate_documents=isolate)
    plan = replace(plan, config=replace(plan.config, recipe=recipe))
    base = find_base(plan.config.model)
    with caplog.at_level(logging.WARNING, "huggingtweets"):
        prepared = prepare_job(plan, base, begin_job(plan))
        tell_of_posts(plan, prepared, base.max_positions)
    if not is_said:
        assert "are cut" not in caplog.text
        return
    assert f"of up to {prepared.long_tokens} tokens are cut, as recipe.block_size=16" in caplog.text
    advised = int(caplog.text.partition("with recipe.block_size=")[2].split()[0])
    assert prepared.long_tokens <= advised <= base.max_positions


def test_posts_longer_than_the_base_can_read_are_promised_no_block_that_holds_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_of(tmp_path, [3 * f"{text} " for text in UNLIKE])
    plan = replace(
        plan,
        config=replace(plan.config, recipe=replace(plan.config.recipe, block_size=16)),
    )
    base = find_base(plan.config.model)
    with caplog.at_level(logging.WARNING, "huggingtweets"):
        prepared = prepare_job(plan, base, begin_job(plan))
        tell_of_posts(plan, prepared, base.max_positions)
    assert prepared.long_tokens > base.max_positions
    assert f"with recipe.block_size={base.max_positions} fewer are" in caplog.text
    assert "stay whole" not in caplog.text


def composed(words: list[str], *handles: str) -> Plan:
    register()
    return make_plan(to_config(compose_config(words)), Job.of(list(handles)))


ODD = "a\\b c'd\"e ${x} \\${x} \\"


@pytest.mark.parametrize(
    ("handles", "words"),
    [
        (["ada"], ["source=demo"]),
        (["ada"], ["cleaning=huggingtweets", "recipe=huggingtweets", "sampling=huggingtweets"]),
        (["ada"], ["experiment=demo"]),
        (["ada", "1_000"], ["model=smollm2-135m", "recipe=lora", "model.revision=2024"]),
        (["ada"], ["source=csv", "source.path=2024", "source.text_column=true", "seed=7",
                   "source.encoding=cp1252", "model=tiny", "model.width=64"]),
        (["ada"], ["source=mastodon", "source.api_url='https://a.example/?b=c'",
                   "source.max_posts=9", "source.terms=accepted"]),
        (["ada"], ["source=hub", "source.path=lab/posts", "sampling.temperature=1e-5"]),
        (["ada"], ["source=text", "source.path='/home/jane/lab posts (old)/'"]),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_the_command_told_trains_the_same_model(handles: list[str], words: list[str]) -> None:
    plan = composed(["user=ada", *words], *handles)
    sampling = replace(plan.config.sampling, prompts=[ODD, "null", ""], banned_words=["1_0", "x y"])
    plan = replace(plan, config=replace(plan.config, sampling=sampling))
    told = shlex.split(command_of(plan))
    assert told[:2] == ["huggingtweets", "train"]
    again = composed(told[2:], *handles)
    assert differences(plan.identity, again.identity) == []
    assert again.config.user == plan.config.user
    assert "jane" not in command_of(plan)


class Heard(Tracker):
    def __init__(self) -> None:
        self.settings: dict[Phase, Mapping[str, Any]] = {}

    def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
        self.settings[phase] = config


def test_folders_of_this_machine_are_told_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, UNLIKE)
    base = find_base(plan.config.model)
    prepared = prepare_job(plan, base, begin_job(plan))
    (tmp_path / "my base").mkdir()
    config = replace(
        plan.config,
        model=replace(plan.config.model, path=str(tmp_path / "my base")),
        recipe=replace(plan.config.recipe, warm_start=str(tmp_path / ".crowd")),
    )
    plan, heard = replace(plan, config=config), Heard()
    monkeypatch.setattr(recorder, "build_tracker", lambda *_, **__: heard)
    with recorder.Recorder(plan, is_main=True, is_shown=False) as record:
        record.start(base, prepared)
    assert heard.settings[Phase.preprocess]["path"] == "ann.jsonl"
    assert heard.settings[Phase.train]["warm_start"] == ".crowd"
    assert told_identity(plan)["model"]["path"] == "my base"
    assert str(tmp_path) in str(asdict(plan.config))
    assert str(tmp_path) not in f"{heard.settings} {command_of(plan)} {told_identity(plan)}"
