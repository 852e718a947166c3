"""`engine.compile` of the fused engine: bounded kernels, and nothing past the bound in silence."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from stacked_reference import CPU, LAYOUT, ROW, T, build_jobs
from torch._dynamo.testing import CompileCounter

from huggingtweets.ops import inductor
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings


def train(num_jobs: int, *, slots: int) -> None:
    jobs = [
        replace(job, recipe=replace(job.recipe, dropout=0.1, max_steps=3))
        for job in build_jobs()[:num_jobs]
    ]
    settings = StackedSettings(slots, micro_batch_size=1, block_size=T, compile=True)
    results = list(
        train_stacked(FullTuning(LAYOUT, ROW), iter(jobs), settings=settings, device=CPU)
    )
    assert [result.error for result in results] == [None] * num_jobs


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts what would be compiled; nothing is, which takes minutes."""
    torch._dynamo.reset()
    found = CompileCounter()
    monkeypatch.setattr(
        inductor, "_compiled", lambda each: torch.compile(each, dynamic=False, backend=found)
    )
    with torch._dynamo.config.patch(recompile_limit=1):
        yield found
    torch._dynamo.reset()


def test_more_jobs_and_refills_compile_nothing_more(counter: CompileCounter) -> None:
    """And each operator is one graph: what breaks one in two would run in passes of its own."""
    torch._dynamo.utils.counters.clear()
    train(4, slots=2)
    first = counter.frame_count
    assert not torch._dynamo.utils.counters["graph_break"]
    print(f"{first} kernels compiled")
    assert 0 < first <= 40
    train(8, slots=2)
    assert counter.frame_count <= first + 4


def test_what_is_not_compiled_any_more_is_said(
    counter: CompileCounter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inductor, "_MOST_SHAPES", 1)
    with caplog.at_level(logging.WARNING):
        train(4, slots=2)
        train(4, slots=4)
    assert "recompile_limit (1)" in caplog.text
    assert counter.frame_count
