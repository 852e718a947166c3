"""Whole files or nothing: written under a temporary name, flushed, then renamed.

A folder may have a fence (`lock.py` gives job folders theirs), asked right before every rename
in it: a process that was frozen and taken for dead changes nothing when it wakes.
"""

import errno
import gzip
import json
import logging
import os
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

logger = logging.getLogger(__name__)

MAX_READ_BYTES = 4 << 30
"""Of a file that is read whole; the posts of a hundred people have less."""

DRAFTS = f".*.{'[0-9a-f]' * 8}.tmp"
"""The names that drafts have, and only they: whoever writes here may have a `.notes.tmp`."""

_fences: dict[Path, Callable[[], None]] = {}


def add_fence(folder: Path, fence: Callable[[], None]) -> None:
    """From now on call `fence` before whatever this process renames or removes in a folder.

    Args:
        folder: holds at any depth in it.
        fence: raises when the folder is no longer this process's to write.
    """
    _fences[folder.absolute()] = fence


def remove_fence(folder: Path) -> None:
    """Forget a fence; harmless when there is none."""
    _fences.pop(folder.absolute(), None)


def check_fences(path: Path) -> None:
    """Raise what a fence around `path` raises."""
    for folder in path.absolute().parents:
        if fence := _fences.get(folder):
            fence()


def fsync_dir(path: Path) -> None:
    """Make renames inside a directory durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock_file(fd: int) -> None:
    """Wait for the others who lock the same file or folder; the lock goes when it is closed."""
    with suppress(OSError, ImportError):  # a file system, or a system, without locks
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield the name of a draft that takes the place of a file when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        check_fences(path)
        if not path.is_symlink():  # a link is replaced
            clear_for_file(path)
        draft.replace(path)
    finally:  # a link to the file that lies there already is not renamed, but stays
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    fsync_dir(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; a reader sees the old content or the new, never a part."""
    with replacing_file(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; lone surrogates become `?`."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON atomically (UTF-8, ASCII-escaped so that any string survives)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON Lines atomically; gzip'd, without a time stamp, when the name ends in `.gz`."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def append_row(path: Path, row: Any) -> None:
    """Add a line of JSON to a small file, which is written whole again."""
    before = path.read_bytes() if path.exists() else b""
    write_bytes(path, before + json.dumps(row).encode("ascii") + b"\n")


def read_plain(path: Path) -> bytes:
    """Read a file of ours whole; what lies there in its place is neither waited for nor swallowed.

    Raises:
        OSError: it is not a plain file, larger than anything of ours, or cannot be read.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_READ_BYTES:
        raise OSError(errno.EINVAL, "is no plain file, or far too large", str(path))
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read a JSON file written by us.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON.
    """
    return _parsed(read_plain(path).decode("utf-8"))


def read_jsonl(path: Path) -> list[Any]:
    """Read JSON Lines, gzip'd or not, written by us; a last line cut short is dropped.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    data = read_plain(path)
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (zlib.error, EOFError, gzip.BadGzipFile) as err:
            raise ValueError(f"its compressed form is damaged: {err}") from None
    lines = data.decode("utf-8").split("\n")
    return [_parsed(line) for line in lines[:-1] if line]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested deeper than anything of ours") from None


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty draft folder that takes the place of `path` when the block ends well.

    Its files are flushed first, and nobody sees a half-written one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    draft.mkdir()
    try:
        yield draft
        for file_path in draft.rglob("*"):
            if file_path.is_file():
                file_path.chmod(0o644)  # safetensors makes its files for the owner alone
                with file_path.open("rb") as file:
                    os.fsync(file.fileno())
        fsync_dir(draft)
        check_fences(path)
        remove(path)
        draft.rename(path)
    except BaseException:
        with suppress(Exception):  # of a fence: then not even the draft is ours
            check_fences(draft)
            shutil.rmtree(draft, ignore_errors=True)
        raise
    fsync_dir(path.parent)


def remove_drafts(folder: Path, *, idle_s: float = 0.0) -> None:
    """Remove what killed writers left in a folder.

    Args:
        folder: where they wrote.
        idle_s: drafts touched within so many seconds may be another's and stay; 0: for the only
            writer of a folder, before it writes.
    """
    for draft in folder.glob(DRAFTS):
        check_fences(draft)
        with suppress(OSError):
            if not idle_s or time.time() - draft.lstat().st_mtime > idle_s:
                remove(draft)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link; nothing there is fine.

    Raises:
        OSError: it stays.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; what else lies in its place, as a pipe, is set aside."""
    clear_for_folder(path)
    path.mkdir(parents=True, exist_ok=True)


def clear_for_folder(path: Path) -> None:
    """Set aside what lies where a folder should: a file, a pipe, a link to nowhere."""
    if os.path.lexists(path) and not path.is_dir():
        set_aside(path, "is no folder, and should be one")


def clear_for_file(path: Path) -> None:
    """Set aside what lies where a file should: a folder."""
    if path.is_dir():
        set_aside(path, "is a folder, and should be a file")


def set_aside(path: Path, fault: str) -> None:
    """Take what is damaged out of the way under a hidden name, so that it can be made again.

    The last such file is kept for inspection; nothing of ours reads it.
    """
    target = path.with_name(f".damaged-{path.name}")
    check_fences(path)
    remove(target)
    path.rename(target)
    logger.warning("%s: %s; it is made again (the old one is %s)", path, fault, target.name)


def _draft_of(path: Path) -> Path:
    """Return a name that no other process writes to; one of `DRAFTS`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


class _WithoutAliases(yaml.SafeLoader):
    """Refuses aliases, which we do not write: a few lines of them hold millions of values."""

    def compose_node(self, parent: Any, index: int) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def read_flat_yaml(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file under dotted names; empty where it cannot be read."""
    try:
        value = _WithoutAliases(read_plain(path)).get_single_data()
        return flatten(value) if isinstance(value, Mapping) else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
