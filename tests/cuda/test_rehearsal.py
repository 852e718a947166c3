"""The acceptance of a GPU, rehearsed on a CPU: every step ends `ok` or `needs a card`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IN_EVERY_RUN = (
    "versions", "ceilings", "look", "graphs_while_sampling", "failing_capture", "out_of_memory",
    "kernel_times", "fused_steps", "kernels", "single",
)  # fmt: skip


def rehearse(out: Path, *only: str) -> dict[str, str]:
    command = [sys.executable, "benchmarks/gpu_acceptance.py", "--rehearse", "--out", str(out)]
    command += ["--only", *only] if only else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=environment
    )
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return {line["step"]: line["status"] for line in lines}


def test_every_step_that_starts_no_process_can_be_taken(tmp_path: Path) -> None:
    found = rehearse(tmp_path / "out.jsonl", *IN_EVERY_RUN)
    assert tuple(found) == IN_EVERY_RUN
    assert set(found.values()) <= {"ok", "needs a card"}


@pytest.mark.slow
def test_the_whole_acceptance_can_be_rehearsed(tmp_path: Path) -> None:
    found = rehearse(tmp_path / "out.jsonl")
    assert len(found) == len(IN_EVERY_RUN) + 2
    assert set(found.values()) <= {"ok", "needs a card"}
    assert found["end_to_end"] == "ok"
