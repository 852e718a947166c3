"""Sizes and checksums of a folder's files: taken when it is written, asked before it is used."""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Seals = dict[str, dict[str, Any]]
"""By name below the folder: `bytes`, `sha256`, `mtime_ns`."""


def take_seals(folder: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> Seals:
    """Describe the plain files of a folder.

    Args:
        folder: at any depth.
        is_wanted: called with a file's name below the folder.
    """
    seals: Seals = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and is_wanted(name):
            status = path.stat()
            seals[name] = {
                "bytes": status.st_size,
                "sha256": _digest(path),
                "mtime_ns": status.st_mtime_ns,
            }
    return seals


def find_fault(folder: Path, seals: object) -> str | None:
    """Say what is not as it was sealed; None: all is whole.

    A file of the same size and time is taken for the same; of any other time every byte is read,
    and the time set back if all are right, so that a copied or moved folder is read once.

    Args:
        folder: where the files are.
        seals: what `take_seals` returned, perhaps damaged since.
    """
    if not isinstance(seals, Mapping) or not seals:
        return "it is not said what files there should be"
    for name, seal in seals.items():
        path = folder / str(name)
        try:
            if not path.is_file():
                return f"{path} is gone"
            status = path.stat()
            if status.st_size != seal["bytes"]:
                return f"{path} has {status.st_size} bytes instead of {seal['bytes']}"
            if status.st_mtime_ns == seal.get("mtime_ns"):
                continue
            if _digest(path) != seal["sha256"]:
                return f"{path} is not as it was written"
            with suppress(OSError, TypeError, OverflowError):
                os.utime(path, ns=(status.st_atime_ns, seal["mtime_ns"]))
        except OSError as err:
            return f"{path} cannot be read ({err.strerror})"
        except (KeyError, TypeError, AttributeError, ValueError):
            return f"what is said of {path} is damaged"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
