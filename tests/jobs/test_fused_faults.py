"""Many users under kill, stop and bad luck: nobody is lost, nobody is trained twice."""

import errno
import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from job_processes import SMALL, Running, Start, run, weights_digest, write_posts

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.handles import Job
from huggingtweets.jobs.fused import run_fused
from huggingtweets.jobs.ledger import JobStatus, open_ledger
from huggingtweets.jobs.status import read_states
from huggingtweets.jobs.tally import Tally

FUSED = ("user=file:users.txt", "engine=fused", "engine.slots=3", "recipe.dropout=0.1")


def write_users(folder: Path, *handles: str) -> list[str]:
    """The arguments of a batch of made-up people."""
    write_posts(folder / "posts", *handles)
    (folder / "users.txt").write_text("\n".join(handles) + "\n")
    users = f"user=file:{folder / 'users.txt'}"
    return [*SMALL, *FUSED, users, "source=jsonl", f"source.path={folder / 'posts'}"]


def finished(output: Path) -> dict[str, int]:
    """When each finished job was finished."""
    return {p.parent.name: p.stat().st_mtime_ns for p in output.glob("*/result.json")}


def ledger_lines(output: Path) -> list[dict[str, str]]:
    """What the only process of each start wrote; cut lines are passed over."""
    lines = []
    for line in (output / "ledger" / "main.jsonl").read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def wait_for(running: Running, output: Path, num: int) -> None:
    """Wait until so many jobs are finished, or the run has ended."""
    while running.is_running() and len(finished(output)) < num:
        time.sleep(0.005)


def held_locks(output: Path) -> list[str]:
    newest = [max(folder.iterdir()) for folder in output.glob("*/.lock")]
    return [str(path) for path in newest if not json.loads(path.read_text())["is_released"]]


@pytest.mark.slow  # tests/faults/test_storm.py kills batches by default
@pytest.mark.parametrize(("num_users", "num_kills"), [(40, 10)])
def test_killed_at_random_every_user_is_done_exactly_once(
    tmp_path: Path, num_users: int, num_kills: int
) -> None:
    handles = [f"user{number}" for number in range(num_users)]
    arguments = write_users(tmp_path, *handles)
    run([*arguments, f"output_dir={tmp_path / 'calm'}"])
    output, log = tmp_path / "out", tmp_path / "log"
    arguments.append(f"output_dir={output}")
    rng = random.Random(num_users)
    seen: dict[str, int] = {}
    for kill in range(num_kills):
        running = Running(Start(arguments, log=log))
        # Evenly over the whole batch, each time at some instant of some other jobs.
        wait_for(running, output, num_users * kill // num_kills)
        time.sleep(rng.uniform(0, 0.3))
        running.kill(running.launcher)
        running.wait()
        assert seen.items() <= finished(output).items(), "a finished job was touched"
        seen = finished(output)
    assert len(seen) < num_users, "all was done before the last kill: kill earlier"
    run(arguments, log=log)
    assert seen.items() <= finished(output).items()
    assert finished(output).keys() == set(handles)
    done = set()
    for line in ledger_lines(output):
        assert line["slug"] not in done, "something happened to a job after it was done"
        if line["status"] == "done":
            done.add(line["slug"])
    assert done == set(handles)
    for handle in handles:
        assert weights_digest(output / handle) == weights_digest(tmp_path / "calm" / handle)


def test_stopped_batch_leaves_no_lock_and_goes_on(tmp_path: Path) -> None:
    handles = [f"user{number}" for number in range(12)]
    output = tmp_path / "out"
    arguments = [*write_users(tmp_path, *handles), f"output_dir={output}"]
    running = Running(Start(arguments, log=tmp_path / "log"))
    wait_for(running, output, 3)
    running.kill(running.launcher, signal.SIGTERM)
    assert running.wait() == 75, running.words()
    before = finished(output)
    assert 3 <= len(before) < 12
    assert held_locks(output) == []
    states = read_states(output)
    for handle in handles:
        expected = JobStatus.done if handle in before else JobStatus.queued
        assert states[handle].status is expected, handle
    assert not [name for name in handles if states[name].status is JobStatus.running]
    last = {line["slug"]: line["status"] for line in ledger_lines(output)}
    assert set(last.values()) <= {"done", "queued"}
    assert "Traceback" not in running.words()

    run(arguments)
    assert before.items() <= finished(output).items()
    assert finished(output).keys() == set(handles)


def disk_is_full_for_carl() -> None:
    """For `Start.prepare`: what is written into that person's folder does not fit."""
    sync = os.fsync

    def failing_fsync(fd: int) -> None:
        if "/out/carl/.model" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(fd)

    os.fsync = failing_fsync


def test_bad_users_fail_alone_and_a_rerun_touches_only_them(tmp_path: Path) -> None:
    output = tmp_path / "out"
    good = ("ann", "bob", "dora", "emil")
    arguments = write_users(tmp_path, "ann", "garbled", "bob", "carl", "silent", "dora", "emil")
    arguments.append(f"output_dir={output}")
    (tmp_path / "posts" / "garbled.jsonl").write_bytes(b"\x00\xff not json\n")
    (tmp_path / "posts" / "silent.jsonl").unlink()
    running = Running(Start(arguments, prepare=disk_is_full_for_carl, log=tmp_path / "log"))
    assert running.wait() == 1
    assert "Traceback" not in running.words()
    states = read_states(output)
    assert {name: state.status for name, state in states.items()} == dict.fromkeys(
        good, JobStatus.done
    ) | dict.fromkeys(("garbled", "carl", "silent"), JobStatus.failed)
    assert "No space left on device" in states["carl"].reason
    assert states["carl"].retryable
    assert "garbled.jsonl" in states["garbled"].reason
    assert held_locks(output) == []
    before = finished(output)
    num_lines = len(ledger_lines(output))

    running = Running(Start(arguments, log=tmp_path / "log"))
    assert running.wait() == 1
    assert before.items() <= finished(output).items()
    assert finished(output).keys() == {*good, "carl"}
    assert {line["slug"] for line in ledger_lines(output)[num_lines:]} == {"carl"}


def test_a_diverging_user_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / "cache"))
    register()
    words = [*SMALL, "source=jsonl", f"source.path={write_posts(tmp_path, 'ann', 'nan', 'bob')}"]
    config = to_config(compose_config([*words, "user=ann", f"output_dir={tmp_path / 'out'}"]))
    # Decay of so much overflows every weight at once.
    wild = replace(config, recipe=replace(config.recipe, weight_decay=1e38, lr=9.0))
    plans: list[Plan] = [
        make_plan(wild if name == "nan" else config, Job((name,))) for name in ("ann", "nan", "bob")
    ]
    with open_ledger(tmp_path / "out") as ledger:
        tally = Tally(ledger, {})
        run_fused(plans, find_base(config.model), torch.device("cpu"), tally)
    assert tally.exit_code == 1
    states = read_states(tmp_path / "out")
    assert {name: state.status.value for name, state in states.items()} == {
        "ann": "done",
        "nan": "failed",
        "bob": "done",
    }
    assert "not finite" in states["nan"].reason
