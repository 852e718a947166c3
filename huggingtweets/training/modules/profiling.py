"""`engine.profile=true`: a trace of a few micro-steps, and the operators that cost most."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, schedule

from huggingtweets.runtime.device import has_cuda
from huggingtweets.storage.files import write_text

SKIPPED, ACTIVE = 4, 6
"""Micro-steps before the trace begins, and in it."""
NUM_OPERATORS = 20


@contextmanager
def profiled(module: nn.Module, folder: Path) -> Iterator[None]:
    """Profile the first training micro-steps of a module inside the block.

    Leaves `trace.json` (for chrome://tracing or Perfetto) and `operators.txt` in the folder.
    """
    is_cuda = has_cuda()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * is_cuda

    def write(profiler: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json"))
        order = "self_cuda_time_total" if is_cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=order, row_limit=NUM_OPERATORS)
        write_text(folder / "operators.txt", table + "\n")

    with profile(
        activities=activities,
        schedule=schedule(skip_first=SKIPPED, wait=0, warmup=1, active=ACTIVE, repeat=1),
        on_trace_ready=write,
    ) as profiler:

        def step(module: nn.Module, inputs: Any) -> None:
            if module.training:
                profiler.step()

        hook = module.register_forward_pre_hook(step)
        try:
            yield
        finally:
            hook.remove()
