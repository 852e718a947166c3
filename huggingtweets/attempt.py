"""One start of a task that SLURM may stop and start again, and what it owes to its batch script.

The script (slurm/attempt.sh) gives every attempt a number and a mark: the beginning of the paths of
a few small files. Launchers hide exit codes, so the script reads from `MARK.exit-N` how attempt N
ended and from `MARK.progress-N` whether it got anywhere. `MARK.attempt` holds the newest number: an
attempt that lived on when its node was given up as dead finds a higher one there, and ends.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingtweets.logs import rank

POLL_S = 5.0
"""How often an attempt looks whether it still is the newest."""


@dataclass(frozen=True)
class Attempt:
    """The attempt that this process is part of."""

    mark: Path
    number: int

    @property
    def task(self) -> str:
        """What all attempts of one task share, and no other task on this file system has."""
        return str(self.mark)

    def is_superseded(self) -> bool:
        """Whether a later attempt has begun, or has brought the task to its end.

        The script removes its files then. What cannot be read for another reason says nothing.
        """
        try:
            return int(self.path("attempt").read_text(encoding="ascii")) > self.number
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            return False

    def path(self, what: str) -> Path:
        """Return one of the small files."""
        return self.mark.with_name(f"{self.mark.name}.{what}")


def own_attempt() -> Attempt | None:
    """Return the attempt this process is part of; None where no batch script started it."""
    mark, number = os.environ.get("HUGGINGTWEETS_MARK"), os.environ.get("HUGGINGTWEETS_ATTEMPT", "")
    return Attempt(Path(mark).absolute(), int(number)) if mark and number.isdecimal() else None


def is_superseded() -> bool:
    """Whether a later attempt at the same task has begun."""
    attempt = own_attempt()
    return attempt is not None and attempt.is_superseded()


def tell_progress() -> None:
    """Leave word for the batch script, if any: a job ended or a checkpoint was written."""
    attempt = own_attempt()
    if attempt is not None:
        with suppress(OSError):
            attempt.path(f"progress-{attempt.number}").touch()


def tell_exit(code: int) -> int:
    """Leave word for the batch script how this attempt ended, last of all; return the code."""
    attempt = own_attempt()
    if attempt is not None and rank() == 0 and not attempt.is_superseded():
        with suppress(OSError):
            attempt.path(f"exit-{attempt.number}").write_text(f"{code}\n", encoding="ascii")
    return code


def watch(when_superseded: Callable[[str], None]) -> None:
    """Call back, from a thread, once a later attempt has begun; with the reason."""
    attempt = own_attempt()
    if attempt is None:
        return

    def look() -> None:
        while not attempt.is_superseded():
            wait.wait(POLL_S)
        when_superseded("a later attempt at the same task")

    wait = threading.Event()
    threading.Thread(target=look, name="attempt", daemon=True).start()
