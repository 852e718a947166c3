"""What is said of a job whose posts leave nothing to hold out, or are longer than its blocks."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from small import SMALL_MODEL

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.handles import Job
from huggingtweets.pipeline.notices import tell_of_posts
from huggingtweets.pipeline.stages import begin_job, prepare_job


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
