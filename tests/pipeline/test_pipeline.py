"""What is said of a job, of its posts and settings, and what it takes from the one before it."""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_services import serving
from small import SMALL_MODEL

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, differences, make_plan
from huggingtweets.errors import SourceError
from huggingtweets.handles import Job
from huggingtweets.pipeline import recorder
from huggingtweets.pipeline.notices import tell_of_posts
from huggingtweets.pipeline.outcome import command_of, told_identity
from huggingtweets.pipeline.stages import begin_job, prepare_job
from huggingtweets.posts.records import read_timelines
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


def test_the_command_begins_from_the_crowd_that_a_batch_left(tmp_path: Path) -> None:
    """One person is no batch, so `recipe.warm_start=batch` would be refused."""
    plan = plan_of(tmp_path, UNLIKE)
    recipe = replace(plan.config.recipe, warm_start="batch")
    plan = replace(plan, config=replace(plan.config, recipe=recipe))
    assert 'recipe.warm_start=".crowd"' in shlex.split(command_of(plan))


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


@pytest.mark.parametrize(
    ("change", "is_asked_again"),
    [("recipe.lr=0.5", False), ("cleaning.mask_pii=false", True), ("source.max_posts=10", True)],
)
def test_posts_that_were_paid_for_are_taken_by_a_job_with_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, is_asked_again: bool
) -> None:
    monkeypatch.setenv("X_BEARER_TOKEN", "t0ken")
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / "cache"))
    register()
    with serving([f"{text} ann@example.org" for text in UNLIKE * 4]) as server:
        words = ["user=ann", "source=x_api", f"source.api_url={server.url}", *SMALL_MODEL]
        words += ["source.terms=accepted", "source.max_cost_usd=99", "cleaning.min_chars=1"]
        words += ["recipe.block_size=64"]
        words += [f"output_dir={tmp_path / 'out'}", "overwrite=true"]
        config = to_config(compose_config(words))
        begin_job(make_plan(config, Job.of(["ann"])))
        num = len(server.requests)
        plan = make_plan(to_config(compose_config([*words, change])), Job.of(["ann"]))
        begin_job(plan)
        assert (len(server.requests) > num) == is_asked_again
    (timeline,) = read_timelines(plan.paths.posts)
    assert len(timeline.posts) == min(16, plan.config.source.max_posts)
    assert ("example.org" in timeline.posts[0].text) != plan.config.cleaning.mask_pii


def test_a_job_stays_as_it_was_while_the_posts_of_its_successor_cannot_be_read(
    tmp_path: Path,
) -> None:
    plan = plan_of(tmp_path, UNLIKE)
    begin_job(plan)
    plan.paths.result.write_text("{}")
    source = replace(plan.config.source, text_column="words")
    other = replace(plan, config=replace(plan.config, source=source, overwrite=True))
    before = {path: path.read_bytes() for path in plan.paths.root.iterdir()}
    with pytest.raises(SourceError):
        begin_job(other)
    assert {path: path.read_bytes() for path in plan.paths.root.iterdir()} == before
    (tmp_path / "ann.jsonl").write_text("".join(json.dumps({"words": t}) + "\n" for t in UNLIKE))
    begin_job(other)
    assert not plan.paths.result.exists()
