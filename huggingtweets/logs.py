"""Logging that knows the rank: the main process at INFO, the others at WARNING."""

import io
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from huggingtweets.errors import ConfigError, HuggingtweetsError, StoppedError

if TYPE_CHECKING:
    from rich.console import Console

JOB_FAILED = 1
USAGE_ERROR = 2
STOPPED = 75
"""Exit codes: some job failed; usage or configuration; stopped on request, everything saved."""

SECRET_KEY = re.compile(r"(^|[._])(token|secret|password|api_?key)$", re.IGNORECASE)
"""Names of settings that would hold a secret."""
# A token of the Hub; a key of W&B, which is 40 hexadecimal digits; what HTTP headers hold.
_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|\b[0-9a-f]{40}\b|(?i:bearer)\s+\S+")


def rank() -> int:
    """Rank of this process as its launcher set it; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def exit_code_of(err: HuggingtweetsError) -> int:
    """Say once, on the main process, what went wrong; return the exit code that stands for it."""
    if rank() == 0:
        sys.stderr.write(f"huggingtweets: {redact(shown(str(err)))}\n")
    match err:
        case ConfigError():
            return USAGE_ERROR
        case StoppedError():
            return STOPPED
    return JOB_FAILED


def shown(text: str) -> str:
    """Return text that a terminal takes for text: no escapes, controls, or turned direction.

    What is left out stands there by its number, so that nothing disguises itself.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(char if _is_shown(char) else ascii(char)[1:-1] for char in text)


def _is_shown(char: str) -> bool:
    if char in "\n\t\u200c\u200d":  # joiners: Persian and emoji need them
        return True
    return (char.isascii() and char.isprintable()) or (
        not char.isascii() and unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def say(*lines: str) -> None:
    """Print lines for people; names, paths and texts from outside as `shown` has them."""
    _write_any_text()
    print(shown("\n".join(lines)), flush=True)  # noqa: T201 - the one place


def _write_any_text() -> None:
    """Have standard output write characters that its encoding lacks, such as Latin-1, by number."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def make_console(**options: Any) -> "Console":
    """Return rich's console, which prints as `shown` does: it passes escapes on by itself."""
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
    from rich.segment import Segment

    class Hook(RenderHook):
        def process_renderables(
            self, renderables: list[ConsoleRenderable]
        ) -> list[ConsoleRenderable]:
            return [Shown(view) for view in renderables]

    class Shown:
        def __init__(self, view: ConsoleRenderable) -> None:
            self.view = view

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
            for segment in console.render(self.view, options):
                yield segment if segment.control else segment._replace(text=shown(segment.text))

    _write_any_text()
    console = Console(**options)
    console.push_render_hook(Hook())
    return console


def redact(text: str) -> str:
    """Blank out what looks like a Hub token, a W&B key or a bearer token."""
    return _SECRET.sub("[redacted]", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.msg, str):  # a line break in a name must not forge a line of ours
            record.msg, record.args = record.getMessage().replace("\n", " "), None
        return redact(shown(super().format(record)))


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time.

    While a progress bar is shown, rich stands in for it and puts each line above the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def setup_logging() -> None:
    """Send the package's log to stderr, one event per line; of several ranks, each with its own."""
    handler = _StderrHandler()
    place = f"rank={rank()} " if world_size() > 1 else ""
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)s {place}%(message)s", "%H:%M:%S"))
    logger = logging.getLogger("huggingtweets")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    logger.propagate = False  # Hydra and notebooks have handlers of their own: each line once
