"""Signals to ranks and launchers: everything saved, exit code 75, nobody left behind."""

import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_processes import (
    FSDP2,
    SMALL,
    Running,
    Start,
    deepspeed_environment,
    fsdp_on_a_cpu,
    history,
    is_alive,
    run,
    slow_disk,
    weights_digest,
    write_posts,
)


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_posts(tmp_path_factory.mktemp("posts"), "ann")


def arguments(posts: Path, output: Path, *overrides: str) -> list[str]:
    return [
        "user=ann",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
        *SMALL,
        "recipe.dropout=0.1",
        *overrides,
    ]


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-processes"])
def undisturbed(
    request: pytest.FixtureRequest, posts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path]:
    output = tmp_path_factory.mktemp("undisturbed")
    run(arguments(posts, output), request.param, log=output / "log")
    return request.param, output / "ann"


def slow_steps() -> None:
    """Let training last for a few seconds."""
    from huggingtweets.training.parallel import loop

    take = loop.train_step

    def slow_step(*args: object, **options: object) -> object:
        time.sleep(0.03)
        return take(*args, **options)

    loop.train_step = slow_step


QUICK = {("launcher", "begin"), ("group", "data"), ("one-rank", "step"), ("group", "save")}
"""Of the whole matrix, what the default suite tries."""


def wait_for_steps(running: Running, job: Path) -> None:
    """Wait until training is under way."""
    wait_for(running, job / "metrics.jsonl")
    while not (job / "metrics.jsonl").read_text().count("loss"):
        assert running.is_running(), running.words()
        time.sleep(0.005)


def wait_for(running: Running, what: Path) -> None:
    while not what.exists():
        assert running.is_running(), running.words()
        time.sleep(0.005)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("target", "phase"),
    [
        pytest.param(target, phase, marks=[] if (target, phase) in QUICK else pytest.mark.slow)
        for target in ("launcher", "one-rank", "group")
        for phase in ("begin", "data", "step", "save")
    ],
)
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=lambda number: number.name,
)
def test_a_stopped_job_goes_on_as_if_nothing_had_happened(
    undisturbed: tuple[int, Path],
    posts: Path,
    tmp_path: Path,
    number: signal.Signals,
    target: str,
    phase: str,
) -> None:
    world, reference = undisturbed
    if world == 1 and target == "group":
        pytest.skip("the one rank is the group")
    job, log = tmp_path / "ann", tmp_path / "log"
    options = [] if phase != "save" else ["engine.save_every_s=0.05"]
    running = Running(
        Start(
            arguments(posts, tmp_path, *options),
            world,
            prepare=slow_steps if phase != "save" else slow_disk,
            log=log,
        )
    )
    awaited = {"begin": job / ".lock", "data": job / "config.yaml", "step": job / "metrics.jsonl"}
    wait_for(running, awaited.get(phase, job / "checkpoints"))
    if phase == "step":
        wait_for_steps(running, job)
    targets = {
        "launcher": [running.launcher],
        "one-rank": [random.Random(phase).choice(running.ranks)],
        "group": [*running.ranks, *([running.launcher] if world > 1 else [])],
    }[target]
    for pid in targets:
        running.kill(pid, number)
    started = time.monotonic()
    code = running.wait(60)
    assert code == 75, running.words()
    assert not any(is_alive(pid) for pid in running.ranks)
    assert time.monotonic() - started < 60
    checkpoints = sorted((job / "checkpoints").glob("step-*"))
    if phase == "step":
        assert len(checkpoints) == 1, "one save"
    assert not list((job / "checkpoints").glob(".*"))
    assert "Traceback" not in running.words()
    run(arguments(posts, tmp_path), world, log=log)
    if checkpoints:
        assert f"resume at step={int(checkpoints[-1].name[5:])}" in log.read_text()
    assert weights_digest(job) == weights_digest(reference)
    assert history(job) == history(reference)


@pytest.mark.distributed
@pytest.mark.parametrize(
    "worlds", [(1, 2), pytest.param((2, 1), marks=pytest.mark.slow)], ids=["1-to-2", "2-to-1"]
)
def test_a_job_goes_on_with_another_number_of_processes(
    posts: Path, tmp_path: Path, worlds: tuple[int, int]
) -> None:
    options = arguments(posts, tmp_path, "recipe.dropout=0.0")
    plain = tmp_path / "plain"
    plain.mkdir()
    run([*options, f"output_dir={plain}"], worlds[1], log=plain / "log")
    job, log = tmp_path / "ann", tmp_path / "log"
    running = Running(Start(options, worlds[0], prepare=slow_steps, log=log))
    wait_for_steps(running, job)
    running.kill(running.ranks[0], signal.SIGTERM)
    assert running.wait(60) == 75, running.words()
    run(options, worlds[1], log=log)
    assert "equal within rounding, not bit by bit" in log.read_text()
    ours, theirs = history(job), history(plain / "ann")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for our, their in zip(ours, theirs, strict=True):
        for key in our.keys() & {"loss", "eval_loss"}:
            assert our[key] == pytest.approx(their[key], abs=2e-5)


@pytest.mark.distributed
def test_a_second_start_is_refused_while_the_first_lives(posts: Path, tmp_path: Path) -> None:
    job = tmp_path / "ann"
    first = Running(
        Start(arguments(posts, tmp_path), prepare=slow_steps, log=tmp_path / "first.log")
    )
    wait_for(first, job / "metrics.jsonl")
    second = Running(Start(arguments(posts, tmp_path), log=tmp_path / "second.log"))
    assert second.wait(60) == 1
    assert f"process {first.ranks[0]} on" in second.words()
    assert "got a second start of this job" in second.words()
    assert first.wait() == 0, first.words()
    assert (job / "result.json").exists()


def test_a_checkpoint_of_other_data_is_refused(posts: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = Running(Start(arguments(posts, tmp_path), prepare=slow_steps, log=log))
    job = tmp_path / "ann"
    wait_for_steps(running, job)
    running.kill(running.ranks[0], signal.SIGTERM)
    assert running.wait(60) == 75, running.words()
    (job / "tweets.jsonl.gz").unlink()
    write_posts(tmp_path / "others", "ann", num=61)
    other = posts.rename(posts.with_name("aside"))
    (tmp_path / "others").rename(posts)
    try:
        again = Running(Start(arguments(posts, tmp_path), log=log))
        assert again.wait(60) == 1
    finally:
        posts.rename(tmp_path / "others")
        other.rename(posts)
    assert "got a checkpoint of another training (data:" in again.words()


def before_micro_batches(disturb: Callable[[int], float], *, everywhere: bool = False) -> None:
    """Call a function with the blocks of each micro-batch in training; scale the loss by it.

    Whether transformers' modules or our own pass trains; in the last rank alone, if not everywhere.
    """
    from huggingtweets.training.modules.loss import SummedLoss
    from huggingtweets.training.parallel.rows import RowModel

    is_last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
    if not (is_last or everywhere):
        return
    forward, add_gradient = SummedLoss.forward, RowModel.add_gradient

    def disturbed_forward(self: Any, ids: Any, *rest: Any, **options: Any) -> Any:
        times = disturb(len(ids)) if self.training else None
        found = forward(self, ids, *rest, **options)
        return found if times is None else found * times

    def disturbed_gradient(self: Any, blocks: Any, scale: float, training: Any) -> Any:
        times = disturb(len(blocks[0]))
        return add_gradient(self, blocks, scale * times, training) * times

    SummedLoss.forward, RowModel.add_gradient = disturbed_forward, disturbed_gradient


def out_of_memory_once() -> None:
    """Fail in the 4th step, and whenever a micro-batch has 4 blocks."""
    import torch

    calls = []

    def scarce(num_blocks: int) -> float:
        calls.append(num_blocks)
        if num_blocks >= 4:
            raise torch.OutOfMemoryError("none left")
        if len(calls) == 4:  # cuBLAS allocates beside PyTorch, and only says so
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return 1.0

    before_micro_batches(scarce)


@pytest.mark.distributed
@pytest.mark.parametrize("world", [1, 2])
def test_out_of_memory_makes_micro_batches_smaller_everywhere(
    posts: Path, tmp_path: Path, world: int
) -> None:
    options = ["recipe.dropout=0.0", "recipe.global_batch_size=8", "engine.log_every=1"]
    for name, prepare in (("plain", None), ("scarce", out_of_memory_once)):
        output = tmp_path / name
        output.mkdir()
        run(arguments(posts, output, *options), world, prepare=prepare, log=output / "log")
    words = (tmp_path / "scarce" / "log").read_text()
    first = 8 // world
    assert f"micro_batch_size={first // 2} instead of {first}" in words
    assert "micro_batch_size=1 instead of 2" in words
    ours, theirs = history(tmp_path / "scarce/ann"), history(tmp_path / "plain/ann")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for our, their in zip(ours, theirs, strict=True):
        for key in our.keys() & {"loss", "grad_norm", "eval_loss"}:
            assert our[key] == pytest.approx(their[key], abs=5e-5)


def room_for_two_blocks() -> None:
    """Fail whenever a micro-batch has more."""
    import torch

    def scarce(num_blocks: int) -> float:
        if num_blocks > 2:
            raise torch.OutOfMemoryError("none left")
        return 1.0

    before_micro_batches(scarce)


@pytest.mark.slow
@pytest.mark.distributed
def test_sharded_processes_without_memory_end_and_begin_anew_with_smaller_micro_batches(
    posts: Path, tmp_path: Path
) -> None:
    """A process that fails amid ZeRO's exchanges cannot tell the others, which wait for it."""
    options = ["recipe.dropout=0.0", "recipe.global_batch_size=8", "engine.log_every=1"]
    zero = deepspeed_environment("zero2")
    output, log = tmp_path / "scarce", tmp_path / "scarce" / "log"
    output.mkdir()
    start = Start(arguments(posts, output, *options), 2, zero, prepare=room_for_two_blocks, log=log)
    first = Running(start)
    assert first.wait() != 0, first.words()
    assert "run the same command again" in first.words()
    assert "engine.micro_batch_size=2" in first.words()
    again = Running(start)
    assert again.wait() == 0, again.words()
    plain = tmp_path / "plain"
    plain.mkdir()
    run(arguments(posts, plain, *options), log=plain / "log")
    ours, theirs = history(output / "ann"), history(plain / "ann")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for our, their in zip(ours, theirs, strict=True):
        for key in our.keys() & {"loss", "eval_loss"}:
            assert our[key] == pytest.approx(their[key], abs=5e-5)


def never_enough() -> None:
    import torch

    def scarce(num_blocks: int) -> float:
        raise torch.OutOfMemoryError("none left")

    before_micro_batches(scarce, everywhere=True)


@pytest.mark.distributed
@pytest.mark.parametrize("world", [1, 2])
def test_one_block_that_does_not_fit_fails_the_job(posts: Path, tmp_path: Path, world: int) -> None:
    log = tmp_path / "log"
    options = ["recipe.heldout_frac=0", "recipe.keep=last"]
    running = Running(
        Start(arguments(posts, tmp_path, *options), world, prepare=never_enough, log=log)
    )
    assert running.wait(60) == 1
    assert "out of memory with a micro-batch of one block" in running.words()
    assert not (tmp_path / "ann" / "model").exists()


def poison() -> None:
    """Make the loss not a number from the 4th step on."""
    calls = []

    def poisoned(num_blocks: int) -> float:
        calls.append(num_blocks)
        return float("nan") if len(calls) > 3 else 1.0

    before_micro_batches(poisoned)


def poisoned_fsdp() -> None:
    fsdp_on_a_cpu()
    poison()


@pytest.mark.distributed
@pytest.mark.parametrize(
    "launch",
    [
        "one",
        "ddp",
        *(pytest.param(f"zero{n}", marks=pytest.mark.slow) for n in (1, 2)),
        "zero3",
        "fsdp2",
    ],
)
def test_a_loss_that_is_not_finite_is_never_published(
    posts: Path, tmp_path: Path, launch: str
) -> None:
    log = tmp_path / "log"
    environment = {"fsdp2": FSDP2, "one": {}, "ddp": {}}.get(launch)
    running = Running(
        Start(
            arguments(posts, tmp_path, "engine.save_every_s=0.01", "recipe.keep=last"),
            1 if launch == "one" else 2,
            environment=deepspeed_environment(launch) if environment is None else environment,
            prepare=poisoned_fsdp if launch == "fsdp2" else poison,
            log=log,
        )
    )
    assert running.wait(120) == 1
    assert "the loss is not finite at step 15" in running.words(), "ten in a row, by whole lines"
    # Before its first step a process of several rehearses one: then the 3rd is the first bad one.
    assert re.search(r"skipped=[23] steps", running.words()), "told in the first line"
    assert not (tmp_path / "ann" / "model").exists()
    assert not (tmp_path / "ann" / "result.json").exists()


@pytest.mark.distributed
def test_a_stopped_rank_ends_the_group(posts: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["engine.hang_after_s=3"]
    running = Running(Start(arguments(posts, tmp_path, *options), 2, prepare=slow_steps, log=log))
    wait_for_steps(running, tmp_path / "ann")
    running.kill(running.ranks[1], signal.SIGSTOP)
    started = time.monotonic()
    assert running.wait(60) != 0
    assert time.monotonic() - started < 30
    assert "watchdog: got no finished step" in running.words()
    run(arguments(posts, tmp_path), 2, log=log)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_told_and_the_last_checkpoint_kept(posts: Path, tmp_path: Path) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)])
    if mount.returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        options = arguments(posts, disk, "engine.save_every_s=0.1")
        running = Running(Start(options, prepare=slow_steps, log=tmp_path / "log"))
        job = disk / "ann"
        while not list(job.glob("checkpoints/step-*")):
            assert running.is_running(), running.words()
            time.sleep(0.005)
        (disk / "filler").write_bytes(bytes(40 << 20))
        assert running.wait(60) == 1
        assert re.search("checkpoints: got .* left on", running.words())
        assert "free some space and run the same command again" in running.words()
        assert list(job.glob("checkpoints/step-*")), "the last good one is kept"
        (disk / "filler").unlink()
        run(options, log=tmp_path / "log")
        assert "resume at step=" in (tmp_path / "log").read_text()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
