"""A thousand ways to damage the newest checkpoint: each is noticed, each falls back."""

import random
from pathlib import Path

import pytest
import torch

from huggingtweets.training.checkpoints.checkpoint import (
    CheckpointState,
    Writer,
    latest_checkpoint,
    save_checkpoint,
)
from huggingtweets.training.checkpoints.checkpoint_files import DamagedError, read_manifest

IDENTITY = {"handles": ["a", "b"], "recipe": {"lr": 1.372e-4, "schedule": "cosine"}}
FILES = ("model.safetensors", "optimizer.safetensors", "values.json", "manifest.json")
KINDS = ("flip", "cut", "zero tail", "zero one", "grow", "missing", "empty")


def save(root: Path, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(40, generator=generator)
    tensors = {"model": {"w": weights}, "optimizer": {"m": weights / 3}}
    save_checkpoint(root, CheckpointState(step, tensors, {"step": step}), Writer(IDENTITY))


def damage(path: Path, kind: str, rng: random.Random) -> bool:
    """Change a file; false where this kind of damage changes nothing."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    before = bytes(data)
    match kind:
        case "flip":
            data[place] ^= 1 << rng.randrange(8)
        case "cut":
            del data[place:]
        case "zero tail":
            data[place:] = bytes(len(data) - place)
        case "zero one":
            data[place] = 0
        case "grow":
            data += b"\n"
        case "empty":
            data.clear()
        case "missing":
            path.unlink()
            return True
    path.write_bytes(data)
    return bytes(data) != before


def test_every_damage_to_the_newest_is_noticed(tmp_path: Path) -> None:
    rng = random.Random(0)
    root = tmp_path / "checkpoints"
    save(root, 1)
    save(root, 2)
    newest, quarantine = root / "step-00000002", root / ".damaged-step-00000002-1"
    mutations = 0
    while mutations < 1000:
        name, kind = rng.choice(FILES), rng.choice(KINDS)
        data = (newest / name).read_bytes()
        if damage(newest / name, kind, rng):
            mutations += 1
            found = latest_checkpoint(root, IDENTITY)
            assert found is not None, (name, kind)
            assert found.step == 1, (name, kind)
            quarantine.rename(newest)
        (newest / name).write_bytes(data)
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert found.step == 2, "undamaged it is taken"


def test_a_flipped_bit_in_any_byte_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = tmp_path / "step-00000001"
    path = folder / "manifest.json"
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            read_manifest(folder)


def test_the_newest_that_is_whole_is_found_below_several_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "checkpoints"
    for step in (1, 2, 3, 4):
        save(root, step)
    (root / "step-00000004" / "manifest.json").unlink()
    (root / "step-00000003" / "model.safetensors").write_bytes(b"")
    found = latest_checkpoint(root, IDENTITY)
    assert found is not None
    assert found.step == 2
    assert len([record for record in caplog.records if "damaged" in record.message]) == 2
