import logging
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from huggingtweets.errors import CheckpointError, LaunchError
from huggingtweets.storage.files import add_fence, remove_fence
from huggingtweets.training.checkpoints import checkpoint as module
from huggingtweets.training.checkpoints.checkpoint import (
    CheckpointState,
    Writer,
    latest_checkpoint,
    open_checkpoint,
    prune,
    save_checkpoint,
)

IDENTITY = {"handles": ["a"], "recipe": {"lr": 1e-4, "epochs": 4}, "betas": (0.9, 0.999)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def state(step: int, size: int = 64) -> CheckpointState:
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(size, generator=generator)
    return CheckpointState(
        step,
        {"model": {"w": weights}, "optimizer": {"exp_avg": weights * 2}},
        {"step": step, "losses": [1.5, step / 7]},
    )


def save(root: Path, step: int, **changes: object) -> None:
    save_checkpoint(root, state(step), Writer(IDENTITY, **changes))


def in_child(act: Callable[[], None], *, before: Callable[[], None]) -> str:
    """Run in a forked child, which may lose rights; returns the words of its CheckpointError."""
    read, write = os.pipe()
    if os.fork() == 0:
        torch.set_num_threads(1)  # a forked OpenMP pool would wait for threads that are not there
        try:
            before()
            act()
            os.write(write, b"no error")
        except CheckpointError as err:
            os.write(write, str(err).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        words = pipe.read()
    os.wait()
    return words


def test_a_checkpoint_comes_back_bit_by_bit(root: Path) -> None:
    tensors = {
        "f32": torch.tensor([1.0, float("nan"), float("inf"), -0.0, 1e-45]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "transposed": torch.randn(4, 6).t(),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    values = {"seconds": 0.1 + 0.2, "text": "\ud800 \u2603", "none": None}
    save_checkpoint(root, CheckpointState(5, {"all": tensors}, values), Writer(IDENTITY))
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert (found.step, found.world_size, found.values()) == (5, 1, values)
    loaded = found.tensors("all")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].shape == tensor.shape
        assert loaded[name].dtype == tensor.dtype
        same = loaded[name].contiguous().view(-1), tensor.detach().contiguous().view(-1)
        assert same[0].view(torch.uint8).equal(same[1].view(torch.uint8)), name


def test_files_are_plain_safetensors(root: Path) -> None:
    save(root, 1)
    loaded = load_file(root / "step-00000001" / "model.safetensors")
    assert loaded["w"].equal(state(1).tensors["model"]["w"])


def test_without_any_checkpoint_there_is_none(root: Path) -> None:
    assert latest_checkpoint(root, IDENTITY) is None


def test_the_newest_is_taken_whatever_the_order_of_writing(root: Path) -> None:
    for step in (9, 100_000_000, 20):
        save(root, step)
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert found.step == 100_000_000


def test_a_later_save_of_a_step_replaces_the_first(root: Path) -> None:
    save(root, 4)
    changed = CheckpointState(4, {"model": {"w": torch.zeros(2)}}, {})
    save_checkpoint(root, changed, Writer(IDENTITY))
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert found.tensors("model")["w"].equal(torch.zeros(2))
    assert [path.name for path in root.iterdir()] == ["step-00000004"]


def test_prune_keeps_the_newest_and_the_quarantined(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(1, 6):
        save(root, step)
    (root / "step-00000005" / "values.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        latest_checkpoint(root, IDENTITY)
    assert "values.json has another length" in caplog.text
    prune(root, keep=2)
    assert sorted(path.name for path in root.iterdir()) == [
        ".damaged-step-00000005-1",
        "step-00000003",
        "step-00000004",
    ]


def test_what_killed_writers_left_is_removed(root: Path) -> None:
    save(root, 1)
    shutil.copytree(root / "step-00000001", root / ".step-00000002.00000001.tmp")
    assert latest_checkpoint(root, IDENTITY) is not None
    assert [path.name for path in root.iterdir()] == ["step-00000001"]


def test_another_recipe_is_refused_with_the_difference(root: Path) -> None:
    save(root, 1)
    other = {**IDENTITY, "recipe": {"lr": 2e-4, "epochs": 4}, "data": "abc"}
    with pytest.raises(CheckpointError) as caught:
        latest_checkpoint(root, other)
    assert "recipe.lr: 0.0001 in the checkpoint, 0.0002 now" in str(caught.value)
    assert "data: None in the checkpoint, 'abc' now" in str(caught.value)
    assert "epochs" not in str(caught.value)
    assert latest_checkpoint(root, IDENTITY) is not None


def test_a_checkpoint_of_a_newer_format_is_not_called_damaged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORMAT", 2)
    save(root, 1)
    with pytest.raises(CheckpointError, match="got a checkpoint of format 2"):
        latest_checkpoint(root, IDENTITY)
    assert (root / "step-00000001").is_dir()


def test_parts_of_several_processes_make_one_checkpoint(root: Path) -> None:
    def write(part: int) -> None:
        share = CheckpointState(7, {"model": {"w": torch.full((2,), float(part))}}, {"part": part})
        save_checkpoint(root, share, Writer(IDENTITY, world_size=3, part=part, num_parts=3))

    threads = [threading.Thread(target=write, args=(part,)) for part in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert found.world_size == found.num_parts == 3
    for part in range(3):
        assert found.tensors("model", part)["w"].tolist() == [part, part]
        assert open_checkpoint(found.folder).values(part) == {"part": part}
    assert len(list(found.folder.iterdir())) == 7


def test_without_all_parts_there_is_no_checkpoint(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(root, 1)
    monkeypatch.setattr(module._await_part, "__defaults__", (0.1,))
    with pytest.raises(CheckpointError, match=r"part-00001\.json: got no part"):
        save(root, 2, num_parts=2)
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert found.step == 1
    assert [path.name for path in root.iterdir()] == ["step-00000001"]


def test_a_writer_that_lost_the_job_publishes_nothing(root: Path) -> None:
    def fence() -> None:
        raise LaunchError("taken over")

    add_fence(root.parent, fence)
    try:
        with pytest.raises(LaunchError, match="taken over"):
            save(root, 1)
    finally:
        remove_fence(root.parent)
    assert list(root.iterdir()) == []


def test_a_checkpoint_that_will_not_fit_is_not_begun(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(root, step)
    monkeypatch.setattr(module, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(CheckpointError, match=r"MiB left on the disk.*step-00000002 is untouched"):
        save(root, 3)
    assert [path.name for path in root.iterdir()] == ["step-00000002"], "older ones make room"


def test_a_write_that_fails_half_way_leaves_the_last_good_one(root: Path) -> None:
    save(root, 1)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = in_child(
        lambda: save_checkpoint(root, state(2, size=10**6), Writer(IDENTITY)), before=limit
    )
    assert "File too large" in words
    assert "step-00000001 is untouched" in words
    assert [path.name for path in root.iterdir()] == ["step-00000001"]


def test_a_full_disk_is_named_and_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        monkeypatch.setattr(module, "_SPARE_BYTES", -(1 << 40))
        root = disk / "checkpoints"
        save(root, 1)
        with pytest.raises(CheckpointError, match=r"No space left on device.*free some space"):
            save_checkpoint(root, state(2, size=10**6), Writer(IDENTITY))
        assert [path.name for path in root.iterdir()] == ["step-00000001"]
        save(root, 3)
        assert latest_checkpoint(root, IDENTITY).step == 3
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_named(root: Path) -> None:
    save(root, 1)
    for folder in (root.parent.parent, root.parent):
        folder.chmod(0o755)
    root.chmod(0o555)

    def lose_rights() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)

    words = in_child(lambda: save(root, 2), before=lose_rights)
    assert "Permission denied" in words
    assert str(root) in words
    assert "output_dir" in words


def test_a_vanished_job_folder_is_named_and_not_made_anew(root: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file or directory"):
        save(root / "gone" / "checkpoints", 1)
    assert not root.exists()
