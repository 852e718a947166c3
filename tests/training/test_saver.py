import threading
import time
from pathlib import Path

import pytest
import torch

from huggingtweets.errors import CheckpointError, LaunchError
from huggingtweets.storage.lock import acquire_lock
from huggingtweets.training.checkpoints import saver as module
from huggingtweets.training.checkpoints.checkpoint import CheckpointState, Writer, latest_checkpoint
from huggingtweets.training.checkpoints.saver import Saver


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def state(step: int, tensor: torch.Tensor) -> CheckpointState:
    return CheckpointState(step, {"model": {"w": tensor}}, {"step": step})


@pytest.mark.parametrize("available", [1 << 40, 0], ids=["background", "no-memory-for-a-copy"])
def test_what_is_saved_is_the_state_of_its_step(
    root: Path, monkeypatch: pytest.MonkeyPatch, available: int
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: available)
    saver = Saver(root, Writer({}), every_s=60)
    weights = torch.zeros(1_000_000)
    for step in range(1, 4):
        weights += 1
        saver.save(state(step, weights))
        weights += 100
        weights -= 100
    weights += 100
    saver.join()
    assert sorted(path.name for path in root.iterdir()) == ["step-00000002", "step-00000003"]
    found = latest_checkpoint(root, {})
    assert found is not None
    assert found.tensors("model")["w"].unique().tolist() == [3.0]


@pytest.mark.parametrize("available", [1 << 40, 0], ids=["background", "no-memory-for-a-copy"])
@pytest.mark.parametrize("is_mended", [True, False])
def test_a_failed_save_is_made_good_by_the_next_or_raises_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, available: int, is_mended: bool
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: available)
    saver = Saver(root / "gone" / "checkpoints", Writer({}), every_s=1e-9)
    saver.save(state(1, torch.zeros(2)))
    while not saver.is_due():
        time.sleep(0.001)
    if is_mended:
        (root / "gone").mkdir(parents=True)
        saver.save(state(2, torch.zeros(2)))
    else:
        with pytest.raises(CheckpointError, match="No such file"):
            saver.save(state(2, torch.zeros(2)))
    saver.join()
    names = [path.name for path in root.glob("gone/checkpoints/*")]
    assert names == (["step-00000002"] if is_mended else [])


def test_a_failed_save_of_a_step_raises_where_that_step_is_saved_again(root: Path) -> None:
    saver = Saver(root / "gone" / "checkpoints", Writer({}), every_s=60)
    saver.save(state(1, torch.zeros(2)))
    with pytest.raises(CheckpointError, match="No such file"):
        saver.save(state(1, torch.zeros(2)))
    saver.join()


def test_a_save_into_a_folder_that_was_taken_over_raises_at_once(tmp_path: Path) -> None:
    root = tmp_path / "job" / "checkpoints"
    with acquire_lock(tmp_path / "job"):
        saver = Saver(root, Writer({}), every_s=60)
        (tmp_path / "job" / ".lock" / "00000002").touch()
        saver.save(state(1, torch.zeros(2)))
        with pytest.raises(LaunchError, match="later start"):
            saver.save(state(2, torch.zeros(2)))
        saver.join()


def test_a_failed_save_raises_at_the_end(root: Path) -> None:
    saver = Saver(root / "gone" / "checkpoints", Writer({}), every_s=60)
    saver.save(state(1, torch.zeros(2)))
    with pytest.raises(CheckpointError, match="No such file"):
        saver.join()


def test_a_step_that_is_on_disk_is_not_written_again(root: Path) -> None:
    saver = Saver(root, Writer({}), every_s=60, step=7)
    saver.save(state(7, torch.zeros(2)))
    saver.join()
    assert not root.exists()


def test_a_save_is_due_after_the_interval(root: Path) -> None:
    now = Saver(root, Writer({}), every_s=1e-9)
    later = Saver(root, Writer({}), every_s=3600)
    assert now.is_due()
    assert not later.is_due()


def test_saves_that_hold_training_up_are_rarer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "available_bytes", lambda: 0)

    def slow_save(*arguments: object) -> None:
        nonlocal now
        now += 6

    monkeypatch.setattr(module, "save_checkpoint", slow_save)
    saver = Saver(root, Writer({}), every_s=120)
    saver.save(state(1, torch.zeros(2)))
    now = 199
    assert not saver.is_due(), "6 s of 199 are more than 3 %"
    now = 201
    assert saver.is_due()


def test_no_save_is_due_while_one_is_under_way(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(module, "save_checkpoint", lambda *arguments: goes_on.wait(20))
    saver = Saver(root, Writer({}), every_s=1e-9)
    saver.save(state(1, torch.zeros(2)))
    assert not saver.is_due()
    goes_on.set()
    saver.join()
