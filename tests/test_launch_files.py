"""Each launch file is what its head says, and leaves to the recipe what the recipe owns."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "launch").glob("*.yaml"))
ZERO = [name for name in NAMES if name.startswith("zero")]

OURS = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16.enabled",
    "fp16.enabled",
}
"""What the training code fills in from recipe and engine."""


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def leaves(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def test_every_hardware_shape_has_a_file() -> None:
    assert set(NAMES) == {
        "cpu",
        "single_gpu",
        "multi_gpu",
        "multi_node",
        "zero1",
        "zero2",
        "zero3",
        "zero3_offload",
        "fsdp2",
    }
    assert sorted(path.stem for path in (ROOT / "launch/deepspeed").iterdir()) == ZERO


@pytest.mark.parametrize("name", NAMES)
def test_the_head_says_what_for_and_how(name: str) -> None:
    head = [
        line
        for line in (ROOT / f"launch/{name}.yaml").read_text().splitlines()
        if line.startswith("#")
    ]
    assert f"accelerate launch --config_file launch/{name}.yaml" in " ".join(head)
    assert "train.py" in " ".join(head)
    assert len(head) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_reads_the_file_as_meant(name: str) -> None:
    parser = launch_command_parser()
    arguments = parser.parse_args(["--config_file", f"launch/{name}.yaml", "train.py"])
    args, defaults, is_precision_of_file = _validate_launch_command(arguments)
    chosen = {key for key in ("multi_gpu", "use_deepspeed", "use_fsdp") if getattr(args, key)}
    expected = {"multi_gpu": "multi_gpu", "multi_node": "multi_gpu", "fsdp2": "use_fsdp"}
    expected |= dict.fromkeys(ZERO, "use_deepspeed")
    assert chosen == ({expected[name]} if name in expected else set())
    assert args.use_cpu == (name == "cpu")
    assert (args.num_machines > 1) == (name == "multi_node")
    assert args.num_processes > 1 if chosen else args.num_processes == 1
    assert defaults is not None
    assert not is_precision_of_file
    if name == "fsdp2":
        assert args.fsdp_version == 2
    if name in ZERO:
        assert Path(args.deepspeed_config_file) == Path(f"launch/deepspeed/{name}.json")
        assert args.deepspeed_multinode_launcher == "standard"


@pytest.mark.parametrize("name", NAMES)
def test_files_leave_results_to_the_recipe(name: str) -> None:
    config = load_config_from_file(f"launch/{name}.yaml")
    assert config.mixed_precision is None
    assert config.dynamo_config == {}
    keys = leaves(yaml.safe_load((ROOT / f"launch/{name}.yaml").read_text()))
    for word in ("precision", "batch", "accumulation", "clipping", "seed"):
        assert not [key for key in keys if word in key]


@pytest.mark.parametrize("name", ZERO)
def test_deepspeed_files_are_auto_where_the_recipe_owns_the_value(name: str) -> None:
    config = leaves(json.loads((ROOT / f"launch/deepspeed/{name}.json").read_text()))
    assert {key for key, value in config.items() if value == "auto"} == OURS
    assert not [key for key in config if key.startswith(("optimizer", "scheduler"))]
    assert f"zero{config['zero_optimization.stage']}" == name.removesuffix("_offload")
    offloads = [key for key in config if "offload" in key]
    assert bool(offloads) == name.endswith("_offload")


@pytest.mark.parametrize("name", ZERO)
def test_deepspeed_knows_every_key(name: str) -> None:
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = json.loads((ROOT / f"launch/deepspeed/{name}.json").read_text())
    assert DeepSpeedZeroConfig(**config["zero_optimization"]).stage == int(name[4])
