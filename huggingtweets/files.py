"""Whole files or nothing: written under a temporary name, flushed, then renamed.

A folder may have a fence (`lock.py` gives job folders theirs), asked right before every rename
in it: a process that was frozen and taken for dead changes nothing when it wakes.
"""

import gzip
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _draft_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check_fences(path)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


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


def read_json(path: Path) -> Any:
    """Read a JSON file written by us.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[Any]:
    """Read JSON Lines, gzip'd or not, written by us; a last line cut short is dropped."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    lines = data.decode("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty draft folder that takes the place of `path` when the block ends well.

    Its files are flushed first, and nobody sees a half-written one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    draft.mkdir()
    yield draft
    for file_path in draft.rglob("*"):
        if file_path.is_file():
            file_path.chmod(0o644)  # safetensors makes its files for the owner alone
            with file_path.open("rb") as file:
                os.fsync(file.fileno())
    fsync_dir(draft)
    check_fences(path)
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    fsync_dir(path.parent)


def remove_drafts(folder: Path) -> None:
    """Remove what killed writers left in a folder; for its only writer, before it writes."""
    for draft in folder.glob(".*.tmp"):
        check_fences(draft)
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _draft_of(path: Path) -> Path:
    """Return a name that no other process writes to."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
