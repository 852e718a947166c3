"""SIGKILL at random instants of a process that does nothing but save: nothing is ever lost."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from huggingtweets.storage.lock import acquire_lock
from huggingtweets.training.checkpoints import checkpoint_files
from huggingtweets.training.checkpoints.checkpoint import CheckpointState, Writer, latest_checkpoint
from huggingtweets.training.checkpoints.saver import Saver

IDENTITY = {"handles": ["a"]}


def weights(step: int) -> torch.Tensor:
    return torch.arange(500, dtype=torch.float32) * step


def save_for_ever(job: Path, acknowledge: int) -> None:
    """What a training does, with a slow disk; reports each step that is safe."""
    sync = os.fsync

    def slow_fsync(fd: int) -> None:
        time.sleep(0.002)
        sync(fd)

    os.fsync = slow_fsync
    checkpoint_files.CHUNK_BYTES = 512
    lock = acquire_lock(job)
    root = job / "checkpoints"
    found = latest_checkpoint(root, IDENTITY)
    step = found.step if found else 0
    saver = Saver(
        root,
        Writer(IDENTITY, generation=lock.generation),
        every_s=60,
        step=step,
    )
    while True:
        state = CheckpointState(step + 1, {"model": {"w": weights(step + 1)}}, {"step": step + 1})
        saver.save(state)
        saver._finish()
        step += 1
        os.write(acknowledge, step.to_bytes(8, "little"))


def kill_once(job: Path, delay_s: float) -> int:
    """Start a saver, kill it, and return the last step it called safe (0: none)."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # a forked OpenMP pool would wait for threads that are not there
        try:
            save_for_ever(job, write)
        finally:
            os._exit(1)
    os.close(write)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the saver ended by itself"
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    return int.from_bytes(data[-8:], "little")


@pytest.mark.parametrize(
    "kills", [60, pytest.param(1000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_killed_saver_loses_nothing(tmp_path: Path, kills: int) -> None:
    rng = random.Random(kills)
    safe, mid_write = 0, 0
    for _ in range(kills):
        safe = max(safe, kill_once(tmp_path, rng.uniform(0.01, 0.12)))
        root = tmp_path / "checkpoints"
        mid_write += any(root.glob(".step-*.tmp/*"))
        found = latest_checkpoint(root, IDENTITY)
        step = found.step if found else 0
        assert step in (safe, safe + 1), "at most the one save that was not yet called safe"
        safe = step
        if found:
            assert found.tensors("model")["w"].equal(weights(step))
            assert found.values() == {"step": step}
    assert safe > kills / 4, "the savers did get on"
    assert mid_write >= kills / 4
    assert not list((tmp_path / "checkpoints").glob(".damaged*"))
