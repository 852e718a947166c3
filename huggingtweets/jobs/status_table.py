"""How a batch stands, for people at a terminal."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from huggingtweets.jobs.ledger import JobState, JobStatus
from huggingtweets.jobs.status import BatchSummary, summarise

NUM_ROWS = 10
_STYLES = {
    JobStatus.done: "green",
    JobStatus.running: "cyan",
    JobStatus.failed: "red",
    JobStatus.skipped: "yellow",
    JobStatus.queued: "",
}


def build_status(output_dir: Path, states: Mapping[str, JobState]) -> RenderableType:
    """Return the counts, the rate, what runs, why jobs failed, and which took longest."""
    summary = summarise(states.values())
    parts: list[RenderableType] = [_headline(output_dir, summary)]
    running = [state for state in states.values() if state.status is JobStatus.running]
    parts += _table("Running", [(state.slug, _place(state)) for state in running])
    parts += _table("Failed, by reason", [(str(n), reason) for reason, n in summary.failures])
    failed = [state for state in states.values() if state.status is JobStatus.failed]
    parts += _table("Failed", [(state.slug, state.reason) for state in failed])
    parts += _table(
        "Slowest", [(slug, _duration(seconds)) for slug, seconds in summary.slowest if seconds >= 1]
    )
    return Group(*parts)


def _headline(output_dir: Path, summary: BatchSummary) -> Text:
    noun = "job" if summary.total == 1 else "jobs"
    line = Text(f"{_plain(str(output_dir))}: {summary.total} {noun}")
    for status, style in _STYLES.items():
        if summary.counts[status]:
            line.append(", ")
            line.append(f"{summary.counts[status]} {status}", style)
    if summary.jobs_per_hour is not None and summary.remaining_s is not None:
        line.append(f"; {summary.jobs_per_hour:,.0f} jobs/hour, ")
        line.append(f"about {_duration(summary.remaining_s)} left")
    return line


def _table(title: str, rows: list[tuple[str, str]]) -> list[RenderableType]:
    """A table of the first rows, or nothing. Texts are shown as they are, never as markup."""
    if not rows:
        return []
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for row in rows[:NUM_ROWS]:
        table.add_row(*(Text(_plain(cell)) for cell in row))
    if len(rows) > NUM_ROWS:
        table.add_row(Text(f"and {len(rows) - NUM_ROWS} more"), Text(""))
    return [Text(""), table]


def _place(state: JobState) -> str:
    host = f" on {state.writer.host}" if state.writer else ""
    return f"attempt {state.attempt}{host}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _plain(text: str) -> str:
    """A text that cannot steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
