"""Triton's kernels without a GPU: interpreted beside the reference, and compiled ahead of time."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="no triton: pip install 'huggingtweets[triton]'"
)
TABLE = Path(__file__).parents[2] / "benchmarks/triton_table.py"


def run(*arguments: str, **variables: str) -> str:
    # Said by Triton 3.9 with a warning where it is not set; for PTX it means what it always did.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        env=environment | variables,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_equal_the_reference(marked: str) -> None:
    file = str(Path(__file__).with_name("interpreted.py"))
    print(run("-m", "pytest", "-q", "-x", "-m", marked, file, TRITON_INTERPRET="1"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--models", "gpt2", "--dtypes", "bf16", "--cards", "80", "--kernels", "attention_keys"),
        pytest.param(("--models", "gpt2", "smollm2"), marks=pytest.mark.slow),
        pytest.param(("--models", "qwen3", "--kernels", "attention"), marks=pytest.mark.slow),
    ],
    ids=["one", "all", "heads of 128"],
)
def test_kernels_compile_without_spills(arguments: tuple[str, ...]) -> None:
    lines = [json.loads(line) for line in run(str(TABLE), *arguments).splitlines()]
    print(*lines, sep="\n")
    assert lines
    assert [line for line in lines if line["spilt"]] == []
    # What a multiprocessor has: of an A100 163 KiB, of an H100 and a B200 227.
    assert all(line["shared"] <= (163 if line["card"] == 80 else 227) * 1024 for line in lines)
