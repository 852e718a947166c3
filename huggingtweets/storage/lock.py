"""One writer per job folder: a second start is refused while the first lives, else it takes over.

Claims are files numbered by generation and made exclusively; numbers only grow, so that of two
takers one wins, and a writer that was given up as dead finds a higher number and stops. No clock
of another machine is ever compared with ours, and no file lock of the system is used: network file
systems have neither right. A holder that SLURM has started again is not waited for.

The dead of this machine are told at once, by process number, start and boot. Of another machine's
holder one lease of silence is waited for, once, whatever number of folders it has left behind. A
claim that nobody can read is nobody's: its writer died, or had no room, while making it.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self, get_type_hints

from huggingtweets.attempt import is_superseded, own_attempt
from huggingtweets.causes import Cause, cause_of
from huggingtweets.errors import JobBusyError, LaunchError, StorageError
from huggingtweets.process import boot, find_process, lives, machine, own_process, place
from huggingtweets.storage.files import (
    add_fence,
    make_folder,
    read_json,
    remove_fence,
    write_text,
)

logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""A holder on another machine that gives no sign of life for so long is dead."""
BEAT_S = 10.0
"""A sixth of the lease: some may be late on a busy network disk."""
_ORPHAN_WAIT_S = 30.0
"""A holder whose launcher died saves and leaves within this time."""
_WRITING_S = 2.0
"""A claim is made and written in one go; one that stays empty for longer has no writer."""
_MAX_DIGITS = 12
"""Of the number of a start."""

_silent: set[tuple[str, str, int, str]] = set()
"""Holders on other machines that this process has waited for without success."""


@dataclass(frozen=True)
class _Claim:
    host: str
    place: str
    """Boot and process-id namespace: only within one does a process id say anything."""
    pid: int
    started: str
    """Start time in ticks since boot; tells a process from a later one of the same id."""
    parent: int
    is_released: bool = False
    task: str = ""
    attempt: int = 0
    """Of SLURM, see `attempt.py`; no task: it was not started so."""
    machine: str = ""
    boot: str = ""
    """The same machine after a restart has none of its processes left."""

    @property
    def holder(self) -> tuple[str, str, int, str]:
        """Who made it, whatever the folder."""
        return self.host, self.place, self.pid, self.started


class JobLock:
    """The right to write into one job folder, until `release` or the end of the process."""

    def __init__(self, folder: Path, generation: int, claim: _Claim) -> None:
        """Use `acquire_lock`."""
        self.generation = generation
        self._path = _path(folder, generation)
        self._claim = claim
        self._ended = threading.Event()
        add_fence(folder.parent, self.check)
        self._thread = threading.Thread(target=self._beat, name="job-lock", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Hold on."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release."""
        self.release()

    def check(self) -> None:
        """Make sure that nobody has taken over; what `files.py` writes into the folder asks first.

        Raises:
            LaunchError: this process was taken to be dead by another one or by SLURM, or the folder
                is gone.
        """
        newest = _newest(self._path.parent)
        if newest == self.generation and not is_superseded():
            return
        got = "an attempt that SLURM has given up as dead; expected the newest one"
        if not newest:
            got = "a job folder that was deleted, or its .lock; expected it to stay during the job"
        elif newest != self.generation:
            got = f"a job folder that belongs to a later start (generation {newest}); expected "
            got += f"generation {self.generation}, but this process was taken to be dead"
        raise LaunchError(f"{self._path.parents[1]}: got {got}; this process ends without writing")

    def release(self) -> None:
        """Give the folder up; harmless when it was taken over or is gone, or its disk fails.

        A claim that cannot be given up lapses with this process.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        remove_fence(self._path.parents[1])
        # LaunchError: a job around this one has lost its folder, and says so itself.
        with suppress(OSError, LaunchError):
            if _newest(self._path.parent) == self.generation:
                write_text(self._path, _as_text(replace(self._claim, is_released=True)))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):
                if _newest(self._path.parent) > self.generation or is_superseded():
                    return  # this process was frozen and given up: the folder is another's
                os.utime(self._path)


def acquire_lock(job_root: Path, *, lease_s: float = LEASE_S) -> JobLock:
    """Claim a job folder, which is made if need be; for the main process of a job only.

    Waits up to `lease_s` where the last holder was on another machine and did not release.

    Raises:
        JobBusyError: another process holds it and lives.
        StorageError: the folder cannot be written.
    """
    folder = job_root / ".lock"
    try:
        make_folder(folder)
        while True:
            generation = _newest(folder)
            if generation:
                _wait_until_free(folder, generation, lease_s)
            lock = _claim_next(folder, generation + 1)
            if lock is not None:
                return lock
    except OSError as err:
        todo = "set output_dir to another place or give it write permission"
        if cause_of(err) is Cause.room:
            todo = "make room, then run the same command again"
        raise StorageError(
            f"{job_root}: got {err.strerror}; expected a folder that can be written; {todo}"
        ) from err


def is_left(job_root: Path) -> bool:
    """Whether nobody holds a job folder, as far as can be told at once.

    False for a holder on another machine that may have died: `acquire_lock` finds that out.
    """
    folder = job_root / ".lock"
    generation = _newest(folder)
    if not generation:
        return True
    claim = _read(_path(folder, generation))
    if claim is None:
        return _is_abandoned(folder, _path(folder, generation))
    return claim.is_released or _is_dead(claim)


def _claim_next(folder: Path, generation: int) -> JobLock | None:
    """Make the claim file; None if somebody else was faster."""
    claim = _own_claim()
    path = _path(folder, generation)
    try:
        with path.open("x", encoding="ascii") as file:
            try:
                file.write(_as_text(claim))
                file.flush()  # so that a full disk is told here, not when it is closed
            except OSError:
                path.unlink(missing_ok=True)  # no room for its content
                raise
    except FileExistsError:
        return None
    if _newest(folder) != generation:
        # We slept so long that the number had been used and cleared away.
        path.unlink(missing_ok=True)
        return None
    for name in os.listdir(folder):  # noqa: PTH208 - as in `_newest`
        if name.isdecimal() and int(name) < generation:
            with suppress(OSError):
                (folder / name).unlink()
    return JobLock(folder, generation, claim)


def _wait_until_free(folder: Path, generation: int, lease_s: float) -> None:
    """Return when the holder is dead or has released.

    Raises:
        JobBusyError: it lives.
    """
    path = _path(folder, generation)
    first_sign = _sign(path)
    started, is_told = time.monotonic(), False
    while True:
        claim = _read(path)
        waited_s = time.monotonic() - started
        if _newest(folder) != generation:
            return
        if claim is None:
            if waited_s >= min(lease_s, _WRITING_S) or _is_abandoned(folder, path):
                logger.warning("%s: got a claim that nobody can read; it is taken over", path)
                return
            time.sleep(0.05)
            continue
        if claim.is_released or _is_earlier_attempt(claim) or _is_dead(claim):
            return
        if claim.place == place():
            process = find_process(claim.pid)
            is_leaving = process is not None and process.parent not in (0, claim.parent)
            if not is_leaving or waited_s > _ORPHAN_WAIT_S:
                raise _busy(folder, claim)
        elif _sign(path) != first_sign:
            raise _busy(folder, claim)
        elif waited_s >= lease_s:
            _silent.add(claim.holder)
            return
        if not is_told:
            logger.warning(
                "%s: got a job that did not end by itself; waiting up to %.0f seconds for a sign "
                "of life of its process",
                folder.parent,
                max(lease_s, _ORPHAN_WAIT_S),
            )
            is_told = True
        time.sleep(min(0.2, lease_s / 10))


def _is_earlier_attempt(claim: _Claim) -> bool:
    """Whether SLURM has given the holder up and started this process in its place."""
    own = own_attempt()
    return own is not None and claim.task == own.task and claim.attempt < own.number


def _is_dead(claim: _Claim) -> bool:
    """Whether a holder is known to be gone, without any waiting."""
    if claim.place == place():
        return not lives(claim.pid, claim.started)
    if claim.machine == machine() and claim.boot and boot() and claim.boot != boot():
        return True
    return claim.holder in _silent


def _is_abandoned(folder: Path, path: Path) -> bool:
    """Whether a claim without readable content is too old to be being written just now.

    Its time stamp is held against that of a file made beside it: both are of the same clock.
    """
    probe = folder / f".clock-{secrets.token_hex(4)}"
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > _WRITING_S
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _busy(folder: Path, claim: _Claim) -> JobBusyError:
    return JobBusyError(
        f"{folder.parent}: got a second start of this job; expected one at a time, and process "
        f"{claim.pid} on {claim.host} is at work on it; wait for it or stop it"
    )


def _newest(folder: Path) -> int:
    """Highest generation there is, 0 without any."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - one call, called before every write
    except (FileNotFoundError, NotADirectoryError):
        return 0
    # Longer ones are nobody's of ours, and could not be followed by a higher one.
    numbers = (int(name) for name in names if name.isdecimal() and len(name) <= _MAX_DIGITS)
    return max(numbers, default=0)


def _path(folder: Path, generation: int) -> Path:
    return folder / f"{generation:08d}"


def _read(path: Path) -> _Claim | None:
    """Read a claim; None where there is none that makes sense."""
    try:
        claim = _Claim(**read_json(path))
        kinds = get_type_hints(_Claim)
        is_sound = all(type(getattr(claim, name)) is kind for name, kind in kinds.items())
        return claim if is_sound else None
    except (OSError, ValueError, TypeError):
        return None


def _as_text(claim: _Claim) -> str:
    return json.dumps(asdict(claim))


def _sign(path: Path) -> tuple[int, bytes]:
    """Anything that changes while the holder lives; opened, for network file systems cache."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns, file.read()
    except (FileNotFoundError, IsADirectoryError):
        return 0, b""


def _own_claim() -> _Claim:
    me, own = own_process(), own_attempt()
    return _Claim(
        socket.gethostname(),
        place(),
        me.pid,
        me.started,
        me.parent,
        task=own.task if own else "",
        attempt=own.number if own else 0,
        machine=machine(),
        boot=boot(),
    )
