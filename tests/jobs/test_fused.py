"""The many-user runner: the same models as one by one, whatever stands beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small import ROOT, SMALL_MODEL

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.jobs.ledger import JobStatus
from huggingtweets.jobs.status import read_states

HANDLES = ("demo", "captain_biscuit", "gran_turbo", "count_decaf")
QUICK = (
    *SMALL_MODEL,
    "engine.precision=fp32",
    "recipe.block_size=64",
    "recipe.max_steps=4",
    "recipe.lr=1e-3",
    "recipe.dropout=0",
    "sampling.num=1",
    "sampling.max_new_tokens=12",
)
HEAVY = ("transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor", "sympy")


def run_batch(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (cwd / "users.txt").write_text("".join(f"{handle}\n" for handle in (*HANDLES, "nobody")))
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "user=file:users.txt", *QUICK, *arguments],
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},  # what is imported stands in its errors
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Output folders of one batch by either engine; `nobody` is no demo person."""
    cwd = tmp_path_factory.mktemp("batches")
    register()
    find_base(to_config(compose_config(["user=demo", *QUICK])).model)  # made by transformers, once
    for engine, slots in (("single", 1), ("fused", 3)):
        result = run_batch(cwd, f"engine={engine}", f"engine.slots={slots}", f"output_dir={engine}")
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        # Seconds of imports: neither training nor sampling a family of ours asks for any of it.
        assert not [one for one in HEAVY if f" {one}\n" in result.stderr], engine
    return {engine: cwd / engine for engine in ("single", "fused")}


def test_fused_models_equal_those_of_the_single_engine(batches: dict[str, Path]) -> None:
    for handle in HANDLES:
        single, fused = (
            load_file(batches[engine] / handle / "model" / "model.safetensors")
            for engine in ("single", "fused")
        )
        assert single.keys() == fused.keys()
        for name, weights in single.items():
            # Adam turns rounding of near-zero gradients into steps: 4 steps of at most lr=1e-3.
            assert (weights - fused[name]).abs().max() < 2e-4, (handle, name)


def test_fused_results_equal_those_of_the_single_engine(batches: dict[str, Path]) -> None:
    for handle in HANDLES:
        single, fused = (
            json.loads((batches[engine] / handle / "result.json").read_text())
            for engine in ("single", "fused")
        )
        assert fused["engine"] == "fused"
        for key in ("digest", "tweets", "data"):
            assert single[key] == fused[key]
        assert single["train"]["steps"] == fused["train"]["steps"] == 4
        assert fused["eval"]["loss"] == pytest.approx(single["eval"]["loss"], rel=1e-4)
        ours, theirs = (evaluations(batches[engine] / handle) for engine in ("single", "fused"))
        assert [line.keys() for line in ours] == [line.keys() for line in theirs]
        assert "eval_train_prefix_out" in ours[-1]
        for key in ours[-1]:
            # A token that is likeliest by a hair may differ.
            assert ours[-1][key] == pytest.approx(theirs[-1][key], rel=1e-4, abs=0.01)


def evaluations(job: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "eval_loss" in line]


def test_a_user_who_is_not_there_fails_alone(batches: dict[str, Path]) -> None:
    for folder in batches.values():
        states = read_states(folder)
        assert states.pop("nobody").status is JobStatus.failed
        assert {state.status for state in states.values()} == {JobStatus.done}
        assert set(states) == set(HANDLES)
