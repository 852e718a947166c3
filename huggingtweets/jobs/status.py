"""How a batch stands: the ledger, corrected by what lies in the job folders; and its summary."""

import os
import re
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from huggingtweets.jobs.ledger import JobState, JobStatus, read_command, read_ledger
from huggingtweets.process import lives
from huggingtweets.publishing.index import NotDone
from huggingtweets.publishing.names import rough_duration
from huggingtweets.standing import find_model_fault, read_result
from huggingtweets.storage.paths import JobPaths

RATE_WINDOW_S = 1800.0
"""The rate is that of the last half hour of work."""
SILENT_AFTER_S = 900.0
"""A job on another machine whose lock has not been touched for so long is taken for interrupted;
far above any difference between clocks."""
NUM_SLOWEST = 5
NUM_ROWS = 10
NUM_NAMED = 3
_STYLES = {
    JobStatus.done: "green",
    JobStatus.running: "cyan",
    JobStatus.failed: "red",
    JobStatus.skipped: "yellow",
    JobStatus.queued: "",
}
_TOLD = ("slug", "status", "reason", "retryable", "attempt", "seconds")
"""Of each job in `status --json`."""
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
    ended = [one for one in states if one.status in (JobStatus.failed, JobStatus.skipped)]
    return [NotDone(one.slug, one.status.value, one.reason) for one in ended]


def as_json(states: Mapping[str, JobState]) -> dict[str, Any]:
    """Return what `status --json` prints."""
    summary = summarise(states.values())
    return {
        "total": summary.total,
        **{status.value: count for status, count in summary.counts.items()},
        "jobs_per_hour": summary.jobs_per_hour,
        "remaining_s": summary.remaining_s,
        "jobs": [{key: getattr(state, key) for key in _TOLD} for state in states.values()],
    }


def _job_folders(output_dir: Path) -> dict[str, JobPaths]:
    """Sub-folders by name; the names come from the disk, so none can lead elsewhere."""
    folders = (path for path in output_dir.iterdir() if not path.name.startswith("."))
    return {path.name: JobPaths(path) for path in folders if path.is_dir()}


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
    if state.writer.host == socket.gethostname():  # a number says who it is on one machine alone
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
    # Up to the last end and not up to now: a pause is no slower pace.
    recent = [moment for moment in times if moment > times[-1] - RATE_WINDOW_S]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0]) * 3600  # intervals, one fewer than ends


def kind_of(state: JobState) -> str:
    """A reason without what differs from user to user, so that equal ones count together."""
    handles = state.slug.split("-")
    reason = _WORD.sub(
        lambda word: "USER" if word[0].lower() in handles else word[0],
        state.reason or "no reason given",
    )
    return _NUMBER.sub("N", reason)


def build_status(output_dir: Path, states: Mapping[str, JobState]) -> RenderableType:
    """Return the counts, the rate, the quality, what runs, why jobs failed, what to do about it."""
    summary = summarise(states.values())
    parts: list[RenderableType] = [_headline(output_dir, summary), *_quality(output_dir, states)]
    running = [state for state in states.values() if state.status is JobStatus.running]
    parts += _table("Running", [(state.slug, _place(state)) for state in running])
    failed = [state for state in states.values() if state.status is JobStatus.failed]
    parts += _table("Failed", _by_reason(failed))
    parts += _cure(output_dir, failed)
    if summary.total > 1:
        slowest = [pair for pair in summary.slowest if pair[1] >= 1]
        parts += _table("Slowest", [(slug, rough_duration(took)) for slug, took in slowest])
    return Group(*parts)


def _by_reason(failed: Sequence[JobState]) -> Sequence[tuple[str, ...]]:
    """Return one row per kind of reason, most frequent first: how many, whose, the first reason."""
    kinds: dict[str, list[JobState]] = {}
    for state in failed:
        kinds.setdefault(kind_of(state), []).append(state)
    rows = []
    for group in sorted(kinds.values(), key=lambda group: -len(group)):
        names = ", ".join(state.slug for state in group[:NUM_NAMED])
        more = f" and {len(group) - NUM_NAMED} more" if len(group) > NUM_NAMED else ""
        rows.append((str(len(group)), names + more, group[0].reason or "no reason given"))
    return rows


def _cure(output_dir: Path, failed: Sequence[JobState]) -> list[Text]:
    """Say how many of the failed jobs a rerun may cure, and by which command."""
    num = sum(state.retryable for state in failed)
    if not num:
        return []
    command = read_command(output_dir)
    how = f"{command} only_curable=true" if command else "the same command with only_curable=true"
    return [Text(f"\n{num} of them may go well when tried again: {how}")]


def _quality(output_dir: Path, states: Mapping[str, JobState]) -> list[Text]:
    """Say how well the finished models predict posts that were held out, and name the extremes."""
    done = [slug for slug, state in states.items() if state.status is JobStatus.done]
    found = {slug: pair for slug in done if (pair := _bits_of(output_dir / slug)) is not None}
    if not found:
        return []
    order = sorted(found, key=lambda slug: found[slug][0])
    tuned, base = (statistics.median(pair[index] for pair in found.values()) for index in (0, 1))
    line = f"held-out posts: {tuned:.3f} bits per byte, with the base {base:.3f}"
    if len(order) > 1:
        ends = (f"{word} {slug} {found[slug][0]:.3f}" for word, slug in
                (("best", order[0]), ("worst", order[-1])))  # fmt: skip
        line = f"{line} (medians of {len(order)}); {', '.join(ends)}"
    return [Text(line)]


@lru_cache(maxsize=100_000)
def _bits_of(folder: Path) -> tuple[float, float] | None:
    """Return a model's bits per byte and those of its base; --watch reads each result once."""
    try:
        held_out = (read_result(JobPaths(folder)) or {})["eval"]
        return float(held_out["bits_per_byte"]), float(held_out["base_bits_per_byte"])
    except (ValueError, KeyError, TypeError):
        return None


def _headline(output_dir: Path, summary: BatchSummary) -> Text:
    noun = "job" if summary.total == 1 else "jobs"
    line = Text(f"{output_dir}: {summary.total} {noun}")
    for status, style in _STYLES.items():
        if summary.counts[status]:
            line.append(", ")
            line.append(f"{summary.counts[status]} {status}", style)
    if summary.jobs_per_hour is not None and summary.remaining_s is not None:
        line.append(f"; {summary.jobs_per_hour:,.0f} jobs/hour, ")
        line.append(f"about {rough_duration(summary.remaining_s)} left")
    return line


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> list[RenderableType]:
    """A table of the first rows, or nothing. Texts are no markup; `make_console` disarms them."""
    if not rows:
        return []
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for row in rows[:NUM_ROWS]:
        table.add_row(*(Text(" ".join(cell.split())) for cell in row))
    if len(rows) > NUM_ROWS:
        table.add_row(Text(f"and {len(rows) - NUM_ROWS} more"))
    return [Text(""), table]


def _place(state: JobState) -> str:
    host = f" on {state.writer.host}" if state.writer else ""
    return f"attempt {state.attempt}{host}"
