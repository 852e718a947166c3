"""What SLURM says of the tasks of a batch: which wait, which are held, and what to type then.

A task whose node was set down and resumed by an administrator may end as `launch failed requeued
held`: it waits for ever, and neither the ledger nor the job folders tell.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingtweets.logs import shown

LOGS = "slurm-logs"
"""Beside the folders of the jobs; no slug is called so, as handles stand in order in it."""
COMMAND = "{}.command"
"""Beside the logs, by the number of the job: what was typed."""
TIMEOUT_S = 10.0
_LOG = re.compile(r".{1,200}?-([0-9]{1,12})(?:_[0-9]{1,9})?\.out")
_HELD = re.compile(r"held|JobHoldMaxRequeue", re.IGNORECASE)


@dataclass(frozen=True)
class Task:
    """One task that SLURM still has."""

    number: str
    """Such as `4711_3`."""
    state: str
    """Such as `PENDING`."""
    reason: str

    @property
    def is_held(self) -> bool:
        """Whether it waits until somebody lets it go."""
        return self.state == "PENDING" and bool(_HELD.search(self.reason))


@dataclass(frozen=True)
class SlurmWord:
    """What there is to tell."""

    tasks: tuple[Task, ...]
    ended: tuple[tuple[str, str], ...]
    """Numbers and states of tasks that did not end well, where accounting knows them."""
    command: str | None
    """What was last submitted."""
    num_left: int
    """Jobs of the batch that are not done."""

    def lines(self) -> list[str]:
        """Return it for people, with what to type."""
        lines = [
            f"slurm: task {task.number} is held ({task.reason}) and will not begin by itself; "
            f"let it go: scontrol release {task.number}"
            for task in self.tasks
            if task.is_held
        ]
        waiting = [task for task in self.tasks if task.state == "PENDING" and not task.is_held]
        if waiting:
            reasons = ", ".join(sorted({task.reason for task in waiting}))
            lines.append(f"slurm: {len(waiting)} task(s) wait ({reasons})")
        if num_running := sum(task.state == "RUNNING" for task in self.tasks):
            lines.append(f"slurm: {num_running} task(s) run")
        lines += [f"slurm: task {number} ended as {state}" for number, state in self.ended[:20]]
        if not self.tasks and self.num_left and self.command:
            lines.append(
                f"slurm: has no task of this batch any more, and {self.num_left} job(s) are left; "
                f"train what is missing: {self.command}"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        tasks = [asdict(task) | {"held": task.is_held} for task in self.tasks]
        return {"tasks": tasks, "ended": [list(one) for one in self.ended], "command": self.command}


def ask_slurm(output_dir: Path, num_left: int) -> SlurmWord | None:
    """Ask about the tasks that have written logs beside a batch; None: there are none, or no SLURM.

    Args:
        output_dir: of the batch.
        num_left: of its jobs that are not done.
    """
    numbers = _numbers(output_dir / LOGS)
    if not numbers or shutil.which("squeue") is None:
        return None
    # No head (-h), a line per task of an array (-r): number, state, reason.
    ask = ("squeue", "-h", "-r", "-o", "%i|%T|%r", "-j")
    text = _run(*ask, ",".join(numbers))
    if text is None:  # old numbers are unknown to it; asked one by one they do no harm
        text = "\n".join(_run(*ask, one) or "" for one in numbers[-20:])
    rows = [line.split("|", 2) for line in text.splitlines() if line.count("|") >= 2]
    tasks = tuple(Task(*(shown(part.strip()) for part in row)) for row in rows)
    return SlurmWord(tasks, _ended(numbers), _command(output_dir / LOGS, numbers), num_left)


def _numbers(logs: Path) -> list[str]:
    """Return the numbers of the jobs that were submitted, the oldest first."""
    try:
        names = [path.name for path in logs.iterdir()]
    except OSError:
        return []
    found = {match[1] for name in names if (match := _LOG.fullmatch(name))}
    found |= {stem for name in names if (stem := name.removesuffix(".command")) != name}
    return sorted((one for one in found if one.isdecimal()), key=int)[-200:]


def _command(logs: Path, numbers: Sequence[str]) -> str | None:
    for number in reversed(numbers):
        path = logs / COMMAND.format(number)
        if path.is_file():
            return shown(path.read_text(encoding="utf-8", errors="replace")[:4000].strip())
    return None


def _ended(numbers: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return tasks that accounting says ended badly; empty where there is no accounting."""
    if shutil.which("sacct") is None:
        return ()
    # No head (-n), whole tasks and not their steps (-X), divided by bars (-P).
    text = _run("sacct", "-n", "-X", "-P", "-o", "JobID,State", "-j", ",".join(numbers)) or ""
    rows = [line.split("|", 1) for line in text.splitlines() if "|" in line]
    good = ("COMPLETED", "RUNNING", "PENDING", "REQUEUED", "RESIZING", "SUSPENDED")
    return tuple((shown(a), shown(b)) for a, b in rows if not b.startswith(good))


def _run(*command: str) -> str | None:
    """Return what a command says; None: it fails or does not answer in time."""
    try:
        done = call_slurm(command, timeout_s=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def call_slurm(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands, which hang where its controller is down.

    Args:
        command: with its arguments.
        timeout_s: how long to wait for the answer.
        environment: added to our own.

    Raises:
        OSError: there is no such command.
        subprocess.TimeoutExpired: it gave no answer.
    """
    return subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )
