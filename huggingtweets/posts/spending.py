"""What is spent on posts: one count for all people, threads and processes of a batch."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from huggingtweets.errors import SourceError
from huggingtweets.storage.files import lock_file

_AMOUNT = re.compile(r"-?[0-9]{0,9}(?:\.[0-9]{0,6})?")


class Spending:
    """What was spent, or is about to be; in this process, or in a file that is shared.

    The file has a line per expense, negative for what is given back, and names nobody. It outlives
    the run: a limit holds for a batch however often that is started.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Begin with what the file says, if there is one."""
        self._path = path
        self._usd = 0.0
        self._lock = threading.Lock()

    @property
    def usd(self) -> float:
        """The sum."""
        seen: list[float] = []
        self.spend(0.0, seen.append)
        return seen[0]

    def share(self, path: Path | None) -> None:
        """Count in a file from now on; None: in this process alone."""
        self._path = path

    def spend(self, usd: float, allow: Callable[[float], None]) -> None:
        """Add an expense if `allow`, called with the sum so far, raises nothing.

        Nobody else spends in between.

        Raises:
            SourceError: the file cannot be read or written.
        """
        with self._lock:
            if self._path is None:
                allow(self._usd)
                self._usd += usd
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a+", encoding="ascii", errors="replace") as file:
                    lock_file(file.fileno())
                    file.seek(0)
                    allow(sum(_number(line, self._path) for line in file))
                    if usd:
                        file.write(f"\n{usd:.4f}\n")  # also ends a line that a crash has cut
                        file.flush()
                        os.fsync(file.fileno())
            except OSError as err:
                raise SourceError(
                    f"{self._path}: cannot be read or written ({err.strerror}); expected the count "
                    "of what this batch has spent; nothing is paid for without it"
                ) from err

    def give_back(self, usd: float) -> None:
        """Take off what was allowed and not spent."""
        if usd:
            self.spend(-usd, lambda before: None)


def _number(line: str, path: Path) -> float:
    """Return what a line says; a cut one counts as far as it goes.

    Raises:
        SourceError: it is neither: nobody knows what was spent, so nothing more is.
    """
    text = line.strip()
    if text in ("", "-", ".", "-."):  # cut by a crash
        return 0.0
    if not _AMOUNT.fullmatch(text):
        raise SourceError(
            f"{path}: got a line {text[:40]!a}; expected amounts in USD, one on a line; mend "
            "or remove the line by what the service has billed; nothing is paid for until then"
        )
    return float(text)
