"""What is said of how a run was launched."""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.schema import Precision
from huggingtweets.training.launch import _tell_of_idle_cores, settle_precision

register()


@pytest.mark.parametrize(
    ("has_gpu", "told", "expected"),
    [
        (False, {"avx2": True}, Precision.fp32),
        (False, {"avx2": True, "avx512_f": True, "avx512_bf16": False}, Precision.fp32),
        (False, {"avx512_bf16": True}, Precision.bf16),
        (False, {"amx_bf16": True}, Precision.bf16),
        (False, {"neon": True, "bf16": True}, Precision.bf16),
        (True, True, Precision.bf16),
        (True, False, Precision.fp16),
    ],
)
def test_auto_is_what_the_device_computes_in(
    has_gpu: bool, told: Any, expected: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: told)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    config = to_config(compose_config(["user=ann"]))
    assert config.engine.precision is Precision.auto
    assert settle_precision(config).engine.precision is expected
    for asked in (Precision.fp32, Precision.bf16, Precision.fp16):
        config = to_config(compose_config(["user=ann", f"engine.precision={asked}"]))
        assert settle_precision(config) == config


@pytest.mark.parametrize(
    ("cores", "threads", "processes", "by_accelerate", "is_said"),
    [
        (8, 1, 1, True, True),
        (8, 8, 1, True, False),
        (1, 1, 1, True, False),
        (8, 1, 4, True, False),
        (8, 1, 1, False, False),
    ],
)
def test_idle_cores_are_told_of(
    cores: int,
    threads: int,
    processes: int,
    by_accelerate: bool,
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND", raising=False)
    if by_accelerate:
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    accelerator: Any = SimpleNamespace(num_processes=processes)
    with caplog.at_level(logging.WARNING):
        _tell_of_idle_cores(accelerator)
    assert ["1 of 8 cores" in text for text in caplog.messages] == ([True] if is_said else [])


def test_mpirun_is_not_waited_for_and_a_grid_may_be_one_of_precisions() -> None:
    """In a process of its own: an Accelerator stays for the life of one."""
    script = (
        "from huggingtweets.training.launch import build_accelerator as build\n"
        "from huggingtweets.config.schema import Precision\n"
        "print('joined', build(Precision.fp32).num_processes)\n"
        "print('then', build(Precision.bf16).mixed_precision)"
    )
    mpi = {"PMI_SIZE": "4", "PMI_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "MPI_LOCALNRANKS": "4"}
    told = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
    environ = {key: value for key, value in os.environ.items() if key not in told}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ | mpi, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert "joined 1\nthen bf16" in done.stdout, done.stderr
