"""Lack of memory and captures that fail, anywhere: no job is lost, nothing is left open."""

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from software_cuda import CUDAGraph, State, installed
from stacked_reference import CPU, LAYOUT, ROW, T, build_jobs
from torch.utils._python_dispatch import TorchDispatchMode

from huggingtweets.errors import OutOfMemoryError
from huggingtweets.runtime.device import lacks_memory
from huggingtweets.runtime.graphs import Replay
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

PLACES = {
    "load": {"load"},
    "evaluate": {"score_blocks"},
    "step": {"micro_step"},
    "update": {"finish_step"},
    "capture": {"_capture"},
    "snapshot": {"send", "snapshot_of"},
}
"""Where memory may run out, by functions that are under way there."""
FULL = torch.OutOfMemoryError("CUDA out of memory (injected)")
BESIDE = {
    "cublas": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cudnn": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "runtime": "CUDA error: out of memory",
    "driver": "CUDA driver error: out of memory",
    "triton": "Triton Error [CUDA]: out of memory",
}
"""What those say who allocate beside PyTorch: no class of its own tells that memory is short."""


class Scarce(TorchDispatchMode):
    """Runs out of memory once, at the n-th operator that is called under one of the functions."""

    def __init__(self, functions: set[str], number: int, error: RuntimeError = FULL) -> None:
        super().__init__()
        self.left = number
        self._functions = functions
        self._error = error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if self.left and self._is_under_way():
            self.left -= 1
            if not self.left:
                raise self._error
        return func(*args, **kwargs or {})

    def _is_under_way(self) -> bool:
        frame = sys._getframe(2)
        while frame.f_back is not None:
            if frame.f_code.co_name in self._functions:
                return True
            frame = frame.f_back
        return False


def some_jobs() -> list[TrainingJob]:
    return [
        replace(job, recipe=replace(job.recipe, dropout=0.1, max_steps=5)) for job in build_jobs()
    ]


def train(jobs: list[TrainingJob], *, slots: int = 8) -> Iterator[StackedResult]:
    settings = StackedSettings(slots, micro_batch_size=2, block_size=T)
    return train_stacked(FullTuning(LAYOUT, ROW), iter(jobs), settings=settings, device=CPU)


@pytest.mark.parametrize(
    ("place", "error"),
    [
        *(pytest.param(place, FULL, id=place) for place in PLACES),
        pytest.param("step", RuntimeError(BESIDE["cublas"]), id="step-cublas"),
    ],
)
def test_no_job_is_lost_for_want_of_memory(place: str, error: RuntimeError) -> None:
    jobs = some_jobs()
    number = 60 if place in ("step", "capture") else 2
    with installed() as state:
        stream = state.stream
        with Scarce(PLACES[place], number, error) as scarce:
            results = list(train(jobs))
    assert scarce.left == 0, "it was never short of memory"
    assert sorted(result.slug for result in results) == sorted(job.slug for job in jobs)
    for result in results:
        assert result.error is None
        assert result.weights is not None
        assert all(bool(weight.isfinite().all()) for weight in result.weights.values())
    assert state.stream is stream
    assert not state.open_pools


@pytest.mark.parametrize("who", BESIDE)
def test_a_lack_of_memory_beside_the_allocator_is_known_by_its_words(who: str) -> None:
    assert lacks_memory(RuntimeError(BESIDE[who]))
    assert not lacks_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_what_has_ended_comes_back_when_nothing_fits_any_more() -> None:
    """The last slot does not fit: the jobs before it are results all the same."""
    jobs = some_jobs()[:3]
    found = []
    taken = train(jobs, slots=1)
    with installed():
        found.append(next(taken).slug)
        with Scarce({"load"}, 1), pytest.raises(OutOfMemoryError):
            next(taken)
    assert found == [jobs[0].slug]


def run(replay: Replay, state: State, function: object) -> None:
    for _ in range(4):
        replay.run("key", function)  # type: ignore[arg-type]


def test_a_capture_that_fails_leaves_the_device_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    x = torch.zeros(3)

    def reads_back() -> None:
        x.add_(1)
        if float(x.sum()) < 0:  # not permitted in a graph
            x.zero_()

    with installed() as state:
        stream = state.stream
        replay = Replay(enabled=True)
        run(replay, state, reads_back)
        assert state.stream is stream
        assert not state.open_pools
        assert not state.alive
    assert x.tolist() == [4.0] * 3
    assert "no CUDA graph" in caplog.text


def test_lack_of_memory_in_a_capture_is_raised_as_such() -> None:
    x = torch.zeros(3)

    def takes_much() -> None:
        if calls.append(None) or len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        x.add_(1)

    calls: list[None] = []
    with installed() as state, pytest.raises(torch.OutOfMemoryError):
        run(Replay(enabled=True), state, takes_much)
    assert not state.open_pools


def test_lack_of_memory_that_spoils_a_capture_is_raised_as_such() -> None:
    """The device's error then hides what it came from."""
    x = torch.zeros(3)

    def takes_much() -> None:
        calls.append(None)
        if len(calls) == 3:
            try:
                x.sum().item()
            except RuntimeError:
                raise torch.OutOfMemoryError("CUDA out of memory") from None
        x.add_(1)

    calls: list[None] = []
    with installed() as state:
        stream = state.stream
        with pytest.raises(torch.OutOfMemoryError):
            run(Replay(enabled=True), state, takes_much)
        assert state.stream is stream
        assert not state.open_pools


def test_the_software_graph_is_as_strict_as_the_real_one() -> None:
    with installed():
        x, graph = torch.zeros(2), CUDAGraph()
        with torch.cuda.graph(graph):
            x.add_(1)
            kept = torch.empty(2)
            kept += x
        assert x.tolist() == [0.0, 0.0]  # nothing ran
        graph.replay()
        assert x.tolist() == [1.0, 1.0]
        assert bool(kept.isnan().all())  # memory of `empty` is poison
