"""What can be had again: made whole or not at all, looked at before use, thrown away when wrong.

A cache that cannot be written costs the time to make a thing again in each process, and no more.
"""

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from huggingtweets.storage.files import fsync_dir, read_json, remove, write_json
from huggingtweets.storage.paths import cache_dir
from huggingtweets.storage.seals import find_fault, take_seals

logger = logging.getLogger(__name__)

SEAL = ".seal.json"

_lock = threading.Lock()
_own: dict[str, Path] = {}
"""Folders of this process alone, where the cache cannot be written."""


def cached_folder(name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of the cache, whose every file is as it was made; made now if need be.

    Any number of processes may ask at once: the first to be done wins, all get the same bytes.

    Args:
        name: with a digest of all that its content depends on.
        make: writes the files into the empty folder that it is given.

    Raises:
        Exception: what `make` raises.
    """
    path = cache_dir() / name
    with _lock:
        if name in _own and _fault_of_folder(_own[name]) is None:
            return _own[name]
        fault = _fault_of_folder(path)
        if fault is None:
            return path
        if path.exists() or path.is_symlink():
            logger.warning("cache: %s; it is made again", fault)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Tried, not asked: quotas and network disks refuse what the permissions allow.
            with tempfile.TemporaryDirectory(prefix=".probe.", dir=path.parent):
                pass
        except OSError as err:
            logger.warning(
                "cache: %s cannot be written (%s); what belongs there is made again by each "
                "process; set HUGGINGTWEETS_CACHE to a folder that can be written",
                path.parent,
                err.strerror or err,
            )
            own = Path(tempfile.mkdtemp(prefix="huggingtweets-"))
            atexit.register(shutil.rmtree, own, ignore_errors=True)
            path = _own[name] = own / path.name
        _make_folder(path, make)
        return path


def _make_folder(folder: Path, make: Callable[[Path], object]) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(draft)
        seals = take_seals(draft)
        # Contents and names reach the disk before the seal says that they are whole.
        for path in draft.rglob("*"):
            if path.is_dir():
                fsync_dir(path)
        for name in seals:
            with (draft / name).open("rb+") as file:
                os.fsync(file.fileno())
        write_json(draft / SEAL, seals)
        draft.chmod(0o755)  # mkdtemp makes it for the owner alone
        _take_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _take_place(draft: Path, folder: Path) -> None:
    """Rename a finished draft, unless somebody else's, which is whole, is there already."""
    try:
        draft.rename(folder)
    except OSError:
        if _fault_of_folder(folder) is None:
            return
        doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)) / "wrong"
        with suppress(FileNotFoundError):  # somebody else has thrown it away
            folder.rename(doomed)
        with suppress(OSError):
            remove(doomed.parent)
        try:
            draft.rename(folder)
        except OSError:
            if _fault_of_folder(folder) is not None:
                raise
    fsync_dir(folder.parent)


def _fault_of_folder(folder: Path) -> str | None:
    """Say why a cached folder cannot be used; None: every file is as it was made."""
    try:
        seals = read_json(folder / SEAL)
    except (OSError, ValueError):
        return f"{folder} is damaged or unfinished"
    return find_fault(folder, seals)
