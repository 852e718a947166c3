"""The sweep file for W&B's agents: the command line that an agent builds starts what it should."""

import re
from pathlib import Path

import pytest
import yaml
from job_processes import SMALL, run

from huggingtweets.config.compose import check_arguments, compose_config, register, to_config
from huggingtweets.config.overrides import CONFIG_DIR
from huggingtweets.sweep.plan import plan_sweep
from huggingtweets.sweep.space import Choices, Range
from huggingtweets.sweep.spec import read_spec

register()
FILE = CONFIG_DIR / "sweep" / "wandb.yaml"


def agent_command(values: dict[str, object]) -> list[str]:
    """What `wandb agent` runs for a draw, by W&B's own code."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    entry = {"args": {key: {"value": value} for key, value in values.items()}}
    arguments = create_sweep_command_args(entry)
    words: list[str] = []
    for part in create_sweep_command(yaml.safe_load(FILE.read_text())["command"]):
        match = re.fullmatch(r"\$\{(\w+)\}", part)
        words += arguments[match[1]] if match else [part]
    return words


def drawn(**changes: object) -> dict[str, object]:
    """One draw from the space, and the fixed values."""
    found: dict[str, object] = {}
    for key, entry in yaml.safe_load(FILE.read_text())["parameters"].items():
        if "value" in entry:
            found[key] = entry["value"]
        elif "values" in entry:
            found[key] = entry["values"][-1]
        else:
            found[key] = entry["max"]
    return found | changes


def test_the_agents_command_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    command = agent_command(drawn())
    assert command[:3] == ["accelerate", "launch", "train.py"]
    check_arguments(command[3:])
    config = to_config(compose_config(command[3:]))
    assert config.output_dir == "output/sweep-wandb/abc123"
    assert config.recipe.lr == 2.479e-3
    assert config.recipe.epochs == 10
    assert config.tracking.kind == "wandb"


def test_it_is_the_same_space_as_ours() -> None:
    path = CONFIG_DIR / "sweep" / "huggingtweets.yaml"
    ours = plan_sweep(read_spec(path, ["user=demo"]), path).spec.space
    theirs = yaml.safe_load(FILE.read_text())["parameters"]
    assert {key for key, entry in theirs.items() if "value" not in entry} == set(ours)
    for key, dimension in ours.items():
        match dimension:
            case Choices(values):
                assert theirs[key]["values"] == list(values)
            case Range():
                assert (theirs[key]["min"], theirs[key]["max"]) == (dimension.low, dimension.high)
                kind = "log_uniform_values" if dimension.is_log else "int_uniform"
                assert theirs[key]["distribution"] == kind


def test_an_agents_trial_is_one_run_under_the_agents_name(tmp_path: Path) -> None:
    own = {"output_dir": str(tmp_path / "out"), "recipe.epochs": 1, "recipe": "tweets"}
    arguments = agent_command(drawn(**own))[3:]
    small = [word for word in SMALL if not word.startswith("tracking=")]
    environment = {"WANDB_RUN_ID": "abc123", "WANDB_SWEEP_ID": "sweep1", "WANDB_MODE": "offline"}
    run([*arguments, *small, "recipe.max_steps=2"], environment=environment)
    runs = list((tmp_path / "out" / "demo" / "wandb").glob("offline-run-*"))
    assert [re.sub(r".*-", "", one.name) for one in runs] == ["abc123"]
    assert b"@demo-train" in next(runs[0].glob("*.wandb")).read_bytes()
