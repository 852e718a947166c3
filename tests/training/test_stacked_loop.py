"""The promise of the fused engine: a job's weights, figures and steps are those it has alone.

The reference is a plain loop around transformers' GPT2LMHeadModel and torch.optim.AdamW.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from stacked_reference import (
    BASE,
    CPU,
    LAYOUT,
    PLAIN,
    ROW,
    Plain,
    T,
    build_job,
    build_jobs,
    train_plainly,
)
from torch import Tensor
from transformers import GPT2Config

from huggingtweets.config.schema import Keep, RecipeConfig, Stop
from huggingtweets.data.blocks import IGNORED, Blocks, Pieces, TrainingSet
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.errors import OutOfMemoryError
from huggingtweets.kernels.compiled import compiled_ops
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.stack import Stack
from huggingtweets.ops.reference import PYTORCH
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.records import Ending, LoggedEval, TrainResult
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.stacked import tuning as stacked_tuning
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

LOG_EVERY = 3

# Adam divides by the root of the second moment: where a gradient is near its own rounding error,
# some 1e-8 of the largest, the step is of the order of lr whatever that gradient is. Another order
# of summation therefore moves single weights by some percent of lr, but all of them together by
# 1e-5 to 1e-4 of the way they were trained, and losses by 1e-6 of their size.
SINGLE_WEIGHT = 0.1
"""Times lr: the most by which one weight may differ."""
ALL_WEIGHTS = 3e-4
"""Times the norm of the change by training: the most for the norm of the difference."""
LOSS_RTOL = 2e-5
NORM_RTOL = 2e-5
"""Of gradient norms, at the median."""
MAX_NORM_RTOL = 5e-4
"""In some steps at a high learning rate rounding grows a hundredfold, whichever operators round."""


@pytest.fixture(scope="module")
def plain() -> dict[str, Plain]:
    return {job.slug: train_plainly(job) for job in build_jobs()}


def train(
    jobs: Sequence[TrainingJob | None], *, slots: int, micro: int = 2, **changes: object
) -> dict[str, StackedResult]:
    settings = StackedSettings(
        slots=slots, micro_batch_size=micro, block_size=T, log_every=LOG_EVERY, use_graphs=False
    )
    settings = replace(settings, **changes)  # type: ignore[arg-type]
    results = list(
        train_stacked(FullTuning(LAYOUT, ROW), iter(jobs), settings=settings, device=CPU)
    )
    assert len(results) == len({result.slug for result in results})
    return {result.slug: result for result in results}


def assert_close(ours: Tensor, theirs: Tensor, lr: float) -> None:
    difference = ours - theirs
    assert float(difference.abs().max()) <= SINGLE_WEIGHT * lr
    assert float(difference.norm()) <= ALL_WEIGHTS * float((theirs - ROW).norm())


def assert_equal(job: TrainingJob, result: StackedResult, expected: Plain) -> None:
    assert result.error is None
    assert result.trained is not None
    assert result.weights is not None
    assert result.weights.keys() == expected.weights.keys()
    assert_close(LAYOUT.pack(result.weights), LAYOUT.pack(expected.weights), job.recipe.lr)
    trained = result.trained
    assert trained.steps == len(expected.losses)
    blocks = job.training_set.blocks
    counts = (blocks.targets != IGNORED).sum(1)
    size = job.recipe.global_batch_size
    per_step = [int(counts[i * size : (i + 1) * size].sum()) for i in range(trained.steps)]
    assert trained.tokens == sum(per_step)
    start, norm_errors = 0, []
    for line in trained.history:
        part = slice(start, line.step)
        mean = sum(expected.losses[part]) / sum(per_step[part])
        assert line.loss == pytest.approx(mean, rel=LOSS_RTOL)
        norm_errors.append(abs(line.grad_norm / expected.norms[line.step - 1] - 1))
        total = len(expected.losses)
        assert line.lr == lr_at(line.step - 1, recipe=job.recipe, total_steps=total)
        assert line.tokens_per_s > 0
        start = line.step
    assert start == trained.steps
    assert statistics.median(norm_errors) <= NORM_RTOL
    assert max(norm_errors) <= MAX_NORM_RTOL
    if job.heldout is None:
        assert trained.evals == ()
        return
    nats = [line.heldout.nats for line in trained.evals]
    assert nats == pytest.approx(expected.heldout, rel=LOSS_RTOL)
    assert trained.evals[0].step == 0
    after = nats[1:]
    kept = trained.evals[1 + after.index(min(after))].step
    assert trained.kept_step == (kept if job.recipe.keep is Keep.best else trained.steps)


@pytest.mark.parametrize("is_compiled", [False, True], ids=["pytorch", "compiled"])
@pytest.mark.parametrize(("slots", "micro"), [(1, 5), (3, 1), (3, 2), (8, 2)])
def test_every_job_is_as_if_alone(
    plain: dict[str, Plain],
    slots: int,
    micro: int,
    is_compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ops = compiled_ops() if is_compiled else PYTORCH
    if ops is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr(stacked_tuning, "choose_ops", lambda *_: ops)
    jobs = build_jobs()
    results = train(jobs, slots=slots, micro=micro)
    assert results.keys() == plain.keys()
    for job in jobs:
        assert_equal(job, results[job.slug], plain[job.slug])


@pytest.mark.parametrize("order", [0, 1])
def test_order_and_neighbours_change_nothing(plain: dict[str, Plain], order: int) -> None:
    jobs = build_jobs()
    np.random.default_rng(order).shuffle(jobs)  # type: ignore[arg-type]
    jobs = jobs[: 4 + order]
    results = train(jobs, slots=2 + order)
    for job in jobs:
        assert_equal(job, results[job.slug], plain[job.slug])


def test_jobs_that_come_late_change_nothing(plain: dict[str, Plain]) -> None:
    jobs = build_jobs()
    stream = [jobs[0], None, None, None, jobs[1], jobs[2], None, jobs[3]]
    results = train(stream, slots=3)
    for job in jobs[:4]:
        assert_equal(job, results[job.slug], plain[job.slug])


def weights_of(result: StackedResult) -> Tensor:
    assert result.weights is not None
    return LAYOUT.pack(result.weights)


def diverging() -> RecipeConfig:
    recipe = replace(PLAIN)
    object.__setattr__(recipe, "lr", 1e30)  # beyond what a user may set
    return recipe


@pytest.mark.parametrize("kind", ["huge-lr", "nan"])
def test_a_neighbour_that_diverges_changes_nothing(kind: str) -> None:
    """Bit by bit, with as many slots and the same work in all others."""
    good = [build_job(f"good-{i}", PLAIN, posts=40, seed=i) for i in range(5)]
    calm = build_job("neighbour", PLAIN, posts=80, seed=9)
    bad = replace(calm, recipe=diverging() if kind == "nan" else replace(PLAIN, lr=9.0))
    without = train([good[0], calm, *good[1:]], slots=3)
    beside = train([good[0], bad, *good[1:]], slots=3)
    for job in good:
        assert torch.equal(weights_of(without[job.slug]), weights_of(beside[job.slug]))
    if kind == "nan":
        error = beside["neighbour"].error
        assert error is not None
        assert "the loss is not finite at step" in str(error)
        assert beside["neighbour"].weights is None


def test_a_slot_after_a_diverged_job_is_as_new(plain: dict[str, Plain]) -> None:
    bad = replace(build_job("bad", PLAIN, posts=80, seed=9), recipe=diverging())
    jobs = build_jobs()
    results = train([bad, *jobs[:3]], slots=1)
    assert results["bad"].error is not None
    for job in jobs[:3]:
        assert_equal(job, results[job.slug], plain[job.slug])


def test_results_come_in_the_order_of_their_end() -> None:
    short = build_job("short", PLAIN, posts=8, seed=1)
    long = build_job("long", PLAIN, posts=60, seed=2)
    assert list(train([long, short], slots=2)) == ["short", "long"]


def test_a_job_that_does_not_fit_fails_alone(plain: dict[str, Plain]) -> None:
    jobs = build_jobs()
    wide = build_job("wide", replace(PLAIN, block_size=2 * T), posts=20, seed=1)
    results = train([wide, jobs[0]], slots=2)
    assert "recipe.block_size: got 64; expected at most the 32" in str(results["wide"].error)
    assert_equal(jobs[0], results[jobs[0].slug], plain[jobs[0].slug])


def test_dropout_does_not_depend_on_slots_micro_batches_or_neighbours() -> None:
    recipe = replace(PLAIN, dropout=0.2, global_batch_size=3)
    jobs = [build_job(f"job-{i}", recipe, posts=20 + 5 * i, seed=i) for i in range(4)]
    other = build_job("other", replace(PLAIN, isolate_documents=True), posts=30, seed=7)
    alone = train(jobs, slots=1, micro=3)
    together = train([other, *jobs[::-1]], slots=3, micro=2)
    for job in jobs:
        assert_close(weights_of(alone[job.slug]), weights_of(together[job.slug]), recipe.lr)
    plainly = train([replace(jobs[0], recipe=replace(recipe, dropout=0.0))], slots=1)
    assert not torch.allclose(weights_of(alone["job-0"]), weights_of(plainly["job-0"]), atol=1e-4)


def test_seeds_draw_other_masks() -> None:
    recipe = replace(PLAIN, dropout=0.2)
    job = build_job("one", recipe, posts=20, seed=1)
    first, second = (
        weights_of(train([replace(job, seed=seed)], slots=1)["one"]) for seed in (1, 2)
    )
    assert not torch.allclose(first, second, atol=1e-4)


def test_the_base_s_own_dropout_is_the_default() -> None:
    config = GPT2Config(**(BASE.config.to_dict() | {"attn_pdrop": 0.3}))
    layout = layout_of(shape_of(config))
    job = build_job("one", replace(PLAIN, dropout=None), posts=20, seed=1)
    settings = StackedSettings(slots=1, micro_batch_size=2, block_size=T)
    (result,) = train_stacked(FullTuning(layout, ROW), iter([job]), settings=settings, device=CPU)
    without = train([job], slots=1)["one"]
    assert not torch.allclose(weights_of(result), weights_of(without), atol=1e-4)


def test_bf16_trains_as_well() -> None:
    job = build_job("one", replace(PLAIN, epochs=4), posts=20, seed=1)
    exact = train([job], slots=1)["one"].trained
    half = train([job], slots=1, dtype=torch.bfloat16)["one"].trained
    assert exact is not None
    assert half is not None
    assert exact.final_loss < exact.history[0].loss - 0.1
    assert half.final_loss == pytest.approx(exact.final_loss, rel=0.01)


def test_running_out_of_memory_halves_the_slots(
    plain: dict[str, Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = build_jobs()
    step, used = stacked_tuning.add_micro_batch, []

    def scarce(slots: stacked_tuning.Slots, *args: object, **kwargs: object) -> None:
        used.append(len(slots.losses))
        if len(slots.losses) > 2 and len(used) > 3:
            raise torch.OutOfMemoryError("no memory")
        step(slots, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(stacked_tuning, "add_micro_batch", scarce)
    results = train(jobs, slots=4)
    assert max(used[4:]) == 2
    assert results.keys() == plain.keys()
    for job in jobs:
        assert_equal(job, results[job.slug], plain[job.slug])


def test_running_out_of_memory_with_one_slot_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(stacked_tuning, "add_micro_batch", scarce)
    with pytest.raises(OutOfMemoryError, match=r"engine\.slots: out of memory with a single slot"):
        train(build_jobs(), slots=4)


def test_jobs_are_drawn_when_a_slot_falls_free() -> None:
    drawn: list[str] = []

    def stream() -> Iterator[TrainingJob]:
        for index in range(6):
            drawn.append(f"job-{index}")
            yield build_job(drawn[-1], PLAIN, posts=10, seed=index)

    settings = StackedSettings(slots=2, micro_batch_size=1, block_size=T)
    results = train_stacked(FullTuning(LAYOUT, ROW), stream(), settings=settings, device=CPU)
    next(results)
    assert len(drawn) <= 4
    assert len(list(results)) == 5


def test_an_empty_stream_ends() -> None:
    assert train([], slots=3) == {}


def test_training_sets_of_one_block_train() -> None:
    job = build_job("tiny", replace(PLAIN, epochs=1), posts=1, seed=1)
    assert isinstance(job.training_set, TrainingSet)
    result = train([job], slots=3)["tiny"]
    assert_equal(job, result, train_plainly(job))


@pytest.mark.slow
def test_compiled_steps_are_the_same(plain: dict[str, Plain]) -> None:
    jobs = build_jobs()[:2]
    results = train(jobs, slots=1, micro=1, compile=True)
    for job in jobs:
        assert_equal(job, results[job.slug], plain[job.slug])


def overfitting(slug: str, seed: int, **changes: object) -> TrainingJob:
    """A job whose held-out loss rises long before its end: random tokens have no pattern."""
    recipe = replace(PLAIN, epochs=8, lr=6e-3, isolate_documents=True)
    job = build_job(slug, replace(recipe, **changes), posts=24, seed=seed)  # type: ignore[arg-type]
    return replace(job, probe=probe_of(job))


def probe_of(job: TrainingJob) -> HeldoutSet:
    """The first epoch's blocks, which its posts are isolated in."""
    blocks = job.training_set.blocks
    chosen = slice(0, job.training_set.blocks_per_epoch[0])
    parts = (blocks.input_ids[chosen], blocks.targets[chosen], blocks.position_ids[chosen])
    counted = (parts[1] != IGNORED).ravel()
    starts = np.flatnonzero((parts[2].ravel() == 0) & counted)
    sizes = [counted[start:stop].sum() for start, stop in pairwise([*starts, counted.size])]
    pieces = Pieces(starts, np.array(sizes), np.arange(len(starts)))
    return HeldoutSet(Blocks(*parts), 1000, pieces, (9,) * len(starts))


def trained_of(result: StackedResult) -> TrainResult:
    assert result.error is None
    assert result.trained is not None
    return result.trained


@pytest.mark.parametrize("slots", [1, 3])
def test_a_slot_is_free_after_an_early_stop_and_the_rest_as_if_alone(slots: int) -> None:
    jobs = [overfitting(f"job-{i}", i, stop=Stop.heldout) for i in range(4)]
    whole = {job.slug: trained_of(train([without_stop(job)], slots=1)[job.slug]) for job in jobs}
    results = train([*jobs, build_job("calm", PLAIN, posts=60, seed=9)], slots=slots)
    assert trained_of(results["calm"]).ended_by is Ending.full
    for job in jobs:
        early, late = trained_of(results[job.slug]), whole[job.slug]
        nats = [line.heldout.nats for line in late.evals[1:]]
        end = next(i for i in range(1, len(nats)) if nats[i] >= min(nats[:i]))
        assert (early.ended_by, late.ended_by) == (Ending.heldout, Ending.full)
        assert early.steps == early.evals[-1].step == late.evals[end + 1].step < late.steps
        assert early.kept_step == early.steps
        for ours, theirs in zip(early.history, late.history, strict=False):
            assert ours.lr == theirs.lr  # the schedule is that of the whole training
            assert ours.loss == pytest.approx(theirs.loss, rel=LOSS_RTOL)


def without_stop(job: TrainingJob) -> TrainingJob:
    return replace(job, recipe=replace(job.recipe, stop=Stop.never))


def test_training_posts_are_scored_beside_the_held_out_ones() -> None:
    jobs = [overfitting("one", 1), replace(overfitting("two", 2), probe=None)]
    results = train(jobs, slots=2)
    one = trained_of(results["one"])
    gaps = [line.gap_since(one.evals[0]) for line in one.evals]
    assert gaps[0] == 0
    assert gaps[-1] is not None
    assert gaps[-1] > 0.3
    assert one.evals[-1].trained is not None
    assert one.evals[-1].trained.loss == pytest.approx(one.final_loss, rel=0.2)
    assert one.evals[-1].extracted is not None
    assert one.evals[0].extracted is not None
    assert one.evals[-1].extracted.num_posts == one.evals[0].extracted.num_posts == 9
    assert {line.trained for line in trained_of(results["two"]).evals} == {None}
    capped = overfitting("one", 1, stop=Stop.memorisation, max_gap=0.1, patience=9, keep=Keep.best)
    early = trained_of(train([capped], slots=1)["one"])
    first = next(i for i, gap in enumerate(gaps) if gap is not None and gap > 0.1)
    assert early.ended_by is Ending.memorisation
    assert early.steps == one.evals[first].step


def test_whoever_asked_for_a_job_may_end_it() -> None:
    seen: list[int] = []

    def judge(evals: Sequence[LoggedEval]) -> Ending | None:
        seen.append(evals[-1].step)
        return Ending.pruned if len(evals) > 2 else None

    job = replace(overfitting("one", 1), judge=judge)
    trained = trained_of(train([job], slots=1)["one"])
    assert trained.ended_by is Ending.pruned
    assert seen == [line.step for line in trained.evals[1:]]
    assert len(seen) == 2


def test_base_is_scored_once_for_jobs_with_the_same_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As trials of a sweep have; others of the batch are scored by themselves."""
    asked: list[HeldoutSet] = []
    score = stacked_tuning.score_sets

    def counted(stack: Stack, sets: Sequence[HeldoutSet | None], **ways: Any) -> Any:
        asked.extend(filter(None, sets))
        return score(stack, sets, **ways)

    monkeypatch.setattr(stacked_tuning, "score_sets", counted)
    job = build_job("first", PLAIN, posts=9, seed=1)
    trials = [
        replace(job, slug=f"trial-{lr}", recipe=replace(PLAIN, lr=lr)) for lr in (1e-3, 2e-3, 3e-3)
    ]
    other = build_job("other", PLAIN, posts=9, seed=2)
    results = train([*trials[:2], other, trials[2]], slots=2)  # the last one comes later
    evals = {slug: result.trained.evals for slug, result in results.items() if result.trained}
    num_later = sum(len(lines) - 1 for lines in evals.values())
    assert len(asked) == 2 + num_later
    [alone] = train([replace(trials[2], heldout=replace(job.heldout))], slots=1).values()
    assert alone.trained is not None
    assert alone.trained.evals == evals[trials[2].slug]
    assert evals["other"][0] != evals[trials[0].slug][0]
