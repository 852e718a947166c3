"""What a step costs a GPU, counted on fake CUDA tensors of real size, held to a table.

A change may lower the figures of the table; it raises one only by changing the table here.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config

from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.training.stacked.memory import Finishing, choose_batch, need_of

SCRIPT = Path(__file__).parents[2] / "benchmarks/step_budget.py"
GPT2 = layout_of(shape_of(GPT2Config()))
FINISHING = Finishing(GPT2, num_rows=40, num_new=160)

FUSED = {"slots": 20, "blocks": 1, "block_size": 1024}
TWEETS = {"slots": 20, "blocks": 4, "block_size": 256, "isolate": True}
SINGLE = {"engine": "single"}
PYTORCH = {"triton": False}
TABLE: dict[str, tuple[Mapping[str, Any], Mapping[str, float]]] = {
    "joined, dropout": (
        FUSED | {"dropout": 0.1},
        {"launches": 380, "elementwise_gb": 25, "optimizer_gb": 85, "peak_gb": 55},
    ),
    "eight blocks": (
        FUSED | {"slots": 8, "blocks": 8},
        {"launches": 420, "elementwise_gb": 79.5, "optimizer_gb": 34, "peak_gb": 43},
    ),
    "eight blocks, AdamW beside products": (
        FUSED | {"slots": 8, "blocks": 8, "overlap": True},
        {"launches": 785, "elementwise_gb": 79.5, "optimizer_gb": 34, "peak_gb": 32},
    ),
    "isolated, dropout": (
        TWEETS | {"dropout": 0.1},
        {"launches": 385, "elementwise_gb": 25, "optimizer_gb": 85, "peak_gb": 55},
    ),
    "joined": (
        FUSED | {"dropout": 0.0},
        {"launches": 380, "elementwise_gb": 25, "optimizer_gb": 85, "peak_gb": 55},
    ),
    "recomputed": (
        FUSED | {"recompute": True},
        {"launches": 620, "elementwise_gb": 43, "optimizer_gb": 85, "peak_gb": 49},
    ),
    "fp32, no dropout": (
        FUSED | {"dropout": 0.0, "precision": "fp32", "slots": 8},
        {"launches": 370, "elementwise_gb": 16.5, "optimizer_gb": 32, "peak_gb": 24},
    ),
    "by PyTorch, joined, dropout": (
        FUSED | {"dropout": 0.1} | PYTORCH,
        {"launches": 3300, "elementwise_gb": 279, "optimizer_gb": 105, "peak_gb": 65},
    ),
    "by PyTorch, joined": (
        FUSED | {"dropout": 0.0} | PYTORCH,
        {"launches": 1100, "elementwise_gb": 92, "optimizer_gb": 105, "peak_gb": 55},
    ),
    "by PyTorch, isolated, dropout": (
        TWEETS | {"dropout": 0.1} | PYTORCH,
        {"launches": 2040, "elementwise_gb": 192, "optimizer_gb": 105, "peak_gb": 60},
    ),
    "single, bf16, isolated": (
        SINGLE | {"isolate": True},
        {"launches": 1352, "elementwise_gb": 6.5, "optimizer_gb": 5.5, "peak_gb": 2.0},
    ),
    "single, fp16, joined": (
        SINGLE | {"precision": "fp16"},
        {"launches": 1708, "elementwise_gb": 15.3, "optimizer_gb": 5.5, "peak_gb": 3.2},
    ),
}
SLOW = {
    "eight blocks, AdamW beside products",
    "joined",
    "recomputed",
    "fp32, no dropout",
    "by PyTorch, joined",
}
SLOW |= {"by PyTorch, isolated, dropout"}
"""Of the kinds of other rows: in another precision, or with other masks."""
LEAST_MFU = {"joined, dropout": 0.2, "isolated, dropout": 0.2, "eight blocks": 0.35}
LEAST_MFU |= {"eight blocks, AdamW beside products": 0.42}
"""Of an H100's peak, estimated from the counts."""
CARDS = [(gb, recompute) for gb in (24, 40, 80, 141) for recompute in (False, True)]
IN_EVERY_RUN = [(24, True)]


SAMPLED = {"engine": "sampling", "blocks": 40, "block_size": 192}
FINISHED: dict[str, Mapping[str, Any]] = {
    "a model sampled": SAMPLED | {"slots": 1},
    "six sampled": SAMPLED | {"slots": 6},
    "judged, bf16": {"engine": "judging", "blocks": 17, "block_size": 1024},
    "judged, fp32": {"engine": "judging", "blocks": 65, "block_size": 256, "precision": "fp32"},
}
"""Of GPT-2 124M: default prompts and samples; more posts than one forward pass takes."""


def count(cases: list[Mapping[str, Any]]) -> list[dict[str, float]]:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler to build the fake device with")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--cases", json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def counted(request: pytest.FixtureRequest) -> dict[str, dict[str, float]]:
    """The cases of the tests that were chosen, by one process: starting it is the dearest."""
    asked = {item.name.partition("[")[2].rstrip("]") for item in request.session.items}
    cases = {name: case for name, (case, _) in TABLE.items() if name in asked}
    cases |= FINISHED | {_name(one): card(*one, drops=True)[0] for one in IN_EVERY_RUN}
    return dict(zip(cases, count(list(cases.values())), strict=True))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in TABLE]
)
def test_a_step_costs_no_more_than_the_table_says(
    name: str, counted: dict[str, dict[str, float]]
) -> None:
    case = TABLE[name][0]
    if case.get("triton", "engine" not in case) and find_spec("triton") is None:
        pytest.skip("no triton: pip install 'huggingtweets[triton]'")
    print(name, counted[name])
    assert counted[name]["H100"] >= LEAST_MFU.get(name, 0.0)
    for key, most in TABLE[name][1].items():
        assert counted[name][key] <= most, key
        assert counted[name][key] > 0


@pytest.mark.parametrize("name", FINISHED)
def test_sampling_and_judging_take_no_more_than_is_left_for_them(
    name: str, counted: dict[str, dict[str, float]]
) -> None:
    found = counted[name]
    print(name, found)
    assert 0.5 * found["reckoned_gb"] <= found["peak_gb"] <= found["reckoned_gb"]


def card(gb: int, recompute: bool, drops: bool) -> tuple[Mapping[str, Any], int]:
    free = gb * 10**9
    keeps = drops and find_spec("triton") is None  # masks
    slots, blocks = choose_batch(
        need_of(GPT2, torch.bfloat16, block_size=1024, drops=keeps, recompute=recompute),
        num_jobs=1000,
        free_bytes=free,
        global_batch_size=1,
        block_size=1024,
        reserve=FINISHING.reserve(free),
    )
    rate = 0.1 if drops else 0.0
    case = FUSED | {"slots": slots, "blocks": blocks, "dropout": rate, "recompute": recompute}
    return case, free


def _name(one: tuple[int, bool]) -> str:
    return f"{one[0]} GB, {'recomputed' if one[1] else 'kept'}"


def check(case: Mapping[str, Any], free: int, found: dict[str, float]) -> None:
    print(case, found)
    assert found["peak_gb"] <= 1.1 * found["reckoned_gb"]
    assert found["peak_gb"] * 1e9 + FINISHING.reserve(free) <= free
    assert case["slots"] > 2


@pytest.mark.parametrize("one", IN_EVERY_RUN, ids=_name)
def test_the_chosen_slots_fit_the_card(
    one: tuple[int, bool], counted: dict[str, dict[str, float]]
) -> None:
    check(*card(*one, drops=True), counted[_name(one)])


@pytest.mark.slow
@pytest.mark.parametrize("drops", [False, True])
def test_the_chosen_slots_fit_every_card(drops: bool) -> None:
    cases = [card(*one, drops=drops) for one in CARDS]
    for (case, free), found in zip(cases, count([case for case, _ in cases]), strict=True):
        check(case, free, found)
