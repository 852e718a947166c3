"""SIGKILL at random instants of the real train.py: nothing is lost, and nobody can tell."""

import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from job_processes import (
    SMALL,
    Running,
    Start,
    history,
    run,
    slow_disk,
    weights_digest,
    write_posts,
)

HANDLES = ("ann", "bob")


@dataclass
class Tally:
    kills: int = 0
    mid_write: int = 0


def arguments(handle: str, posts: Path, output: Path) -> list[str]:
    return [
        f"user={handle}",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
        "engine.save_every_s=0.05",
        "recipe.dropout=0.1",
        "recipe.keep=best",
        *SMALL,
    ]


def kill_at_random(running: Running, job: Path, duration_s: float, rng: random.Random) -> bool:
    """Kill a rank or the launcher, half of the time while a checkpoint is being written."""
    victim = rng.choice([running.launcher, *running.ranks])
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, duration_s))
    else:
        for _ in range(rng.randint(1, 3)):
            wait_for_write(running, job, present=False)
            wait_for_write(running, job, present=True)
        time.sleep(rng.uniform(0, 0.03))
    if not running.is_running():
        return False
    running.kill(victim)
    running.wait()
    return not (job / "result.json").exists()


def wait_for_write(running: Running, job: Path, *, present: bool) -> None:
    while running.is_running() and bool(drafts(job)) != present:
        time.sleep(0.001)


def drafts(job: Path) -> list[Path]:
    try:
        return [*job.glob("checkpoints/.step-*.tmp"), *job.glob(".*.tmp")]
    except FileNotFoundError:  # the job ended meanwhile and put its checkpoints away
        return []


def finish_under_fire(
    handle: str, posts: Path, output: Path, world: int, duration_s: float, rng: random.Random
) -> Iterator[bool]:
    """Start a job again and again, killing it, and say for each kill whether it hit a write."""
    job = output / handle
    while True:
        running = Running(
            Start(arguments(handle, posts, output), world, prepare=slow_disk, log=output / "log")
        )
        if not kill_at_random(running, job, duration_s, rng):
            # The job was done; the kill struck a rank or the launcher on its way out, or nobody.
            killed = signal.SIGKILL
            assert running.wait() in (0, -killed, 128 + killed), running.words()
            return
        yield bool(drafts(job))


@pytest.mark.distributed
@pytest.mark.parametrize(
    "kills", [8, pytest.param(200, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_killed_jobs_end_as_undisturbed_ones(tmp_path: Path, kills: int) -> None:
    rng = random.Random(kills)
    posts = write_posts(tmp_path / "posts", *HANDLES)
    jobs = [(handle, world) for handle in HANDLES for world in (1, 2)]
    tally = Tally()
    for handle, world in jobs:
        reference = tmp_path / f"reference-{world}"
        reference.mkdir(exist_ok=True)
        run(arguments(handle, posts, reference), world, log=reference / "log")
        started = time.monotonic()
        warm = tmp_path / f"warm-{world}"
        warm.mkdir(exist_ok=True)
        run(arguments(handle, posts, warm), world, prepare=slow_disk, log=warm / "log")
        duration_s = time.monotonic() - started
        assert weights_digest(warm / handle) == weights_digest(reference / handle)
        until = tally.kills + kills // len(jobs)
        number = 0
        while tally.kills < until:
            output = tmp_path / f"killed-{world}-{number}"
            output.mkdir(exist_ok=True)
            number += 1
            fire = finish_under_fire(handle, posts, output, world, duration_s, rng)
            for is_mid_write in fire:
                tally.kills += 1
                tally.mid_write += is_mid_write
                if tally.kills >= until:
                    break
            run(arguments(handle, posts, output), world, log=output / "log")
            job = output / handle
            assert weights_digest(job) == weights_digest(reference / handle)
            assert history(job) == history(reference / handle)
            assert not list(job.glob("checkpoints/.damaged*"))
            assert (job / "result.json").exists()
    assert tally.kills >= kills
    assert tally.mid_write >= kills / 4, tally


@pytest.mark.distributed
@pytest.mark.parametrize("world", [1, 2])
def test_a_job_that_its_silent_holder_finishes_meanwhile_is_not_trained_again(
    tmp_path: Path, world: int
) -> None:
    posts = write_posts(tmp_path / "posts", "ann")
    job, log = tmp_path / "ann", tmp_path / "log"
    run(arguments("ann", posts, tmp_path), world, log=log)
    result, hidden = job / "result.json", tmp_path / "result.json"
    stamp = result.stat().st_mtime_ns
    result.rename(hidden)
    claim = max(job.glob(".lock/0*"))
    silent = {**json.loads(claim.read_text()), "place": "other", "host": "node7", "pid": 1}
    claim.write_text(json.dumps({**silent, "is_released": False}))
    running = Running(Start(arguments("ann", posts, tmp_path), world, log=log))
    while "waiting up to" not in running.words():
        assert running.is_running(), running.words()
        time.sleep(0.01)
    hidden.rename(result)
    claim.write_text(json.dumps({**silent, "is_released": True}))
    assert running.wait() == 0, running.words()
    assert result.stat().st_mtime_ns == stamp, running.words()
    assert "was done before" in running.words()
