"""Several fused engines at once on a CPU, each with a thread and a share of the slots.

A step of small models is too little work to be divided: two threads at one engine's matrix products
wait for each other more than they gain. Engines side by side wait for nothing but the next job.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
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

    Raises:
        OutOfMemoryError: a single slot does not fit.
    """
    if settings.engines == 1:
        yield from train_stacked(
            tuning,
            jobs,
            settings=settings,
            device=device,
            speed=speed,
            is_stopped=is_stopped,
        )
        return

    def engine(slots: int) -> Iterator[StackedResult]:
        return train_stacked(
            tuning,
            shared,
            settings=replace(settings, slots=slots, engines=1),
            device=device,
            speed=speed,
            is_stopped=lambda: pool.is_cancelled() or is_stopped(),
        )

    shared = _Shared(jobs)
    share, rest = divmod(settings.slots, settings.engines)
    pool = _Pool(settings.engines)
    num_threads = torch.get_num_threads()
    for index in range(settings.engines):
        pool.start(engine(share + (index < rest)))
    try:
        yield from pool.results()
    finally:
        pool.cancel()
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


class _Pool:
    """Threads that each go through an iterator, and one queue of what they find."""

    def __init__(self, size: int) -> None:
        self._found: Queue[StackedResult | BaseException | None] = Queue(maxsize=size)
        self._cancelled = threading.Event()
        self._threads: list[threading.Thread] = []
        self._num_ended = 0

    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def start(self, engine: Iterator[StackedResult]) -> None:
        """Have a thread go through an iterator, with all its arithmetic on this one thread."""
        name = f"engine-{len(self._threads)}"
        self._threads.append(threading.Thread(target=self._work, args=(engine,), name=name))
        self._threads[-1].start()

    def results(self) -> Iterator[StackedResult]:
        """Yield what is found until all threads have ended; the first failure cancels all."""
        for found in self._until_all_end():
            if isinstance(found, BaseException):
                raise found
            yield found

    def cancel(self) -> None:
        """Have the threads end, and wait for them."""
        self._cancelled.set()
        for _ in self._until_all_end():
            pass
        for thread in self._threads:
            thread.join()

    def _work(self, engine: Iterator[StackedResult]) -> None:
        torch.set_num_threads(1)
        try:
            for result in engine:
                self._found.put(result)
        except BaseException as err:
            self._found.put(err)
        self._found.put(None)

    def _until_all_end(self) -> Iterator[StackedResult | BaseException]:
        while self._num_ended < len(self._threads):
            found = self._found.get()
            if found is None:
                self._num_ended += 1
            else:
                yield found
