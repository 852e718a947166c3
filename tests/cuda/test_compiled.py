"""`engine.compile` of the fused engine: a micro-step is one graph, and computes the same."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from stacked_reference import CPU, LAYOUT, ROW, T, build_jobs
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from huggingtweets.config.schema import Adapter
from huggingtweets.training.stacked import tuning as tuning_module
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.one_graph import CompiledSteps
from huggingtweets.training.stacked.slots import MicroKind, add_micro_batch
from huggingtweets.training.stacked.step import Stepper
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings


def train(num_jobs: int, *, slots: int, rank: int = 0, **changes: Any) -> dict[str, Tensor]:
    """Return the trained rows by job: unlike lengths, dropout, two micro-steps a step for some."""
    adapter = Adapter.lora if rank else Adapter.none
    jobs = [
        replace(job, recipe=replace(job.recipe, dropout=0.1, max_steps=3, adapter=adapter))
        for job in build_jobs()[:num_jobs]
    ]
    if rank:
        jobs = [replace(job, recipe=replace(job.recipe, lora_rank=rank)) for job in jobs]
    settings = replace(StackedSettings(slots, micro_batch_size=1, block_size=T), **changes)
    found = {}
    tuning = FullTuning(LAYOUT, ROW, rank)
    for result in train_stacked(tuning, iter(jobs), settings=settings, device=CPU):
        assert result.error is None, result.error
        assert result.weights is not None
        found[result.slug] = LAYOUT.pack(result.weights)
    assert len(found) == num_jobs
    return found


def counting(monkeypatch: pytest.MonkeyPatch, backend: str) -> CompileCounterWithBackend:
    """Count the graphs, and run what inductor would compile: building it takes minutes."""
    torch._dynamo.reset()
    found = CompileCounterWithBackend(backend)
    monkeypatch.setattr(tuning_module, "CompiledSteps", lambda: CompiledSteps(found))
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for slug, row in theirs.items():
        change = float((row - ROW).norm())
        assert float((ours[slug] - row).norm()) < 1e-4 * change, slug


@pytest.mark.parametrize(
    ("rank", "changes"),
    [
        (0, {}),
        pytest.param(4, {}, marks=pytest.mark.slow),
        pytest.param(0, {"recompute": True}, marks=pytest.mark.slow),
    ],
    ids=["all weights", "adapters", "recomputed"],
)
def test_a_micro_step_is_one_graph_that_computes_the_same(
    rank: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward pass, without changes in place; `fullgraph` raises at any break."""
    counter = counting(monkeypatch, "aot_eager")
    ours = train(2, slots=2, rank=rank, compile=True, **changes)
    print([len(graph.graph.nodes) for graph in counter.graphs], "nodes")
    assert len(counter.graphs) == counter.frame_count == 2  # the first of a step, and what adds
    assert_same(ours, train(2, slots=2, rank=rank))


def test_halves_of_equal_width_have_graphs_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where AdamW of one half runs beside the products of the other."""
    wanted = train(2, slots=2)
    counting(monkeypatch, "aot_eager")
    halves = {1: [(0, 1)], 2: [(1, 1), (0, 1)]}
    monkeypatch.setattr(Stepper, "_groups", lambda self, count: halves[count])
    monkeypatch.setattr(Stepper, "_elsewhere", lambda self: nullcontext(self._replay))
    assert_same(train(2, slots=2, compile=True), wanted)


def test_more_jobs_and_refills_compile_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[MicroKind] = []

    def compiled(_: object, parts: Any, kind: MicroKind) -> Callable[[], None]:
        made.append(kind)
        return lambda: add_micro_batch(*parts, kind=kind)

    monkeypatch.setattr(CompiledSteps, "_compile", compiled)
    train(4, slots=2, compile=True)
    first = len(made)
    print(f"{first} graphs")
    assert 0 < first <= 4  # of one slot and two, each the first of a step and what adds
    train(8, slots=2, compile=True)
    assert len(made) <= 2 * first


@pytest.mark.slow
def test_compiled_by_inductor_it_computes_the_same() -> None:
    torch._dynamo.reset()
    ours = train(2, slots=2, compile=True)
    assert_same(ours, train(2, slots=2))
