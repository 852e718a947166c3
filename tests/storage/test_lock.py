import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from huggingtweets.errors import JobBusyError, LaunchError
from huggingtweets.process import place
from huggingtweets.storage import lock as module
from huggingtweets.storage.lock import acquire_lock

HOLD = """
import sys, time
from pathlib import Path
from huggingtweets.storage import lock
lock.BEAT_S = 0.1
held = lock.acquire_lock(Path(sys.argv[1]), lease_s=1.0)
print(held.generation, flush=True)
time.sleep(60)
"""


def holder(job: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(job)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def elsewhere(job: Path) -> None:
    """Make the last claim look as one of another machine."""
    path = max(job.glob(".lock/0*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "place": "other", "host": "node7"}))


def test_a_free_folder_is_claimed_and_claimed_again(tmp_path: Path) -> None:
    with acquire_lock(tmp_path / "job") as first:
        assert first.generation == 1
        first.check()
    with acquire_lock(tmp_path / "job") as second:
        assert second.generation == 2
    assert len(list(tmp_path.glob("job/.lock/*"))) == 1


def test_a_second_start_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        started = time.monotonic()
        with pytest.raises(JobBusyError, match=rf"process {process.pid} on .* is at work"):
            acquire_lock(tmp_path)
        assert time.monotonic() - started < 1
    finally:
        end(process)


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with acquire_lock(tmp_path), pytest.raises(JobBusyError):
        acquire_lock(tmp_path)


def test_a_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    end(holder(tmp_path))
    started = time.monotonic()
    with acquire_lock(tmp_path) as lock:
        assert lock.generation == 2
    assert time.monotonic() - started < 1


def test_a_zombie_counts_as_dead(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    time.sleep(0.3)
    with acquire_lock(tmp_path) as lock:
        assert lock.generation == 2
    process.wait()


def test_a_later_process_of_the_same_id_is_not_the_holder(tmp_path: Path) -> None:
    end(holder(tmp_path))
    path = next(tmp_path.glob(".lock/0*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid()}))
    with acquire_lock(tmp_path) as lock:
        assert lock.generation == 2


def test_a_holder_whose_launcher_died_is_waited_for(tmp_path: Path) -> None:
    process = holder(tmp_path)
    path = next(tmp_path.glob(".lock/0*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "parent": 1}))
    timer = threading.Timer(0.7, process.kill)
    timer.start()
    try:
        with acquire_lock(tmp_path) as lock:
            assert lock.generation == 2
    finally:
        timer.join()
        end(process)


def test_a_silent_holder_on_another_machine_is_given_up_after_the_lease(tmp_path: Path) -> None:
    end(holder(tmp_path))
    elsewhere(tmp_path)
    started = time.monotonic()
    with acquire_lock(tmp_path, lease_s=1.0) as lock:
        assert lock.generation == 2
    assert 1.0 <= time.monotonic() - started < 5


def test_a_beating_holder_on_another_machine_is_alive(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        elsewhere(tmp_path)
        with pytest.raises(JobBusyError, match="on node7"):
            acquire_lock(tmp_path, lease_s=10.0)
    finally:
        end(process)


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_a_skewed_clock_of_the_file_server_changes_nothing(tmp_path: Path, skew_s: int) -> None:
    end(holder(tmp_path))
    elsewhere(tmp_path)
    path = next(tmp_path.glob(".lock/0*"))
    os.utime(path, (time.time() + skew_s, time.time() + skew_s))
    started = time.monotonic()
    acquire_lock(tmp_path, lease_s=0.5).release()
    assert 0.5 <= time.monotonic() - started < 5


def test_a_writer_that_died_while_claiming_is_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    (tmp_path / ".lock" / "00000004").touch()
    with acquire_lock(tmp_path, lease_s=0.5) as lock:
        assert lock.generation == 5


def test_a_holder_given_up_for_dead_is_fenced_off(tmp_path: Path) -> None:
    first = acquire_lock(tmp_path)
    elsewhere(tmp_path)
    with acquire_lock(tmp_path, lease_s=0.5) as second:
        with pytest.raises(LaunchError, match=r"later start \(generation 2\)"):
            first.check()
        first.release()
        second.check()
        assert first.generation < second.generation


def test_a_holder_whose_folder_was_deleted_is_told_so(tmp_path: Path) -> None:
    with acquire_lock(tmp_path / "job") as lock:
        shutil.rmtree(tmp_path / "job")
        with pytest.raises(LaunchError, match=r"/job: got a job folder that was deleted"):
            lock.check()


def test_a_holder_given_up_for_dead_beats_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingtweets.storage.lock.BEAT_S", 0.1)
    with acquire_lock(tmp_path) as held:
        own = tmp_path / ".lock" / f"{held.generation:08d}"
        (tmp_path / ".lock" / f"{held.generation + 1:08d}").touch()
        time.sleep(0.3)
        before = own.stat().st_mtime_ns
        time.sleep(0.5)
        assert own.stat().st_mtime_ns == before


def test_a_vanished_folder_fences_off_too(tmp_path: Path) -> None:
    with acquire_lock(tmp_path / "job") as lock:
        for path in (tmp_path / "job" / ".lock").iterdir():
            path.unlink()
        with pytest.raises(LaunchError):
            lock.check()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match=r"file/job: got Not a directory.*output_dir"):
        acquire_lock(tmp_path / "file" / "job")


def test_a_disk_that_fails_at_the_release_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with acquire_lock(tmp_path):

        def fails(folder: Path) -> list[str]:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(folder))

        monkeypatch.setattr(os, "listdir", fails)
    monkeypatch.undo()
    with pytest.raises(JobBusyError):  # never given up, so it lapses with this process
        acquire_lock(tmp_path)


def compete(root: Path, num_jobs: int, barrier: object) -> None:
    """Claim every job, in the same order as everybody, and note each claim that was won."""
    barrier.wait()
    with (root / f"won-{os.getpid()}").open("w") as won:
        for index in range(num_jobs):
            try:
                acquire_lock(root / f"job-{index}")
                won.write(f"{index}\n")
            except JobBusyError:
                pass
    # Claims hold only while their process lives: leave when all have tried.
    barrier.wait()


def test_of_many_takers_exactly_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_jobs, num_processes = 200, 8
    dead = subprocess.Popen(["true"])
    dead.wait()
    for index in range(0, num_jobs, 2):
        lock = acquire_lock(tmp_path / f"job-{index}")
        lock._ended.set()
        path = tmp_path / f"job-{index}" / ".lock" / "00000001"
        claim = json.loads(path.read_text())
        path.write_text(json.dumps({**claim, "pid": dead.pid, "started": "1"}))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(num_processes)
    takers = [
        context.Process(target=compete, args=(tmp_path, num_jobs, barrier))
        for _ in range(num_processes)
    ]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
        assert taker.exitcode == 0
    won = [line for path in tmp_path.glob("won-*") for line in path.read_text().split()]
    assert sorted(won, key=int) == [str(index) for index in range(num_jobs)]


def test_a_stopped_holder_wakes_up_fenced_off(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        elsewhere(tmp_path)
        process.send_signal(signal.SIGSTOP)
        with acquire_lock(tmp_path, lease_s=1.0) as lock:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            lock.check()
            assert module._newest(tmp_path / ".lock") == 2
    finally:
        end(process)


@pytest.mark.parametrize("num", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_many_claims_of_the_dead_are_waited_for_once(
    tmp_path: Path, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = {"host": "node7", "place": "other", "pid": 5, "started": "7", "parent": 1}
    contents = ("", "{", json.dumps(claim), json.dumps(claim | {"place": place(), "pid": 1 << 30}))
    for number in range(num):
        path = tmp_path / f"job{number}" / ".lock" / "00000001"
        path.parent.mkdir(parents=True)
        path.write_text(contents[number % 4])
        os.utime(path, (time.time() - 100,) * 2)
    slept: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda s: (slept.append(s), sleep(s)))
    for number in range(num):
        acquire_lock(tmp_path / f"job{number}", lease_s=0.3).release()
    assert sum(slept) < 1, "of one holder elsewhere, once"
