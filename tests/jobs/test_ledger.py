import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from huggingtweets.errors import LaunchError
from huggingtweets.jobs.ledger import (
    JobStatus,
    Ledger,
    open_ledger,
    own_writer,
    read_ledger,
)
from huggingtweets.process import lives


def test_ledger_keeps_the_last_state_of_each_job(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record("alice", JobStatus.queued)
        ledger.record("alice", JobStatus.running, attempt=2)
        ledger.record("bob", JobStatus.running)
        ledger.record("alice", JobStatus.failed, reason="NaN", retryable=True, attempt=2)
    states = read_ledger(tmp_path)
    alice = states["alice"]
    assert list(states) == ["alice", "bob"]
    assert (alice.status, alice.reason, alice.retryable, alice.attempt) == (
        JobStatus.failed,
        "NaN",
        True,
        2,
    )
    assert alice.writer == own_writer()
    assert alice.seconds is not None
    assert 0 <= alice.seconds < 60
    assert abs(alice.changed_at - time.time()) < 60
    assert states["bob"].seconds is None


def test_ledger_lines_are_complete_json(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record("alice", JobStatus.skipped, reason='é\n"\ud800 hf_TOKENTOKEN')
    [line] = (tmp_path / "ledger" / "main.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row.keys() == {
        "time",
        "slug",
        "status",
        "reason",
        "retryable",
        "attempt",
        "host",
        "pid",
        "started",
    }
    assert row["reason"] == 'é\n"\ud800 [redacted]'
    assert row["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("shard", "rank", "name"),
    [
        (None, 0, "main"),
        (None, 3, "main-rank3"),
        ("3/16", 0, "3-of-16"),
        ("3/16", 1, "3-of-16-rank1"),
    ],
)
def test_ledger_file_is_named_by_its_writer(
    tmp_path: Path, shard: str | None, rank: int, name: str
) -> None:
    open_ledger(tmp_path, shard=shard, rank=rank).close()
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == [f"{name}.jsonl"]


def test_ledger_of_several_writers_is_read_as_one(tmp_path: Path) -> None:
    with open_ledger(tmp_path, shard="1/2") as first, open_ledger(tmp_path, shard="0/2") as second:
        first.record("alice", JobStatus.running)
        first.record("carol", JobStatus.done)
        time.sleep(0.002)
        second.record("alice", JobStatus.done)
        second.record("bob", JobStatus.queued)
    assert {slug: str(state.status) for slug, state in read_ledger(tmp_path).items()} == {
        "alice": "done",
        "bob": "queued",
        "carol": "done",
    }


def test_ledger_of_nothing_is_empty(tmp_path: Path) -> None:
    assert read_ledger(tmp_path) == {}
    open_ledger(tmp_path).close()
    assert read_ledger(tmp_path) == {}


@pytest.mark.parametrize("kept", range(1, 40, 3))
def test_ledger_passes_over_a_cut_line_and_repairs_it(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "ledger" / "main.jsonl"
    with Ledger(path) as ledger:
        ledger.record("alice", JobStatus.done)
        ledger.record("bob", JobStatus.running)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: first + kept])
    assert list(read_ledger(tmp_path)) == ["alice"]
    with Ledger(path) as ledger:
        ledger.record("carol", JobStatus.done)
    assert list(read_ledger(tmp_path)) == ["alice", "carol"]
    assert path.read_bytes().startswith(whole[: first + kept])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"1",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 5000,
        b'{"slug": "x", "status": "done"}',
        b'{"slug": "x", "status": "dancing"}',
        b'{"slug": ["x"], "status": "done"}',
        b'{"step": 10, "loss": 3.25}',
        b'{"slug": "x", "status": "done", "time": 3, "reason": "", "retryable": 0, "attempt": 1}',
    ],
    ids=range(13),
)
def test_ledger_passes_over_foreign_lines(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger" / "main.jsonl"
    with Ledger(path) as ledger:
        ledger.record("alice", JobStatus.done)
    path.write_bytes(line + b"\n" + path.read_bytes() + line + b"\n")
    assert list(read_ledger(tmp_path)) == ["alice"]


def test_ledger_is_shared_by_threads(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:

        def write(name: int) -> None:
            for number in range(200):
                ledger.record(f"user{name}_{number}", JobStatus.done, reason="x" * 200)

        threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read_ledger(tmp_path)) == 1600


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from huggingtweets.jobs.ledger import JobStatus, open_ledger

ledger = open_ledger(Path(sys.argv[1]))
number = 0
while True:
    ledger.record(f"user{number}", JobStatus.done)
    print(number, flush=True)
    number += 1
"""


def test_ledger_loses_no_line_to_a_kill(tmp_path: Path) -> None:
    told = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= told + 50:
                break
        process.send_signal(signal.SIGKILL)
        told = max(int(line) for line in [line, *process.stdout] if line.endswith("\n"))
        process.wait()
        states = read_ledger(tmp_path)
        assert {f"user{number}" for number in range(told + 1)} <= states.keys()


def test_ledger_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(LaunchError, match=r"main\.jsonl: cannot be written .*output_dir"):
        open_ledger(tmp_path / "out")


def test_ledger_goes_on_when_the_disk_is_full(caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with Ledger(Path("/dev/full")) as ledger:
        ledger.record("alice", JobStatus.done)
    assert "job=alice done: not in the ledger (No space left on device)" in caplog.text


def test_ledger_of_100000_lines_is_read_in_seconds(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record("alice", JobStatus.running)
        ledger.record("alice", JobStatus.done)
    path = tmp_path / "ledger" / "main.jsonl"
    template = path.read_text()
    path.write_text("".join(template.replace("alice", f"user{i}") for i in range(50_000)))
    start = time.process_time()
    states = read_ledger(tmp_path)
    assert time.process_time() - start < 3
    assert len(states) == 50_000
    assert all(state.status is JobStatus.done for state in states.values())


def test_writer_is_alive_while_it_runs() -> None:
    me = own_writer()
    assert lives(me.pid, me.started)
    assert not lives(me.pid, "1")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert not lives(child.pid, "")


def test_writer_that_is_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    deadline = time.monotonic() + 20
    while lives(child.pid, "") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not lives(child.pid, "")
    assert os.waitpid(child.pid, 0)[0] == child.pid


def test_ledger_counts_the_runs_that_died_of_a_job(tmp_path: Path) -> None:
    def crashes() -> int:
        return read_ledger(tmp_path)["alice"].crashes

    with open_ledger(tmp_path) as ledger:
        for num in (1, 2):
            ledger.record("alice", JobStatus.queued)
            ledger.record("alice", JobStatus.running)
            assert crashes() == num
        ledger.record("alice", JobStatus.queued)
        assert crashes() == 2, "another run has not come to it yet"
        ledger.record("alice", JobStatus.running, step=100)
        assert crashes() == 1, "it got further than the runs before"
        ledger.record("alice", JobStatus.running, step=100)
        assert crashes() == 2
        ledger.record("alice", JobStatus.queued, reason="got SIGTERM; everything so far is saved")
        assert crashes() == 0, "it ended in order"
        ledger.record("alice", JobStatus.running)
        ledger.record("alice", JobStatus.done)
        assert crashes() == 0


def test_ledger_counts_the_runs_that_died_of_a_job_over_all_files(tmp_path: Path) -> None:
    """Another number of shards has other files."""
    for shard in ("0/4", "0/4", "0/8", "0/4", None):
        with open_ledger(tmp_path, shard=shard) as ledger:
            ledger.record("alice", JobStatus.queued)
            ledger.record("alice", JobStatus.running)
        time.sleep(0.002)  # times are in milliseconds
    assert read_ledger(tmp_path)["alice"].crashes == 5
    with open_ledger(tmp_path, shard="0/8") as ledger:
        ledger.record("alice", JobStatus.done)
    assert read_ledger(tmp_path)["alice"].crashes == 0
