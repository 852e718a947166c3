import time

import torch

from huggingtweets.training.meter import command_began, peak_memory_gib


def test_command_began_before_this_test_and_after_the_machine() -> None:
    now = time.monotonic()
    assert now - 24 * 3600 < command_began() < now
    assert abs(command_began() - command_began()) < 0.1


def test_peak_memory_of_a_cpu_is_that_of_the_process() -> None:
    before = peak_memory_gib(torch.device("cpu"))
    held = torch.ones(2**28)  # 1 GiB
    assert peak_memory_gib(torch.device("cpu")) >= max(before, 1.0)
    del held
