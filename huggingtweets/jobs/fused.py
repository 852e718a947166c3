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
    end_job,
    finish_job,
    prepare_job,
    utc_now,
)
from huggingtweets.pipeline.trained import StackedModel, Studio, sample_together
from huggingtweets.runtime.device import free_bytes, is_cpu, is_cuda, use_device
from huggingtweets.standing import is_done
from huggingtweets.storage.lock import JobLock, acquire_lock
from huggingtweets.training.meter import (
    peak_flops,
)
from huggingtweets.training.progress import TrainingJob, training_job
from huggingtweets.training.stacked.grouped import GroupedTuning
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.pool import train_stacks
from huggingtweets.training.stacked.tuning import StackedSettings
from huggingtweets.training.stopping import raise_if_stopped, stop_requested

logger = logging.getLogger(__name__)

NUM_PREPARERS = 2
NUM_FINISHERS = 4
"""More than cores: a finisher mostly waits for the disk."""
AHEAD_PER_SLOT = 2
"""Jobs prepared before their turn, and models waiting to be written, by slot."""
MAX_WAITING_BYTES = 8 * 2**30
"""Of models waiting to be written."""


@dataclass(frozen=True)
class OpenJob:
    """A job that is begun: its folder is ours, its blocks are in memory."""

    plan: Plan
    prepared: Prepared
    lock: JobLock
    started_at: str

    def ended(self, result: StackedResult) -> EndedJob:
        """Return it after its training."""
        assert result.trained is not None
        return end_job(self.plan, self.prepared, result.trained, self.started_at, engine="fused")


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
    room = room or Room(
        plans[0].paths.root.parent, 0, wait_s=plans[0].config.engine.wait_for_room_s
    )
    recipe = plans[0].config.recipe
    opened = open_base(base, recipe)
    tuning = tuning_of(opened, base, recipe, device)
    speed = speed_of(opened, tuning, recipe, peak_flops(device, plans[0].config.engine.peak_tflops))
    settings = choose_settings(tuning, plans[0], device, len(plans))
    logger.info(
        "engine=fused jobs=%d slots=%d engines=%d", len(plans), settings.slots, settings.engines
    )
    studio = Studio(opened, device, tuning if isinstance(tuning, GroupedTuning) else None)
    try:
        with _Workshop(plans, base, studio, tally, deadline, room, settings) as workshop:
            results = train_stacks(
                tuning,
                workshop.prepared(),
                settings=settings,
                device=device,
                speed=speed,
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


@dataclass(eq=False)
class _Ended:
    """A job whose training has ended, on its way through sampling to being written."""

    job: OpenJob
    result: StackedResult
    samples: Samples | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.error = self.result.error

    @property
    def can_be_sampled(self) -> bool:
        """Whether samples are wanted, and drawn as those of many are."""
        sampling = self.job.plan.sampling
        return self.error is None and sampling.num > 0 and sampling.best_of == 1

    def model(self, studio: Studio) -> StackedModel:
        """Return the trained model."""
        exported = self.result.exported
        assert exported is not None
        return studio.model(exported.weights, exported.adapters, self.job.plan.config.recipe)


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
        self._ended: deque[_Ended] = deque()
        """Jobs that wait to be sampled."""
        self._num_together = 1  # on a CPU products are apart anyway
        if is_cuda(studio.device) and studio.layout is not None:
            finishing = finishing_of(plans[0], studio.layout)
            self._num_together = finishing.num_together(free_bytes(studio.device))
        self._num_threads = 1 if settings.engines > 1 else torch.get_num_threads()
        self._open: dict[str, OpenJob] = {}
        """Jobs that are begun and not yet with a finisher."""

    def __enter__(self) -> _Workshop:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the jobs that are being finished and give up all others."""
        self._preparers.shutdown(cancel_futures=True)
        self._samplers.shutdown()
        self._finishers.shutdown()
        for job in self._open.values():
            job.lock.release()

    def prepared(self) -> Iterator[TrainingJob | None]:
        """Yield the jobs in order as they get ready; None while the next one is not.

        A job that cannot be prepared is counted as failed and passed over.
        """
        waiting: deque[tuple[Plan, Future[OpenJob | None]]] = deque()
        todo = filter(self._is_in_time, self._plans)
        is_exhausted = False
        while True:
            if not is_exhausted and self._room.is_open():
                free = self._num_prepared - len(waiting)
                for plan in islice(todo, free):
                    free -= 1
                    waiting.append((plan, self._preparers.submit(self._prepare, plan)))
                is_exhausted = free > 0
            if not waiting:
                if is_exhausted or self._room.is_over:
                    return
                yield None
                continue
            plan, future = waiting[0]
            if not future.done():
                yield None
                continue
            waiting.popleft()
            try:
                job = future.result()
            except Exception as err:
                self._tally.failed(plan, as_failure(plan, err))
                continue
            if job is None:
                self._tally.done(plan, before=True)
            elif self._is_in_time(plan):
                self._deadline.begin(plan.job.slug)
                yield training_job(job.plan, job.prepared)

    def finish(self, result: StackedResult) -> None:
        """Have a trained model sampled and written in the background; waits while too many are."""
        self._waiting.acquire()
        self._ended.append(_Ended(self._open.pop(result.slug), result))
        self._samplers.submit(self._sample)

    def _is_in_time(self, plan: Plan) -> bool:
        if self._deadline.allows(plan.job.slug):
            return True
        self.left.append(plan)
        return False

    def _prepare(self, plan: Plan) -> OpenJob | None:
        """Begin a job; None: an earlier start, given up as dead, has finished it meanwhile."""
        self._tally.running(plan)
        return self._room.trying(lambda: self._begin(plan))

    def _begin(self, plan: Plan) -> OpenJob | None:
        started_at = utc_now()
        lock = acquire_lock(plan.paths.root)
        try:
            if is_done(plan):
                lock.release()
                return None
            cleaned = begin_job(plan)
            prepared = prepare_job(plan, self._thread_base(), cleaned)
            tell_of_posts(plan, prepared, self._base.max_positions)
        except BaseException:
            lock.release()
            raise
        job = OpenJob(plan, prepared, lock, started_at)
        self._open[plan.job.slug] = job
        return job

    def _sample(self) -> None:
        """Draw samples for jobs that wait, all in one call, and hand each on to be written."""
        waiting = self._take_waiting()
        try:
            use_device(self._studio.device)
            if is_cpu(self._studio.device):
                torch.set_num_threads(self._num_threads)
            can_sample = self._studio.layout is not None
            ready = [one for one in waiting if can_sample and one.can_be_sampled]
            if ready:
                models = [one.model(self._studio) for one in ready]
                ended = [one.job.ended(one.result) for one in ready]
                drawn = sample_together(
                    models,
                    [job.plan for job in ended],
                    self._thread_base(),
                    [job.guards for job in ended],
                )
                for one, samples in zip(ready, drawn, strict=True):
                    one.samples = samples
        except Exception as err:  # of one of them: each is sampled by itself when it is written
            logger.warning("%d jobs could not be sampled together: %s", len(waiting), err)
        finally:
            for one in waiting:
                self._finishers.submit(self._finish, one)

    def _take_waiting(self) -> list[_Ended]:
        """Return jobs to be sampled together; none where another thread has taken them."""
        taken: list[_Ended] = []
        with suppress(IndexError):
            while len(taken) < self._num_together:
                taken.append(self._ended.popleft())
        return taken

    def _finish(self, ended: _Ended) -> None:
        plan = ended.job.plan
        try:
            if ended.error is not None:
                raise ended.error
            self._room.trying(lambda: self._write(ended))
        except Exception as err:
            self._tally.failed(plan, as_failure(plan, err))
        else:
            assert ended.result.trained is not None
            self._tally.done(plan, ended_by=ended.result.trained.ended_by)
            self._deadline.end(plan.job.slug)
        finally:
            ended.job.lock.release()
            self._waiting.release()

    def _write(self, ended: _Ended) -> None:
        """Do what the single engine does after training."""
        job, trained = ended.job, ended.result.trained
        assert trained is not None
        base = self._thread_base()
        with Recorder(job.plan, is_main=True, is_shown=False) as recorder:
            recorder.start(base, job.prepared)
            for line in trained.lines():
                recorder.record(line)
            finish_job(
                job.ended(ended.result),
                base,
                ended.model(self._studio),
                recorder,
                ended.samples,
            )

    def _thread_base(self) -> Base:
        """Return the base with this thread's own tokenizer: they may not be shared."""
        if not hasattr(self._own, "base"):
            codec = copy.deepcopy(self._base.codec)
            self._own.base = replace(self._base, codec=codec)
        base: Base = self._own.base
        return base
