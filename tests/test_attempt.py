"""What a batch script and the processes it starts tell each other."""

import subprocess
import sys
import threading
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
