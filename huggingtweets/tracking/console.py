"""Progress for the person at the terminal: a bar there, plain lines in a log file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from huggingtweets.logs import rank, shown

logger = logging.getLogger(__name__)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what is being waited for, beside a spinner, where standard error is a terminal."""
    if not sys.stderr.isatty() or rank():
        yield
        return
    with Console(stderr=True).status(escape(shown(text))):
        yield


class TrainingProgress:
    """Shows one job's training until it is closed. Only the main process makes one."""

    def __init__(self, slug: str, total_steps: int) -> None:
        """Show a bar where standard error is a terminal, else log one line per update."""
        self._slug = slug
        self._total_steps = total_steps
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(
                slug, total=total_steps, figures="waiting for the first step"
            )
            self._bar.start()

    def close(self) -> None:
        """Stop drawing, leaving the last state on the screen."""
        if self._bar:
            self._bar.stop()

    def update(self, step: int, figures: str) -> None:
        """Show the steps taken and figures such as `loss=3.21`."""
        if self._bar:
            self._bar.update(self._task, completed=step, figures=figures)
        else:
            logger.info("job=%s step=%d/%d %s", self._slug, step, self._total_steps, figures)
