"""What is said of how a run was launched."""

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from huggingtweets.training.launch import _tell_of_idle_cores


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
