"""Crash-safe checkpoints: whole or not there, every byte checked before it is used.

A checkpoint is a folder `step-00000123` of safetensors files and JSON, written under a temporary
name, flushed, described by `manifest.json` and renamed. No pickle. `saver.py` calls this from a
thread; nothing here talks to other processes but through files.
"""

import errno
import json
import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from huggingtweets.causes import cause_of
from huggingtweets.errors import CheckpointError
from huggingtweets.storage.files import (
    check_fences,
    clear_for_folder,
    flatten,
    fsync_dir,
    write_bytes,
)
from huggingtweets.training.checkpoints.checkpoint_files import (
    FORMAT,
    MANIFEST,
    DamagedError,
    Files,
    Values,
    check_files,
    file_name,
    read_manifest,
    sealed,
    step_name,
    write_json,
    write_tensors,
)

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8,})")
_SPARE_BYTES = 64 << 20
"""Left free beside a checkpoint, for metrics and results."""


@dataclass(frozen=True)
class CheckpointState:
    """What one process puts into a checkpoint."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """One file each: model, exp_avg, exp_avg_sq and best; on any device."""
    values: Values
    """Plain JSON values."""


@dataclass(frozen=True)
class Writer:
    """Who writes checkpoints, and of what."""

    identity: Values
    """All that decides the result, as plain JSON values: another identity is another job."""
    generation: int = 1
    """Of the job lock: parts of an older start never mix with ours."""
    world_size: int = 1
    part: int = 0
    """Of `num_parts` processes that each write their share; part 0 completes the checkpoint."""
    num_parts: int = 1


class Checkpoint:
    """A checkpoint on disk whose every byte was checked."""

    def __init__(self, folder: Path, manifest: Values) -> None:
        """Use `latest_checkpoint` or `open_checkpoint`."""
        self.folder = folder
        self.step: int = manifest["step"]
        self.world_size: int = manifest["world_size"]
        self.num_parts: int = manifest["num_parts"]
        self.identity: Values = manifest["identity"]
        self.files: Files = manifest["files"]

    def path(self, name: str, part: int = 0) -> Path:
        """Return the safetensors file of one group of tensors."""
        return self.folder / file_name(f"{name}.safetensors", part, self.num_parts)

    def tensors(self, name: str, part: int = 0) -> dict[str, Tensor]:
        """Load the tensors of one file to the CPU."""
        return load_file(self.path(name, part))

    def values(self, part: int = 0) -> Any:
        """Load the plain values."""
        path = self.folder / file_name("values.json", part, self.num_parts)
        return json.loads(path.read_text(encoding="ascii"))


def save_checkpoint(root: Path, state: CheckpointState, writer: Writer) -> None:
    """Write one checkpoint, or this process's part of it; on return of part 0 it is durable.

    Every part has to call it for the same step. The job folder must exist.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written or is gone, or a part did
            not come. What was there before is untouched.
    """
    temporary = root / f".{step_name(state.step)}.{writer.generation:08d}.tmp"
    try:
        with _clear_words(root):
            root.mkdir(exist_ok=True)
            _make_room(root, num_bytes(state))
            temporary.mkdir(exist_ok=True)
            files = _write_part(temporary, state, writer)
            if writer.part:
                write_json(temporary / _part_name(writer.part), files)
                return
            for part in range(1, writer.num_parts):
                files |= _await_part(temporary / _part_name(part))
            write_bytes(temporary / MANIFEST, _manifest(state, writer, files))
            _rename(temporary, root / step_name(state.step))
    except BaseException:
        if not writer.part:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def latest_checkpoint(root: Path, identity: Values) -> Checkpoint | None:
    """Find the newest checkpoint that is whole; for the holder of the job lock, before it saves.

    Damaged ones are renamed to `.damaged-...` and never deleted; half-written ones are removed.

    Raises:
        CheckpointError: it belongs to another job (the message says in what), or cannot be read.
    """
    with _clear_words(root):
        clear_for_folder(root)
        for folder in _folders(root):
            try:
                checkpoint = open_checkpoint(folder)
                check_files(folder, checkpoint.files)
            except DamagedError as err:
                _quarantine(folder, str(err))
                continue
            _check_identity(checkpoint, identity)
            _remove_leftovers(root)
            return checkpoint
        _remove_leftovers(root)
    return None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint that the main process has found and checked; for the other ranks."""
    return Checkpoint(folder, read_manifest(folder))


def _check_identity(checkpoint: Checkpoint, identity: Values) -> None:
    """Refuse a checkpoint of another job.

    Raises:
        CheckpointError: says which values differ.
    """
    wanted = json.loads(json.dumps(identity))
    differences = list(_differences(checkpoint.identity, wanted))
    if differences:
        raise CheckpointError(
            f"{checkpoint.folder}: got a checkpoint of another training "
            f"({'; '.join(differences[:5])}); expected the same settings; restore them or set "
            "output_dir to another folder"
        )


def prune(root: Path, *, keep: int) -> None:
    """Remove all but the newest checkpoints, of those that are not quarantined."""
    for folder in _folders(root)[keep:]:
        doomed = folder.with_name(f".{folder.name}.old.tmp")
        with suppress(OSError):
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _write_part(folder: Path, state: CheckpointState, writer: Writer) -> Files:
    files: Files = {}
    for group, tensors in state.tensors.items():
        name = file_name(f"{group}.safetensors", writer.part, writer.num_parts)
        files[name] = write_tensors(folder / name, tensors)
    name = file_name("values.json", writer.part, writer.num_parts)
    files[name] = write_json(folder / name, state.values)
    return files


def _await_part(path: Path, timeout_s: float = 600.0) -> Files:
    """Wait for what another process writes; by files, so that threads need no collectives."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"{path}: got no part of another process within {timeout_s:.0f} seconds; expected "
                "all processes to save the same step; look at their logs"
            )
        time.sleep(0.02)
    files: Files = json.loads(path.read_text(encoding="ascii"))
    path.unlink()
    return files


def _manifest(state: CheckpointState, writer: Writer, files: Files) -> bytes:
    return sealed(
        {
            "format": FORMAT,
            "step": state.step,
            "generation": writer.generation,
            "world_size": writer.world_size,
            "num_parts": writer.num_parts,
            "torch": torch.__version__,
            "identity": writer.identity,
            "files": files,
        }
    )


def _rename(temporary: Path, folder: Path) -> None:
    """Publish a finished checkpoint, in place of one of the same step if there is one."""
    fsync_dir(temporary)
    replaced = folder.with_name(f".{folder.name}.replaced.tmp")
    check_fences(folder)
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    fsync_dir(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _quarantine(folder: Path, fault: str) -> None:
    number = 1
    while (target := folder.with_name(f".damaged-{folder.name}-{number}")).exists():
        number += 1
    check_fences(target)
    folder.rename(target)
    logger.warning(
        "%s: got a damaged checkpoint: %s; moved it to %s and fall back to the one before",
        folder,
        fault,
        target.name,
    )


def _folders(root: Path) -> list[Path]:
    """List complete checkpoints, newest first."""
    try:
        names = [path.name for path in root.iterdir()]
    except FileNotFoundError:
        return []
    steps = sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))
    return [root / step_name(step) for step in reversed(steps)]


def _remove_leftovers(root: Path) -> None:
    """Remove what killed writers left: nobody else writes here, we hold the lock."""
    for path in root.glob(".step-*.tmp"):
        check_fences(path)
        shutil.rmtree(path, ignore_errors=True)


def _part_name(part: int) -> str:
    return f"part-{part:05d}.json"


def num_bytes(state: CheckpointState) -> int:
    """Return what its tensors take, on disk as in memory."""
    return sum(t.nbytes for group in state.tensors.values() for t in group.values())


def _make_room(root: Path, size: int) -> None:
    """Make sure that a checkpoint fits, at the price of the older ones but not of the newest.

    Raises:
        OSError: it does not fit.
    """
    needed = size + _SPARE_BYTES
    if shutil.disk_usage(root).free < needed:
        prune(root, keep=1)
    if shutil.disk_usage(root).free < needed:
        raise OSError(errno.ENOSPC, f"less than {needed / 2**20:.0f} MiB left on the disk")


@contextmanager
def _clear_words(root: Path) -> Iterator[None]:
    """Turn what the system says about a folder into a sentence for the user."""
    try:
        yield
    except OSError as err:
        match err.errno:
            case errno.ENOSPC | errno.EDQUOT:
                todo = "free some space"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                todo = "give it write permission or set output_dir to another place"
            case errno.ENOENT:
                todo = "leave the folder of a running job where it is"
            case _:
                todo = "look after the disk"
        failure = CheckpointError(
            f"{root}: got {err.strerror or err}; expected a folder to keep checkpoints in; {todo} "
            f"and run the same command again{_what_is_left(root)}"
        )
        failure.cause, failure.retryable = cause_of(err), True
        raise failure from err


def _what_is_left(root: Path) -> str:
    with suppress(OSError):
        for newest in _folders(root):
            return f" ({newest.name} is untouched)"
    return ""


def _differences(ours: Values, theirs: Values) -> Iterator[str]:
    """Describe where two trees of plain values differ."""
    before, now = flatten(ours), flatten(theirs)
    for key in sorted(before.keys() | now.keys()):
        one, other = before.get(key), now.get(key)
        if one != other and repr(one) != repr(other):  # as text NaN equals itself
            yield f"{key}: {one!r} in the checkpoint, {other!r} now"
