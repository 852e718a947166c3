"""How a batch stands: the ledger, corrected by what lies in the job folders, and summed up."""

import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingtweets.jobs.ledger import JobState, JobStatus, read_ledger
from huggingtweets.process import lives
from huggingtweets.publishing.index import NotDone
from huggingtweets.standing import find_model_fault, read_result
from huggingtweets.storage.paths import JobPaths

RATE_WINDOW_S = 1800.0
"""The rate is that of the last half hour of work."""
SILENT_AFTER_S = 900.0
"""A job on another machine whose lock has not been touched for so long is taken for interrupted;
far above any difference between clocks."""
NUM_SLOWEST = 5
_WORD = re.compile(r"\w+(?:\.\w+)*")
_NUMBER = re.compile(r"\d(?:[\d,.]*\d)?")


@dataclass(frozen=True)
class BatchSummary:
    """The figures of a batch."""

    total: int
    counts: Mapping[JobStatus, int]
    jobs_per_hour: float | None
    """None: nothing is running, or too little is finished."""
    remaining_s: float | None
    """Estimated from the rate."""
    slowest: tuple[tuple[str, float], ...]
    """Slugs and seconds."""


def read_states(output_dir: Path) -> dict[str, JobState]:
    """Return how each job of a batch really stands, in the order of the ledger.

    A folder with result.json is done and one without is not, whatever the ledger says; a job
    whose process is dead waits to be run again.

    Raises:
        OSError: the folder cannot be read.
    """
    recorded = read_ledger(output_dir)
    folders = _job_folders(output_dir)
    states = {slug: _corrected(state, folders.get(slug)) for slug, state in recorded.items()}
    for slug, paths in folders.items():
        if slug in states:
            continue
        lack = _lack(paths)
        if lack is None:
            states[slug] = JobState(slug, JobStatus.done)
        elif lack:
            states[slug] = JobState(slug, JobStatus.queued, reason=lack)
        elif paths.config.exists():
            states[slug] = JobState(slug, JobStatus.queued, reason="begun, not finished")
    return states


def summarise(states: Iterable[JobState]) -> BatchSummary:
    """Count, and estimate when the rest will be done."""
    states = list(states)
    found = Counter(state.status for state in states)
    counts = {status: found[status] for status in JobStatus}
    rate = _jobs_per_hour(states) if counts[JobStatus.running] else None
    left = counts[JobStatus.queued] + counts[JobStatus.running]
    timed = [(state.slug, state.seconds) for state in states if state.seconds is not None]
    return BatchSummary(
        total=len(states),
        counts=counts,
        jobs_per_hour=rate,
        remaining_s=left / rate * 3600 if rate else None,
        slowest=tuple(sorted(timed, key=lambda pair: -pair[1])[:NUM_SLOWEST]),
    )


def not_done(states: Iterable[JobState]) -> list[NotDone]:
    """Return the jobs that failed or were skipped, for the index of the batch."""
    ended = (JobStatus.failed, JobStatus.skipped)
    return [
        NotDone(state.slug, state.status.value, state.reason)
        for state in states
        if state.status in ended
    ]


def as_json(states: Mapping[str, JobState]) -> dict[str, Any]:
    """Return what `status --json` prints."""
    summary = summarise(states.values())
    return {
        "total": summary.total,
        **{status.value: count for status, count in summary.counts.items()},
        "jobs_per_hour": summary.jobs_per_hour,
        "remaining_s": summary.remaining_s,
        "jobs": [
            {
                "slug": state.slug,
                "status": state.status.value,
                "reason": state.reason,
                "retryable": state.retryable,
                "attempt": state.attempt,
                "seconds": state.seconds,
            }
            for state in states.values()
        ],
    }


def _job_folders(output_dir: Path) -> dict[str, JobPaths]:
    """Sub-folders by name; the names come from the disk, so none can lead elsewhere."""
    with os.scandir(output_dir) as entries:
        return {
            entry.name: JobPaths(Path(entry.path))
            for entry in entries
            # Not entry.is_dir(), which raises where a link leads to itself.
            if not entry.name.startswith(".") and Path(entry.path).is_dir()
        }


def _corrected(state: JobState, paths: JobPaths | None) -> JobState:
    lack = _lack(paths) if paths is not None else ""
    if lack is None:
        reason = state.reason if state.status is JobStatus.done else ""
        return replace(state, status=JobStatus.done, reason=reason)
    if state.status is JobStatus.done:
        reason = lack or "was done, but its result.json is gone"
        return replace(state, status=JobStatus.queued, reason=reason)
    if state.status is JobStatus.running and not _is_at_work(state, paths):
        return replace(state, status=JobStatus.queued, reason="interrupted")
    return state


def _lack(paths: JobPaths) -> str | None:
    """Say why a job is not done, as train.py sees it; empty: it has no result; None: it is done."""
    result = read_result(paths)
    if result is not None:
        fault = find_model_fault(paths, result)
        return None if fault is None else f"was done, but {fault}"
    return "was done, but its result.json cannot be read" if paths.result.exists() else ""


def _is_at_work(state: JobState, paths: JobPaths | None) -> bool:
    if state.writer is None:
        return False
    if state.writer.host == socket.gethostname():
        return lives(state.writer.pid, state.writer.started)
    last_sign = _last_sign(paths.root / ".lock") if paths else None
    return last_sign is None or time.time() - last_sign < SILENT_AFTER_S


def _last_sign(lock: Path) -> float | None:
    """When the holder of a job's lock last touched it; None: there is no lock."""
    times = []
    with suppress(OSError), os.scandir(lock) as entries:
        times = [entry.stat().st_mtime for entry in entries]
    return max(times, default=None)


def _jobs_per_hour(states: Iterable[JobState]) -> float | None:
    ended = (JobStatus.done, JobStatus.failed, JobStatus.skipped)
    times = sorted(state.changed_at for state in states if state.status in ended)
    recent = [moment for moment in times if moment > times[-1] - RATE_WINDOW_S]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0]) * 3600


def kind_of(state: JobState) -> str:
    """A reason without what differs from user to user, so that equal ones count together."""
    handles = state.slug.split("-")
    reason = _WORD.sub(
        lambda word: "USER" if word[0].lower() in handles else word[0],
        state.reason or "no reason given",
    )
    return _NUMBER.sub("N", reason)
