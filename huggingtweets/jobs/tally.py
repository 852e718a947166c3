"""What becomes of the jobs of one run: said to the person, written to the ledger, summed up."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingtweets.attempt import is_superseded, tell_progress
from huggingtweets.causes import as_known, is_curable
from huggingtweets.config.plan import Plan
from huggingtweets.errors import (
    HuggingtweetsError,
    OptedOutError,
    StoppedError,
    TrainingError,
)
from huggingtweets.jobs.ledger import JobState, JobStatus, Ledger
from huggingtweets.logs import JOB_FAILED, STOPPED, exit_code_of
from huggingtweets.publishing.facts import ENDINGS
from huggingtweets.training.records import Ending

logger = logging.getLogger(__name__)

_NO_MATTER = ("output_dir", "shard", "job_index", "retry_failed", "only_curable", "tracking")
"""Settings that no failure asks for; `overwrite` is one that may be."""
MAX_CRASHES = 4
"""A job that this many runs in a row have died of is not begun again."""


def newest_step(checkpoints: Path) -> int:
    """Return the optimizer step of the newest checkpoint in a folder, unread; 0 for none."""
    names = [path.name.removeprefix("step-") for path in checkpoints.glob("step-*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def poisoned(plan: Plan, crashes: int) -> HuggingtweetsError:
    """Return the failure of a job that its processes keep dying of."""
    return TrainingError(
        f"job {plan.job.slug}: got {crashes} runs in a row that died while at work on it, without "
        "a word; expected one that ends; look for its last lines in the log, then try again with "
        "retry_failed=true"
    )


def out_of_time(left: Sequence[Plan]) -> StoppedError:
    """Return why jobs are not begun that would not be finished in the time left."""
    return StoppedError(
        f"time: {len(left)} job(s) would not be finished before the end of this allocation; they "
        "are left for the next start; run the same command again to go on"
    )


def as_failure(plan: Plan, err: Exception) -> HuggingtweetsError:
    """Return the failure of a job that an exception is; an unforeseen one is logged whole.

    Whether it may be tried again is told by its cause, see `causes.py`.
    """
    slug = plan.job.slug
    known = as_known(plan.paths.root, err)
    if known is not None:
        return known
    logger.error("job=%s unforeseen error", slug, exc_info=err)
    return TrainingError(
        f"job {slug}: {type(err).__name__}: {str(err)[:200]}; this is a bug of ours; please report "
        "it with the log"
    )


def trial_of(plan: Plan, cost: float) -> str:
    """Return what stands for all that a job is tried with: its settings and the size of its posts.

    A job that failed permanently is tried again once one of them is another: the person has changed
    what the failure asked for, or the missing posts have come.
    """
    # The size of the posts is told by the cost, so that no file is read for it.
    settings = {**asdict(plan.config), **dict.fromkeys(_NO_MATTER)}
    text = json.dumps([settings, cost], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Tally:
    """Counts the jobs of this process; with a ledger, also writes every change of state there."""

    def __init__(
        self,
        ledger: Ledger | None,
        before: Mapping[str, JobState],
        *,
        is_batch: bool = True,
        costs: Mapping[str, float] | None = None,
    ) -> None:
        """Start counting.

        Args:
            ledger: None for a run that is not a batch, and on other processes than the main one.
            before: how the jobs stood when the run began; empty without a ledger.
            is_batch: whether people who want no model are passed over, rather than refused.
            costs: of jobs by slug, by the size of their posts.
        """
        self._ledger = ledger
        self._before = before
        self._is_batch = is_batch
        self._costs = costs or {}
        self._codes: dict[str, int] = {}
        self._begun: set[str] = set()
        self._skipped: set[str] = set()
        self.reasons: dict[str, str] = {}
        """Why jobs failed, by slug."""
        self.is_stopped = False

    @property
    def num_done(self) -> int:
        """Jobs that are finished, those of earlier runs included."""
        return sum(code == 0 for code in self._codes.values()) - len(self._skipped)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Jobs that are finished, that failed, and that were skipped."""
        return self.num_done, len(self.reasons), len(self._skipped)

    @property
    def exit_code(self) -> int:
        """That of the run: in a batch every failure counts the same."""
        if self.is_stopped:
            return STOPPED
        worst = max(self._codes.values(), default=0)
        # Not asked of the ledger: of processes that train each job together only the main one has
        # one, and the code of all is the worst of any.
        return JOB_FAILED if worst and self._is_batch else worst

    def failed_for_good(self, plan: Plan) -> bool:
        """Whether the job failed in an earlier run and would fail again; counts it if so."""
        earlier = self._earlier(plan)
        if earlier.status is not JobStatus.failed or earlier.retryable:
            return False
        if earlier.trial and earlier.trial != self._trial(plan):
            return False
        logger.warning(
            "job=%s failed before (%s); it is tried again once a setting or its posts change, or "
            "with retry_failed=true",
            plan.job.slug,
            earlier.reason,
        )
        self._codes[plan.job.slug] = JOB_FAILED
        self.reasons[plan.job.slug] = earlier.reason
        return True

    def is_curable(self, plan: Plan) -> bool:
        """Whether the job failed in an earlier run for a reason that another try may cure."""
        earlier = self._earlier(plan)
        return earlier.status is JobStatus.failed and earlier.retryable

    def crashes(self, plan: Plan) -> int:
        """How many runs in a row died while at work on the job, without getting any further."""
        return self._earlier(plan).crashes

    def queued(self, plan: Plan) -> None:
        """Count a job that is to be run."""
        self._record(plan, JobStatus.queued)

    def running(self, plan: Plan) -> None:
        """Count a job that begins."""
        self._begun.add(plan.job.slug)
        self._record(plan, JobStatus.running, step=newest_step(plan.paths.checkpoints))

    def done(self, plan: Plan, *, before: bool = False, ended_by: Ending = Ending.full) -> None:
        """Count a finished job; `before`: by an earlier run."""
        slug, root = plan.job.slug, plan.paths.root
        self._codes[slug] = 0
        logger.info("job=%s %s: %s", slug, "was done before" if before else "done", root)
        if not before:
            tell_progress()
        if not before or self._earlier(plan).status is not JobStatus.done:
            words = "" if ended_by is Ending.full else f"ended early: {ENDINGS[ended_by]}"
            self._record(plan, JobStatus.done, words)

    def failed(self, plan: Plan, err: HuggingtweetsError) -> None:
        """Count a job that could not be done, or was stopped on request or by a successor.

        In a batch, somebody who wants no model is passed over, and nothing has failed.
        """
        if isinstance(err, StoppedError) or is_superseded():
            self._stopped(plan, err)
            exit_code_of(err)
        elif isinstance(err, OptedOutError) and self._is_batch:
            logger.warning("job=%s skipped: %s", plan.job.slug, err)
            self._codes[plan.job.slug] = 0
            self._skipped.add(plan.job.slug)
            self._record(plan, JobStatus.skipped, str(err))
        else:
            self._failed(plan, err, exit_code_of(err))
            tell_progress()

    def cut_short(self, plans: Iterable[Plan], err: HuggingtweetsError) -> None:
        """Count what a stop or a failure of the whole run leaves; nothing where all jobs ended."""
        left = [plan for plan in plans if plan.job.slug not in self._codes]
        if not left:
            return
        code = exit_code_of(err)  # says it once, and not for each job
        for plan in left:
            if not isinstance(err, StoppedError):
                self._failed(plan, err, code)
            elif plan.job.slug in self._begun:
                self._stopped(plan, err)
            else:
                self.is_stopped = True

    def _stopped(self, plan: Plan, err: HuggingtweetsError) -> None:
        self.is_stopped = True
        self._record(plan, JobStatus.queued, str(err), retryable=err.retryable)

    def _failed(self, plan: Plan, err: HuggingtweetsError, code: int) -> None:
        self._codes[plan.job.slug] = code
        self.reasons[plan.job.slug] = str(err)
        is_final = not is_curable(err)
        trial = self._trial(plan) if is_final else ""
        self._record(plan, JobStatus.failed, str(err), retryable=not is_final, trial=trial)

    def _trial(self, plan: Plan) -> str:
        return trial_of(plan, self._costs.get(plan.job.slug, 1.0))

    def _earlier(self, plan: Plan) -> JobState:
        """Return how a job stood when the run began; of a new one, as one never tried."""
        slug = plan.job.slug
        return self._before.get(slug, JobState(slug, JobStatus.queued))

    def _record(self, plan: Plan, status: JobStatus, reason: str = "", **more: Any) -> None:
        """Write a line; `more` as `Ledger.record` takes it."""
        if self._ledger is None or is_superseded():
            return
        attempt = self._earlier(plan).attempt + 1
        self._ledger.record(plan.job.slug, status, reason=reason, attempt=attempt, **more)


def show_counts(counts: Sequence[tuple[int, int, int]], output_dir: Path) -> None:
    """Log the sum of what processes counted (`Tally.counts`), and where to read on."""
    logger.info(
        "done=%d failed=%d skipped=%d; `huggingtweets status %s` tells which and why",
        *map(sum, zip(*counts, strict=True)),
        output_dir,
    )
