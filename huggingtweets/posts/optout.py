"""The list of people who want no model of themselves. It holds hashes of handles, no names.

The hash keeps the list from being read at a glance; whoever guesses a handle can check it. The list
of the user's settings and the one we ship hold in any case; a further one can be named.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from huggingtweets.errors import ConfigError, OptedOutError
from huggingtweets.storage.files import lock_file, write_text
from huggingtweets.storage.paths import config_home, expanded, shipped

ENV_KEY = "HUGGINGTWEETS_OPTOUT"
SHIPPED = shipped("conf/optout.txt")
_HASH = re.compile(r"[0-9a-f]{64}")


def handle_hash(handle: str) -> str:
    """Return what stands for a canonical handle where no name may stand."""
    return hashlib.sha256(f"huggingtweets opt-out {handle}".encode()).hexdigest()


def optout_path(configured: str | None) -> Path:
    """Return where the list is: as configured, else by the environment, else the user's own."""
    named = configured or os.environ.get(ENV_KEY)
    return expanded(named) if named else own_list()


def own_list() -> Path:
    """Return the list in the user's settings, which every clone and every installation reads."""
    return config_home() / "optout.txt"


def check_opted_out(handles: Iterable[str], configured: str | None = None) -> None:
    """Refuse people who are on the list that was named, on the user's own, or on the shipped one.

    Args:
        handles: canonical.
        configured: the `optout_file` of the configuration.

    Raises:
        OptedOutError: somebody is on it.
        ConfigError: a list was named that cannot be read; then nobody passes.
    """
    lists = _lists(configured)
    for handle in handles:
        path = next((path for path in lists if handle_hash(handle) in lists[path]), None)
        if path is not None:
            raise OptedOutError(
                f"@{handle}: is on the list of people who want no model of themselves ({path}); "
                "expected somebody else; leave this person out, and `huggingtweets purge` what "
                "there already is"
            )


def all_optouts(configured: str | None = None) -> frozenset[str]:
    """Return the hashes of all lists that hold: the one that was named, the user's, the shipped.

    Raises:
        ConfigError: a list was named that cannot be read.
    """
    return frozenset().union(*_lists(configured).values())


def _lists(configured: str | None) -> dict[Path, frozenset[str]]:
    return {path: read_optouts(path) for path in (optout_path(configured), own_list(), SHIPPED)}


def read_optouts(path: Path) -> frozenset[str]:
    """Return the hashes of a list; one that nobody named may be missing.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        status = path.stat()
    except OSError as err:
        if isinstance(err, FileNotFoundError) and path in (SHIPPED, own_list()):
            return frozenset()
        raise _unreadable(path, err.strerror or "") from err
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int, size: int) -> frozenset[str]:
    """Read a list once as long as it stays the same."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise _unreadable(path, str(err)) from err
    words = [line.partition("#")[0].strip() for line in lines]
    for number, word in enumerate(words, start=1):
        if word and not _HASH.fullmatch(word):
            raise ConfigError(
                f"{path} line {number}: is no hash; expected 64 hexadecimal digits; "
                "use `huggingtweets optout HANDLE`, which adds one"
            )
    return frozenset(word for word in words if word)


def add_optout(handle: str, configured: str | None = None) -> Path:
    """Put a person on the list, once; return where it is.

    Raises:
        ConfigError: it cannot be read or written.
    """
    path = Path(os.path.realpath(optout_path(configured)))  # a linked list is for all who share it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _in_turn(path.parent):  # of two who add at the same time none is lost
            if path.exists() and handle_hash(handle) in read_optouts(path):
                return path
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            day = datetime.now(UTC).strftime("%Y-%m-%d")
            head = text if not text or text.endswith("\n") else text + "\n"
            write_text(path, f"{head}{handle_hash(handle)}  # {day}\n")
    except OSError as err:
        raise _unreadable(path, err.strerror or "") from err
    return path


@contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY)
    try:
        lock_file(fd)
        yield
    finally:
        os.close(fd)


def _unreadable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"optout_file: {path} cannot be read or written ({reason}); expected the list of people "
        f"who want no model; set optout_file= or {ENV_KEY} to it"
    )
