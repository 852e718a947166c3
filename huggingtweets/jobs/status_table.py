"""How a batch stands, for people at a terminal."""

import statistics
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from huggingtweets.jobs.ledger import JobState, JobStatus, read_command
from huggingtweets.jobs.status import BatchSummary, kind_of, summarise
from huggingtweets.publishing.names import rough_duration
from huggingtweets.standing import read_result
from huggingtweets.storage.paths import JobPaths

NUM_ROWS = 10
NUM_NAMED = 3
_STYLES = {
    JobStatus.done: "green",
    JobStatus.running: "cyan",
    JobStatus.failed: "red",
    JobStatus.skipped: "yellow",
    JobStatus.queued: "",
}


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
    return [Text(f"\n{num} of them may go well when tried again: {_plain(how)}")]


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
        line = f"{line} (medians of {len(order)}); {', '.join(map(_plain, ends))}"
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
    line = Text(f"{_plain(str(output_dir))}: {summary.total} {noun}")
    for status, style in _STYLES.items():
        if summary.counts[status]:
            line.append(", ")
            line.append(f"{summary.counts[status]} {status}", style)
    if summary.jobs_per_hour is not None and summary.remaining_s is not None:
        line.append(f"; {summary.jobs_per_hour:,.0f} jobs/hour, ")
        line.append(f"about {rough_duration(summary.remaining_s)} left")
    return line


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> list[RenderableType]:
    """A table of the first rows, or nothing. Texts are shown as they are, never as markup."""
    if not rows:
        return []
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for row in rows[:NUM_ROWS]:
        table.add_row(*(Text(_plain(cell)) for cell in row))
    if len(rows) > NUM_ROWS:
        table.add_row(Text(f"and {len(rows) - NUM_ROWS} more"))
    return [Text(""), table]


def _place(state: JobState) -> str:
    host = f" on {state.writer.host}" if state.writer else ""
    return f"attempt {state.attempt}{host}"


def _plain(text: str) -> str:
    """A text that cannot steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
