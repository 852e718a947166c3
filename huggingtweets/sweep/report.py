"""report.html of a sweep."""

from pathlib import Path

from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.summary import SweepSummary


def write_sweep_report(path: Path, sweep: Sweep, summary: SweepSummary) -> None:
    """Write the page."""
