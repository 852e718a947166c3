"""Several engines draw from one stream of jobs: the same models, whoever trains them."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from stacked_reference import CPU, LAYOUT, PLAIN, ROW, T, build_job

from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.pool import train_stacks
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

JOBS = [build_job(f"job-{index}", PLAIN, posts=8 + 5 * index, seed=index) for index in range(7)]
SETTINGS = StackedSettings(slots=5, micro_batch_size=1, block_size=T)


def train(jobs: Iterator[TrainingJob | None], engines: int) -> dict[str, StackedResult]:
    settings = replace(SETTINGS, engines=engines)
    found = train_stacks(FullTuning(LAYOUT, ROW), jobs, settings=settings, device=CPU)
    return {result.slug: result for result in found}


def test_models_do_not_depend_on_the_number_of_engines() -> None:
    threads = torch.get_num_threads()
    one, three = train(iter(JOBS), 1), train(iter(JOBS), 3)
    assert torch.get_num_threads() == threads
    assert set(one) == set(three) == {job.slug for job in JOBS}
    for slug, result in one.items():
        assert three[slug].trained is not None
        assert result.trained is not None
        assert three[slug].trained.steps == result.trained.steps
        for name, weights in (result.weights or {}).items():
            torch.testing.assert_close(
                (three[slug].weights or {})[name], weights, atol=1e-4, rtol=0
            )


def test_all_engines_work() -> None:
    names = set()

    def watched() -> Iterator[TrainingJob | None]:
        for job in JOBS:
            names.add(threading.current_thread().name)
            yield job

    assert len(train(watched(), 3)) == len(JOBS)
    assert names == {"engine-0", "engine-1", "engine-2"}


def test_engines_wait_for_jobs_that_are_not_ready() -> None:
    found = train(iter([None, None, *JOBS[:2], None, *JOBS[2:], None]), 2)
    assert len(found) == len(JOBS)


def test_a_failure_ends_all_engines() -> None:
    def broken() -> Iterator[TrainingJob | None]:
        yield from JOBS[:3]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        train(broken(), 3)
    assert not [one for one in threading.enumerate() if one.name.startswith("engine-")]


def test_who_takes_no_more_ends_all_engines() -> None:
    settings = replace(SETTINGS, engines=3)
    results = train_stacks(FullTuning(LAYOUT, ROW), iter(JOBS), settings=settings, device=CPU)
    next(results)
    results.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("engine-")]
