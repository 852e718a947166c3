"""The training loop of the fused engine: a stream of jobs through K slots.

All busy slots take their optimizer steps together. The moment a job ends, its weights stream out
and the next job begins in its slot: what the others compute does not change by it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby

import torch

from huggingtweets.errors import HuggingtweetsError, OutOfMemoryError, TrainingError
from huggingtweets.runtime.device import is_cpu, lacks_memory, release_memory
from huggingtweets.training.extraction import SetScores
from huggingtweets.training.host_memory import keep_freed_memory
from huggingtweets.training.meter import peak_memory_gib
from huggingtweets.training.progress import PendingLine, Speed, Training, TrainingJob
from huggingtweets.training.records import Ending
from huggingtweets.training.stacked.jobs import (
    SlotState,
    StackedResult,
    untrainable,
)
from huggingtweets.training.stacked.slots import Outbox, Snapshot, snapshot_of
from huggingtweets.training.stacked.step import Stepper
from huggingtweets.training.stacked.tuning import StackedSettings, Tuning

logger = logging.getLogger(__name__)

JobScores = tuple[SetScores, SetScores | None]
"""Of the held-out posts and of the probe."""

NUM_SCORES_KEPT = 16
"""Jobs whose scores of the base are kept for others with the same posts."""

_PAUSE_S = 0.005
"""Between two looks for a job while there is nothing to train."""


def train_stacked(
    tuning: Tuning,
    jobs: Iterator[TrainingJob | None],
    *,
    settings: StackedSettings,
    device: torch.device,
    speed: Speed | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[StackedResult]:
    """Train job after job, K at a time, and yield each as it ends.

    A job that diverges ends with an error and disturbs no other. Out of memory halves K: the jobs
    that were under way begin again.

    Args:
        tuning: what is trained.
        jobs: drawn when a slot falls free. None says that no job is ready yet.
        settings: how to compute.
        device: on which.
        speed: to tell the utilisation of the device, by all slots together.
        is_stopped: asked between steps; when it says so, what has ended is still yielded, and the
            jobs under way are given up.

    Raises:
        OutOfMemoryError: a single slot does not fit.
    """
    jobs = iter(jobs)
    num_slots = settings.slots
    if is_cpu(device):
        keep_freed_memory()
    while True:
        engine = None
        try:
            engine = _Engine(tuning, num_slots, settings, device, speed)
            yield from engine.run(jobs, is_stopped)
        except RuntimeError as err:
            if not lacks_memory(err):
                raise
            if engine is not None:
                yield from engine.ended(wait=True)
            if num_slots == 1:
                raise OutOfMemoryError(
                    "engine.slots: out of memory with a single slot; expected room for it; set "
                    "engine.micro_batch_size=1 or a smaller recipe.block_size"
                ) from err
        else:
            return
        if engine is not None:
            jobs = chain([state.job for state in engine.states], jobs)
            del engine
        num_slots //= 2
        logger.warning("out of memory: slots=%d", num_slots)
        release_memory()


@dataclass(eq=False)
class _Engine:
    """K slots, the jobs in them, and those that have ended and are on their way out."""

    tuning: Tuning
    num_slots: int
    settings: StackedSettings
    device: torch.device
    speed: Speed | None
    states: list[SlotState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._held = self.tuning.hold(self.num_slots, self.device, self.settings)
        self._stepper = Stepper(self._held, self.settings, self.device)
        self._slots = self._held.slots
        self._outbox = Outbox(self._slots.stack.rows[0])
        self._lines: deque[tuple[Snapshot, list[tuple[SlotState, int, PendingLine]]]] = deque()
        """Logged lines whose totals are on their way."""
        self._ended: deque[tuple[SlotState, Snapshot | None, HuggingtweetsError | None]] = deque()
        self._of_base: deque[tuple[TrainingJob, JobScores]] = deque(maxlen=NUM_SCORES_KEPT)
        self._seconds = 0.0
        """In training steps, all slots together."""
        self._tokens = 0

    def run(
        self, jobs: Iterator[TrainingJob | None], is_stopped: Callable[[], bool]
    ) -> Iterator[StackedResult]:
        """Train until the jobs are used up and all have ended, or a stop is asked for."""
        has_more = True
        while not is_stopped():
            has_more = has_more and self._fill(jobs)
            self._settle(wait=False)
            if self.states:
                self._close_gaps()
                self._step()
                self._look_after(list(self.states))
            elif not has_more:
                break
            else:
                time.sleep(_PAUSE_S)
            yield from self.ended(wait=False)
        yield from self.ended(wait=True)

    def ended(self, *, wait: bool) -> Iterator[StackedResult]:
        """Yield the jobs that have ended, in that order, once their weights have arrived."""
        while self._ended:
            state, snapshot, error = self._ended[0]
            if snapshot is not None and not wait and not snapshot.is_ready():
                return
            self._ended.popleft()
            if snapshot is None:
                yield StackedResult(state.job.slug, error=error)
            else:
                export = partial(self.tuning.export, snapshot.row(), state.job.recipe)
                result = state.training.result(self._mfu(), peak_memory_gib(self.device))
                yield StackedResult(state.job.slug, result, export)

    def _fill(self, jobs: Iterator[TrainingJob | None]) -> bool:
        """Put jobs into free slots; return whether there may be more."""
        new = []
        has_more = True
        free = sorted(set(range(self.num_slots)) - {state.slot for state in self.states})
        while free and has_more:
            try:
                job = next(jobs)
            except StopIteration:
                has_more = False
                break
            if job is None:
                break
            training = Training(job, line_start=self._seconds)
            state = SlotState(training, free[0], self.tuning.rates(job.recipe))
            reason = untrainable(job, self.settings.block_size, self.tuning.rank)
            if reason:
                self._ended.append((state, None, TrainingError(reason)))
                continue
            self.states.append(state)  # first of all: what is in a seat is not lost
            self._slots.load(free.pop(0), *self._held.start(job))
            new.append(state)
        self._evaluate_base(new)
        return has_more

    def _close_gaps(self) -> None:
        """Have the jobs in the first slots, so that only those need computing.

        Jobs of large batches come first: their further micro-steps need the fewer slots.
        """
        count = len(self.states)
        free = sorted(set(range(count)) - {state.slot for state in self.states})
        for state in self.states:
            if state.slot >= count:
                self._slots.move(state.slot, free[0])
                state.slot = free.pop(0)
        states = sorted(self.states, key=lambda s: (-s.job.recipe.global_batch_size, s.slot))
        for slot, state in enumerate(states):
            if state.slot != slot:
                self._slots.swap(state.slot, slot)
                other = next(one for one in self.states if one.slot == slot)
                other.slot, state.slot = state.slot, slot

    def _step(self) -> None:
        """Take one optimizer step in every busy slot."""
        start = time.perf_counter()
        self._stepper.take(self.states)
        for state in self.states:
            self._tokens += state.training.num_targets
            state.training.count_step()
        self._seconds += time.perf_counter() - start

    def _look_after(self, states: list[SlotState]) -> None:
        """Log, evaluate and end the jobs for which it is time after a step."""
        due = [s for s in states if s.training.is_due(self.settings.log_every)]
        ends = [state for state in due if state.training.ends_epoch]
        if due:
            self._note(due)
        if ends:
            self._settle(wait=True)
        self._evaluate([state for state in ends if state in self.states])
        for state in ends:
            if state in self.states and (ending := state.training.ending):
                self._end(state, ending)

    def _note(self, states: list[SlotState]) -> None:
        """Have the totals of some slots sent, for lines that are written when they arrive."""
        totals = snapshot_of(self._slots.totals)
        lines = []
        for state in states:
            self._slots.totals[state.slot].zero_()
            lines.append((state, state.slot, state.training.end_line(self._seconds)))
        self._lines.append((totals, lines))

    def _settle(self, *, wait: bool) -> None:
        """Write the lines whose totals have arrived, or all."""
        while self._lines and (wait or self._lines[0][0].is_ready()):
            totals, lines = self._lines.popleft()
            start = time.perf_counter()
            found = totals.row().tolist()
            self._seconds += time.perf_counter() - start
            for state, slot, line in lines:
                if state in self.states:
                    with self._guarded(state):
                        state.training.log(line, found[slot], self._mfu())

    @contextmanager
    def _guarded(self, state: SlotState) -> Iterator[None]:
        """Have a job that diverges give its slot back; no other is disturbed."""
        try:
            yield
        except TrainingError as err:
            self.states.remove(state)
            self._ended.append((state, None, err))

    def _mfu(self) -> float | None:
        """Return the utilisation of the device so far, by all slots together."""
        if self.speed is None or not self._seconds:
            return None
        return self.speed.mfu(self._tokens / self._seconds)

    def _evaluate_base(self, states: list[SlotState]) -> None:
        """Score the base for jobs that begin; once where several have the same posts, as trials."""
        states = [state for state in states if state.job.heldout]
        known = {_posts_of(job): scores for job, scores in self._of_base}
        new: dict[tuple[int, int], SlotState] = {}
        for state in states:
            if _posts_of(state.job) not in known:
                new.setdefault(_posts_of(state.job), state)
        for state, scores in self._scored(list(new.values())):
            known[_posts_of(state.job)] = scores
            self._of_base.append((state.job, scores))
        for state in states:
            with self._guarded(state):
                state.training.add_eval(*known[_posts_of(state.job)])

    def _evaluate(self, states: list[SlotState]) -> None:
        """Score the held-out posts of some jobs; keep what is best."""
        for state, scores in self._scored([state for state in states if state.job.heldout]):
            with self._guarded(state):
                if state.training.add_eval(*scores):
                    state.training.best = self._snapshot(state)

    def _scored(self, states: list[SlotState]) -> Iterator[tuple[SlotState, JobScores]]:
        """Score held-out posts and probes, neighbours together."""
        for group in _neighbours(states):
            first = group[0].slot
            heldout = self._held.score(first, [state.job.heldout for state in group])
            probed = self._held.score(first, [state.job.probe for state in group])
            for state, figures, known in zip(group, heldout, probed, strict=True):
                assert figures is not None
                yield state, (figures, known)

    def _end(self, state: SlotState, ending: Ending) -> None:
        """Free a slot and send its weights, or those kept, on their way."""
        training = state.training
        if training.best is None:
            training.best, training.kept_step = self._snapshot(state), training.step
        training.ended_by = ending
        self.states.remove(state)  # last of all: for want of memory the job begins again
        self._ended.append((state, training.best, None))

    def _snapshot(self, state: SlotState) -> Snapshot:
        return self._outbox.send(self._slots.stack.rows[state.slot])


def _posts_of(job: TrainingJob) -> tuple[int, int]:
    """Tell the posts that a job is judged by from others that are in memory."""
    return id(job.heldout), id(job.probe)


def _neighbours(states: list[SlotState]) -> list[list[SlotState]]:
    """Group seats into runs of adjacent slots with held-out blocks of one size."""
    ordered = enumerate(sorted(states, key=lambda state: state.slot))
    # Within a run of adjacent slots the place in the order grows as the slot does.
    runs = groupby(ordered, lambda seat: (seat[1].slot - seat[0], seat[1].heldout_size))
    return [[state for _, state in run] for _, run in runs]
