"""Many users on one device: prepare the next ones and finish the last ones while the engine trains.

Each process of a launch takes its own users; none waits for another before the end.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

import torch

from huggingtweets.bases.model import Base, open_base
from huggingtweets.config.plan import Plan
from huggingtweets.data.prepare import Prepared
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.generation.samples import Samples
from huggingtweets.jobs.deadline import Deadline
from huggingtweets.jobs.room import Room
from huggingtweets.jobs.tally import Tally, as_failure, out_of_time
from huggingtweets.pipeline.notices import tell_of_posts
from huggingtweets.pipeline.recorder import Recorder
from huggingtweets.pipeline.stacking import choose_settings, finishing_of, speed_of, tuning_of
from huggingtweets.pipeline.stages import (
    EndedJob,
    begin_job,
    finish_job,
    lock_job,
    prepare_job,
    utc_now,
)
from huggingtweets.pipeline.trained import StackedModel, Studio, sample_together
from huggingtweets.runtime.device import free_bytes, is_cpu, is_cuda, use_device
from huggingtweets.standing import is_done
from huggingtweets.storage.lock import JobLock
from huggingtweets.training.meter import peak_flops
from huggingtweets.training.progress import TrainingJob, training_job
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.pool import train_stacks
from huggingtweets.training.stacked.tuning import StackedSettings
from huggingtweets.training.stopping import raise_if_stopped, stop_requested

logger = logging.getLogger(__name__)

NUM_PREPARERS = 2
"""Reading and tokenising a user takes far less than training; more would take its cores."""
NUM_FINISHERS = 4
"""More than cores: a finisher mostly waits for the disk."""
AHEAD_PER_SLOT = 2
"""Jobs prepared before their turn, and models waiting to be written, by slot."""
MAX_WAITING_BYTES = 8 * 2**30
"""Of models waiting to be written."""


@dataclass(eq=False)
class _OpenJob:
    """A job that is begun: its folder is ours, its blocks are in memory."""

    plan: Plan
    """Its sampling settled."""
    prepared: Prepared
    lock: JobLock
    started_at: str
    result: StackedResult | None = None
    """None: it is not trained yet."""
    samples: Samples | None = None

    @property
    def is_sampled_with_others(self) -> bool:
        """Whether samples are wanted, and drawn by our own pass: the best of several are not."""
        return self.plan.sampling.num > 0 and self.plan.sampling.best_of == 1

    def ended(self) -> EndedJob:
        """Return it after its training."""
        assert self.result is not None
        assert self.result.trained is not None
        return EndedJob(self.plan, self.prepared, self.result.trained, self.started_at, "fused")

    def model(self, studio: Studio) -> StackedModel:
        """Return the trained model."""
        assert self.result is not None
        assert self.result.exported is not None
        return studio.model(self.result.exported, self.plan.config.recipe)


def run_fused(
    plans: Sequence[Plan],
    base: Base,
    device: torch.device,
    tally: Tally,
    deadline: Deadline | None = None,
    room: Room | None = None,
) -> None:
    """Run jobs side by side in this process; what becomes of each is told to the tally.

    All plans share base, engine and block size. On a request to stop, jobs whose training has
    ended are still finished; the others are begun again by the next run: they take seconds. Nor is
    a job begun that would not be finished before the deadline, or for which the disk has no room.
    """
    deadline = deadline or Deadline(None, {})
    room = room or Room(plans[0].paths.root.parent)
    recipe = plans[0].config.recipe
    opened = open_base(base, recipe)
    tuning = tuning_of(opened, base, recipe, device)
    settings = choose_settings(tuning, plans[0], device, len(plans))
    logger.info(
        "engine=fused jobs=%d slots=%d engines=%d", len(plans), settings.slots, settings.engines
    )
    studio = Studio(opened, device, tuning)
    peak = peak_flops(device, plans[0].config.engine.peak_tflops)
    try:
        with _Workshop(plans, base, studio, tally, deadline, room, settings) as workshop:
            results = train_stacks(
                tuning,
                workshop.prepared(),
                settings=settings,
                device=device,
                speed=speed_of(opened, tuning, recipe, peak),
                is_stopped=lambda: stop_requested() or room.is_over,
            )
            for result in results:
                workshop.finish(result)
        raise_if_stopped("training")
        if room.is_over:
            raise room.failure()
        if workshop.left:
            raise out_of_time(workshop.left)
    except HuggingtweetsError as err:
        tally.cut_short(plans, err)


class _Workshop:
    """The threads around the engine, with bounded queues; a context manager."""

    def __init__(
        self,
        plans: Sequence[Plan],
        base: Base,
        studio: Studio,
        tally: Tally,
        deadline: Deadline,
        room: Room,
        settings: StackedSettings,
    ) -> None:
        """Start no thread yet.

        Args:
            plans: of the jobs, in their order.
            base: of all jobs.
            studio: of the base.
            tally: takes what becomes of each job.
            deadline: tells which jobs are still begun.
            room: tells whether any is, and waits for it where something cannot be written.
            settings: of the engine.
        """
        slots = settings.slots
        self._plans = plans
        self._base = base
        self._studio = studio
        self._tally = tally
        self._deadline = deadline
        self._room = room
        self.left: list[Plan] = []
        """Jobs that are not begun for want of time."""
        self._num_prepared = AHEAD_PER_SLOT * slots
        most = MAX_WAITING_BYTES // studio.bytes_per_model
        num_waiting = max(NUM_FINISHERS, min(AHEAD_PER_SLOT * slots, most))
        self._waiting = threading.BoundedSemaphore(num_waiting)
        """Taken by each job from the end of its training until it is written."""
        self._own = threading.local()
        self._preparers = ThreadPoolExecutor(NUM_PREPARERS, thread_name_prefix="prepare")
        # On a CPU as many as engines, each on one thread; a GPU draws for all that wait at once.
        self._samplers = ThreadPoolExecutor(settings.engines, thread_name_prefix="sample")
        self._finishers = ThreadPoolExecutor(NUM_FINISHERS, thread_name_prefix="finish")
        self._ended: deque[_OpenJob] = deque()
        """Jobs that wait to be sampled."""
        self._num_together = 1  # on a CPU products are apart anyway
        if is_cuda(studio.device) and studio.layout is not None:
            finishing = finishing_of(plans[0], studio.layout)
            self._num_together = finishing.num_together(free_bytes(studio.device))
        self._num_threads = 1 if settings.engines > 1 else torch.get_num_threads()
        self._open: dict[str, _OpenJob] = {}
        """Jobs that are begun and not yet trained."""

    def __enter__(self) -> _Workshop:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the jobs that are being finished and give up all others."""
        # In this order: samplers hand their jobs on to finishers.
        self._preparers.shutdown(cancel_futures=True)
        self._samplers.shutdown()
        self._finishers.shutdown()
        for job in self._open.values():
            job.lock.release()

    def prepared(self) -> Iterator[TrainingJob | None]:
        """Yield the jobs in order as they get ready; None while the next one is not.

        A job that cannot be prepared is counted as failed and passed over.
        """
        waiting: deque[tuple[Plan, Future[_OpenJob | None]]] = deque()
        todo = filter(self._is_in_time, self._plans)
        is_exhausted = False
        while True:
            if not is_exhausted and self._room.is_open():
                free = self._num_prepared - len(waiting)
                for plan in islice(todo, free):
                    free -= 1
                    waiting.append((plan, self._preparers.submit(self._prepare, plan)))
                is_exhausted = free > 0
            if not waiting and (is_exhausted or self._room.is_over):
                return
            # In order, so that the longest are trained first. None lets the engine step the slots
            # that are busy, and ask again.
            if not waiting or not waiting[0][1].done():
                yield None
                continue
            plan, future = waiting.popleft()
            try:
                job = future.result()
            except Exception as err:
                self._tally.failed(plan, as_failure(plan, err))
                continue
            if job is None:
                self._tally.done(plan, before=True)
            elif self._is_in_time(plan):  # asked again: it has waited for its turn
                self._deadline.begin(plan.job.slug)
                yield training_job(job.plan, job.prepared)

    def finish(self, result: StackedResult) -> None:
        """Have a trained model sampled and written in the background; waits while too many are."""
        job = self._open.pop(result.slug)
        if result.error is not None:
            self._close(job, result.error)
            return
        job.result = result
        self._waiting.acquire()
        self._ended.append(job)
        self._samplers.submit(self._sample)

    def _is_in_time(self, plan: Plan) -> bool:
        if self._deadline.allows(plan.job.slug):
            return True
        self.left.append(plan)
        return False

    def _prepare(self, plan: Plan) -> _OpenJob | None:
        """Begin a job; None: an earlier start, given up as dead, has finished it meanwhile."""
        self._tally.running(plan)
        return self._room.trying(lambda: self._begin(plan))

    def _begin(self, plan: Plan) -> _OpenJob | None:
        """Do what the single engine does before training (`stages.run_job`)."""
        started_at = utc_now()
        lock = lock_job(plan)
        try:
            if is_done(plan):
                lock.release()
                return None
            prepared = prepare_job(plan, self._thread_base(), begin_job(plan))
            plan = plan.settled(tokens=prepared.long_tokens, chars=prepared.long_chars)
            tell_of_posts(plan, prepared, self._base.max_positions)
        except BaseException:
            lock.release()
            raise
        job = _OpenJob(plan, prepared, lock, started_at)
        self._open[plan.job.slug] = job
        return job

    def _sample(self) -> None:
        """Draw samples for jobs that wait, all in one call, and hand each on to be written."""
        waiting: list[_OpenJob] = []  # stays empty where other threads have taken them
        with suppress(IndexError):
            while len(waiting) < self._num_together:
                waiting.append(self._ended.popleft())
        try:
            use_device(self._studio.device)
            if is_cpu(self._studio.device):
                torch.set_num_threads(self._num_threads)  # new threads begin with all cores
            ready = [job for job in waiting if job.is_sampled_with_others]
            if ready and self._studio.layout is not None:
                drawn = sample_together(
                    [job.model(self._studio) for job in ready],
                    [job.plan for job in ready],
                    self._thread_base(),
                    [job.ended().guards for job in ready],
                )
                for job, samples in zip(ready, drawn, strict=True):
                    job.samples = samples
        except Exception as err:  # of one of them: each is sampled by itself when it is written
            logger.warning("%d jobs could not be sampled together: %s", len(waiting), err)
        finally:
            for job in waiting:
                self._finishers.submit(self._finish, job)

    def _finish(self, job: _OpenJob) -> None:
        failure: Exception | None = None
        try:
            self._room.trying(lambda: self._write(job))
        except Exception as err:
            failure = err
        try:
            self._close(job, failure)
        finally:
            self._waiting.release()

    def _close(self, job: _OpenJob, failure: Exception | None) -> None:
        """Count a job that is written, or failed, and give its folder up."""
        plan = job.plan
        try:
            self._deadline.end(plan.job.slug, is_done=failure is None)
            if failure is None:
                self._tally.done(plan, ended_by=job.ended().result.ended_by)
            else:
                self._tally.failed(plan, as_failure(plan, failure))
        finally:
            job.lock.release()

    def _write(self, job: _OpenJob) -> None:
        """Do what the single engine does after training."""
        ended = job.ended()
        base = self._thread_base()
        with Recorder(job.plan, is_main=True, is_shown=False) as recorder:
            recorder.start(base, job.prepared)
            for line in ended.result.lines():
                recorder.record(line)
            finish_job(ended, base, job.model(self._studio), recorder, job.samples)

    def _thread_base(self) -> Base:
        """Return the base with this thread's own tokenizer: they may not be shared."""
        if not hasattr(self._own, "base"):
            codec = copy.deepcopy(self._base.codec)
            self._own.base = replace(self._base, codec=codec)
        base: Base = self._own.base
        return base
