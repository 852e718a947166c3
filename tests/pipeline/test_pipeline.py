"""What is said of a job whose posts leave nothing to hold out, or are longer than its blocks.

And what a job with other settings takes from the one before it.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from fake_services import serving
from small import SMALL_MODEL

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.errors import SourceError
from huggingtweets.handles import Job
from huggingtweets.pipeline.notices import tell_of_posts
from huggingtweets.pipeline.stages import begin_job, prepare_job
from huggingtweets.posts.records import read_timelines


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
