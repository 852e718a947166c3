"""What became of each job of a batch: one line per change, one file per writer, nothing rewritten.

The ledger is for people and for planning the next run. Whether a job is done is told by its
result.json alone, so lines are not flushed to the platter one by one.
"""

import heapq
import json
import logging
import os
import re
import shlex
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from huggingtweets.errors import LaunchError
from huggingtweets.handles import RESERVED
from huggingtweets.logs import redact, shown
from huggingtweets.process import own_process
from huggingtweets.storage.files import (
    clear_for_file,
    make_folder,
    read_plain,
    remove_drafts,
    write_text,
)

logger = logging.getLogger(__name__)

LEDGER_DIR = RESERVED
"""No job has this name."""
DRAFT_IDLE_S = 60.0
"""A small file is written within a fraction of a second."""
_COMMAND = "command.txt"
_NOT_KEPT = ("shard=", "job_index=", "only_curable=", "retry_failed=")


class JobStatus(StrEnum):
    """Where a job stands."""

    queued = "queued"
    running = "running"
    done = "done"
    failed = "failed"
    skipped = "skipped"
    """Not trained, and rightly so: somebody in it wants no model."""


_STATUSES = frozenset(JobStatus)


@dataclass(frozen=True)
class Writer:
    """The process that wrote a line."""

    host: str
    pid: int
    started: str
    """Start time in ticks since boot: tells it from a later process of the same id."""


@dataclass(frozen=True)
class JobState:
    """The last that the ledger says about a job."""

    slug: str
    status: JobStatus
    reason: str = ""
    retryable: bool = False
    attempt: int = 0
    changed_at: float = 0.0
    """Seconds since the epoch, by the writer's clock."""
    seconds: float | None = None
    """From running to its end; None before, or where either line is lost."""
    writer: Writer | None = None
    crashes: int = 0
    """How often in a row it was begun from the same step and no word came of its end."""
    trial: str = ""
    """What it was tried with when it failed; empty: not told."""


class Ledger:
    """One file, open for appending; a context manager. Threads may share it, processes may not."""

    def __init__(self, path: Path) -> None:
        """Open the file, and end a line that a crash cut short.

        Raises:
            LaunchError: it cannot be written.
        """
        self._writer = own_writer()
        try:
            make_folder(path.parent)
            clear_for_file(path)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._fd).st_size
            self._is_cut = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"
        except OSError as err:
            raise LaunchError(
                f"{path}: cannot be written ({err.strerror}); expected a ledger that can be "
                "appended to; choose another output_dir or give it write permission"
            ) from err

    def record(
        self,
        slug: str,
        status: JobStatus,
        *,
        reason: str = "",
        retryable: bool = False,
        attempt: int = 1,
        step: int = 0,
        trial: str = "",
    ) -> None:
        """Append one line. A full disk costs the line and a warning, not the batch.

        Args:
            slug: of the job.
            status: the new one.
            reason: why.
            retryable: whether a failure may be cured by another try.
            attempt: how many runs have tried.
            step: of a job that begins, the optimizer step it goes on from.
            trial: stands for all that a failed job was tried with.
        """
        row: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "slug": slug,
            "status": status.value,
            "reason": redact(reason),
            "retryable": retryable,
            "attempt": attempt,
            **asdict(self._writer),
            **({"step": step} if step else {}),
            **({"trial": trial} if trial else {}),
        }
        line = ("\n" if self._is_cut else "") + json.dumps(row) + "\n"
        # One write each, on a file opened to append: lines of threads do not mix.
        data = line.encode("ascii")
        try:
            # A disk that fills up takes the beginning alone: the next line begins a new one.
            self._is_cut = os.write(self._fd, data) < len(data)
        except OSError as err:
            logger.warning("job=%s %s: not in the ledger (%s)", slug, status, err.strerror)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def open_ledger(output_dir: Path, *, shard: str | None = None, rank: int = 0) -> Ledger:
    """Open the ledger file of this process: `main.jsonl`, `3-of-16.jsonl`, `3-of-16-rank1.jsonl`.

    Raises:
        LaunchError: it cannot be written.
    """
    return Ledger(output_dir / LEDGER_DIR / f"{writer_name(shard, rank)}.jsonl")


def writer_name(shard: str | None, rank: int) -> str:
    """Return what the files of one process in the ledger's folder are called, without ending."""
    name = "main" if shard is None else re.sub(r"[^0-9A-Za-z]+", "-of-", shard)
    return f"{name}-rank{rank}" if rank else name


def read_ledger(output_dir: Path) -> dict[str, JobState]:
    """Return the last state of every job in all ledger files of a batch; empty without any.

    Lines that are cut or foreign are passed over. Where several files know a job, the latest
    line counts.

    Raises:
        OSError: a file cannot be read.
    """
    paths = sorted((output_dir / LEDGER_DIR).glob("*.jsonl"))
    # A job may go over to another file with the number of shards: its crashes go along.
    return _last_states(heapq.merge(*map(_lines, paths), key=lambda line: line[0]))


def keep_command(output_dir: Path, arguments: Sequence[str]) -> None:
    """Keep a command in the ledger's folder; what differs from task to task is left out.

    What killed writers left half-written of a batch's own files goes.
    """
    # A shard's own words would have the whole batch's command train that shard alone.
    words = [word for word in arguments if not word.startswith(_NOT_KEPT)]
    with suppress(OSError):  # no job depends on it
        path = output_dir / LEDGER_DIR / _COMMAND
        make_folder(path.parent)
        for folder in (output_dir, path.parent):  # other shards write there too
            remove_drafts(folder, idle_s=DRAFT_IDLE_S)
        write_text(path, shlex.join(["huggingtweets", "train", *words]) + "\n")


def read_command(output_dir: Path) -> str:
    """Return the command, or nothing."""
    try:
        return (output_dir / LEDGER_DIR / _COMMAND).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def own_writer() -> Writer:
    """Describe this process."""
    me = own_process()
    return Writer(socket.gethostname(), me.pid, me.started)


_Line = tuple[float, Mapping[str, Any]]
"""When a line was written, in seconds since the epoch, and what it says."""


def _last_states(lines: Iterable[_Line]) -> dict[str, JobState]:
    """The last state of every job, by lines in order of their times."""
    last: dict[str, _Line] = {}
    begun: dict[str, _Line] = {}
    crashes: dict[str, tuple[int, int]] = {}
    """How often in a row a job was begun without a word of its end, and from which step."""
    for line in lines:
        row = line[1]
        with suppress(KeyError, TypeError, ValueError):  # not ours
            slug, status = row["slug"], row["status"]
            if status in _STATUSES:
                last[slug] = line
            if status == JobStatus.running:
                begun[slug] = line
                num, step = crashes.get(slug, (0, 0))
                now = int(row.get("step", 0))
                # A job that died but got further is no hopeless one: it counts anew.
                crashes[slug] = (1 if now > step else num + 1, now)
            elif status != JobStatus.queued or row["reason"]:  # not merely to be begun
                crashes.pop(slug, None)
    states = {}
    for slug, (moment, row) in last.items():
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            state = _state_of(row, moment)
            since, first = begun.get(slug, (moment, None))
            has_ended = state.status in (JobStatus.done, JobStatus.failed)
            # Two machines' clocks differ: times of one writer alone are compared.
            if has_ended and first is not None and _writer_of(first) == state.writer:
                state = replace(state, seconds=max(0.0, moment - since))
            states[slug] = replace(state, crashes=crashes.get(slug, (0, 0))[0])
    return states


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the lines of one file that say a time; those cut by a crash, or not ours, do not."""
    for text in _text_of(path).split("\n"):
        with suppress(KeyError, TypeError, ValueError, OverflowError, RecursionError):
            row = json.loads(text)
            yield datetime.fromisoformat(row["time"]).timestamp(), row


def _text_of(path: Path) -> str:
    """Return what a file says; what is not a plain file says nothing."""
    try:
        return read_plain(path).decode("utf-8", errors="replace")
    except OSError:
        if path.is_file():
            raise
        return ""


def _state_of(row: Mapping[str, Any], changed_at: float) -> JobState:
    return JobState(
        slug=shown(str(row["slug"])),
        status=JobStatus(row["status"]),
        reason=shown(str(row["reason"])),
        retryable=bool(row["retryable"]),
        attempt=int(row["attempt"]),
        changed_at=changed_at,
        writer=_writer_of(row),
        trial=str(row.get("trial", "")),
    )


def _writer_of(row: Mapping[str, Any]) -> Writer:
    return Writer(str(row["host"]), int(row["pid"]), str(row["started"]))
