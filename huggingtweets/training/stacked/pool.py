"""Several fused engines at once on a CPU, each with a thread and a share of the slots.

A step of small models is too little work to be divided: two threads at one engine's matrix products
wait for each other more than they gain. Engines side by side wait for nothing but the next job.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from queue import Queue

import torch

from huggingtweets.training.progress import Speed, TrainingJob
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import StackedSettings, Tuning


def train_stacks(
    tuning: Tuning,
    jobs: Iterator[TrainingJob | None],
    *,
    settings: StackedSettings,
    device: torch.device,
    speed: Speed | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[StackedResult]:
    """Do as `train_stacked` does, by `settings.engines` engines that draw from the same jobs.

    Jobs are drawn by one thread at a time, not always the same; their judges are called by several.
    The first engine that fails ends them all.

    Raises:
        OutOfMemoryError: a single slot does not fit.
    """
    num = settings.engines
    if num == 1:
        yield from train_stacked(
            tuning, jobs, settings=settings, device=device, speed=speed, is_stopped=is_stopped
        )
        return
    shared, cancelled = _Shared(jobs), threading.Event()
    # Bounded: an engine whose results nobody takes waits instead of filling memory with weights.
    found: Queue[StackedResult | BaseException | None] = Queue(maxsize=num)

    def work(slots: int) -> None:
        """Be an engine, with all its arithmetic on this one thread."""
        torch.set_num_threads(1)
        try:
            for result in train_stacked(
                tuning,
                shared,
                settings=replace(settings, slots=slots, engines=1),
                device=device,
                speed=speed,
                is_stopped=lambda: cancelled.is_set() or is_stopped(),
            ):
                found.put(result)
        except BaseException as err:
            found.put(err)
        found.put(None)

    share, rest = divmod(settings.slots, num)
    threads = [
        threading.Thread(target=work, args=(share + (index < rest),), name=f"engine-{index}")
        for index in range(num)
    ]
    # What each puts ends with a None.
    arrivals: Iterator[StackedResult | BaseException] = chain.from_iterable(
        iter(found.get, None) for _ in threads
    )
    num_threads = torch.get_num_threads()
    for thread in threads:
        thread.start()
    try:
        for one in arrivals:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        cancelled.set()
        for _ in arrivals:  # as long as one waits for room in the queue, it does not end
            pass
        for thread in threads:
            thread.join()
        torch.set_num_threads(num_threads)  # new threads begin with what any thread set last


class _Shared:
    """An iterator for several threads."""

    def __init__(self, jobs: Iterator[TrainingJob | None]) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[TrainingJob | None]:
        return self

    def __next__(self) -> TrainingJob | None:
        with self._lock:
            return next(self._jobs)
