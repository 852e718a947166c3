"""What a batch script and the processes it starts tell each other."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small import ROOT

from huggingtweets import attempt
from huggingtweets.attempt import Attempt, own_attempt
from huggingtweets.errors import JobBusyError, LaunchError
from huggingtweets.storage.lock import acquire_lock


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mark = tmp_path / "cluster-12_3"
    monkeypatch.setenv("HUGGINGTWEETS_MARK", str(mark))
    monkeypatch.setenv("HUGGINGTWEETS_ATTEMPT", "1")
    written(mark, "attempt").write_text("1")
    return mark


def written(mark: Path, what: str) -> Path:
    return mark.with_name(f"{mark.name}.{what}")


def test_without_a_batch_script_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUGGINGTWEETS_MARK", raising=False)
    assert own_attempt() is None
    assert not attempt.is_superseded()
    assert attempt.tell_exit(75) == 75


def test_exit_code_and_progress_are_those_of_the_attempt(mark: Path) -> None:
    attempt.tell_progress()
    assert attempt.tell_exit(75) == 75
    assert written(mark, "exit-1").read_text() == "75\n"
    assert written(mark, "progress-1").exists()


def test_only_the_main_process_tells_the_exit_code(
    mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    attempt.tell_exit(0)
    assert not written(mark, "exit-1").exists()


def test_train_py_tells_its_exit_code(mark: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / "train.py", "recipe.lr=no"], capture_output=True)
    assert done.returncode == 2
    assert written(mark, "exit-1").read_text() == "2\n"


@pytest.mark.parametrize(
    ("newest", "expected"), [(None, True), ("0", False), ("1", False), ("2", True), ("", False)]
)
def test_an_attempt_is_superseded_by_a_later_one_or_by_the_end_of_the_task(
    mark: Path, newest: str | None, expected: bool
) -> None:
    written(mark, "attempt").unlink()
    if newest is not None:
        written(mark, "attempt").write_text(newest)
    assert attempt.is_superseded() is expected


def test_a_superseded_attempt_is_told(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "POLL_S", 0.01)
    told = threading.Event()
    attempt.watch(lambda reason: told.set())
    assert not told.wait(0.1)
    written(mark, "attempt").write_text("2")
    assert told.wait(10)


def test_a_later_attempt_takes_the_lock_of_a_living_one(
    mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = acquire_lock(tmp_path / "job")
    with pytest.raises(JobBusyError):
        acquire_lock(tmp_path / "job", lease_s=0.1)
    monkeypatch.setenv("HUGGINGTWEETS_ATTEMPT", "2")
    second = acquire_lock(tmp_path / "job")
    with pytest.raises(Exception, match="taken to be dead"):
        first.check()
    second.check()
    monkeypatch.setenv("HUGGINGTWEETS_MARK", str(mark.with_name("cluster-12_4")))
    with pytest.raises(JobBusyError):
        acquire_lock(tmp_path / "job", lease_s=0.1)
    monkeypatch.setenv("HUGGINGTWEETS_MARK", str(mark))
    written(mark, "attempt").unlink()
    with pytest.raises(LaunchError, match="given up as dead"):
        second.check()
    first.release()
    second.release()


def test_the_mark_of_another_folder_is_another_task(tmp_path: Path) -> None:
    assert Attempt(tmp_path / "a", 0).task != Attempt(tmp_path / "b", 0).task


def slurm(folder: Path, script: str, **answers: str) -> subprocess.CompletedProcess[str]:
    """Run a batch script's lines beside stand-ins for SLURM's commands, which write down calls."""
    bodies = {"sleep": "", "scontrol": "", "squeue": "", "srun": ""} | answers
    for name, body in bodies.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{folder}/calls\n{body}\n')
        path.chmod(0o755)
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; source {ROOT}/slurm/attempt.sh; {script}"],
        env={
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HUGGINGTWEETS_MARKS": str(folder / "marks"),
            "HUGGINGTWEETS_LEAD_S": "60",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_JOB_NUM_NODES": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def failing(folder: Path, times: int, then: str) -> str:
    """The body of a command that fails so often before it does what it should."""
    return f"echo >>{folder}/$1; (($(wc -l <{folder}/$1) > {times})) || exit 1\n{then}"


@pytest.mark.parametrize("failures", [0, 1, 9], ids=["at-once", "asked-again", "never"])
@pytest.mark.parametrize("left_s", [7200, -60, None], ids=["time-left", "past", "nothing"])
def test_a_task_is_to_be_done_by_what_slurm_says_and_by_no_other_time(
    tmp_path: Path, failures: int, left_s: int | None
) -> None:
    ends = round(time.time()) + (left_s or 0)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(ends)) if left_s else ""
    squeue = failing(tmp_path, failures, f"echo {stamp}")
    done = slurm(tmp_path, 'begin_attempt; echo "${HUGGINGTWEETS_DONE_BY-none}"', squeue=squeue)
    is_known = left_s == 7200 and failures < 9
    assert done.stdout.strip() == (str(ends - 60) if is_known else "none"), done.stderr


RUNNING = "echo 'JobId=7 JobState=RUNNING Reason=None x'"


@pytest.mark.parametrize(
    ("scontrol", "is_requeued"),
    [
        (lambda folder: RUNNING, True),
        (lambda folder: failing(folder, 2, RUNNING), True),  # both what it shows and the requeue
        (lambda folder: "[[ $1 == requeue ]]", True),
        (lambda folder: "echo 'JobId=7 JobState=CANCELLED Reason=None x'", False),
        (lambda folder: "echo 'JobId=7 JobState=TIMEOUT Reason=TimeLimit x'", True),
    ],
    ids=["running", "fails-at-first", "says-nothing", "cancelled", "time-limit"],
)
def test_a_stopped_task_is_requeued_unless_slurm_says_that_it_ends_it(
    tmp_path: Path, scontrol: Callable[[Path], str], is_requeued: bool
) -> None:
    srun = 'echo 75 >"$HUGGINGTWEETS_MARK.exit-0"'
    lines = "begin_attempt; run_attempt true"  # and no CONTAINER
    done = slurm(tmp_path, lines, srun=srun, scontrol=scontrol(tmp_path))
    assert done.returncode == 75, done.stderr
    calls = (tmp_path / "calls").read_text()
    assert ("scontrol requeue 7\nsleep 120\n" in calls) == is_requeued, calls
