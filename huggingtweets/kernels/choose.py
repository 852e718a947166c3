"""Which of the ways to compute an operator is taken."""

import torch

from huggingtweets.kernels.compiled import compiled_ops
from huggingtweets.ops.dropout import MAX_COLUMNS
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.runtime.device import is_cpu, runs_triton

CPU_MAX_WIDTH = 384
"""Wider models keep a CPU busy one by one. Measured against one at a time by the same arithmetic
(fp32 and bf16, two engines of eight slots, benchmarks/fused_steps.py): 2.6 and 3.4 times the speed
at width 128, 1.3 and 1.5 at 256, 1.13 and 1.18 at 384, 1.04 and 1.02 at 512."""


def choose_ops(
    device: torch.device,
    width: int,
    block_size: int,
    head_width: int = 0,
    triton: tuple[str, ...] = (),
) -> Ops:
    """Return what computes fastest between the products.

    The same whatever else is trained and by how many threads, so that a job's weights are the same.

    Args:
        device: to compute on.
        width: of the stream.
        block_size: T.
        head_width: of a head.
        triton: which kinds of TRITON to take, where it runs.
    """
    if triton and runs_triton(device):
        from huggingtweets.kernels.triton_ops import MAX_HEAD_WIDTH, TritonOps

        is_wide = head_width > MAX_HEAD_WIDTH
        return TritonOps(tuple(name for name in triton if name != "attention" or not is_wide))
    if not is_cpu(device) or width > CPU_MAX_WIDTH or block_size > MAX_COLUMNS:
        return PYTORCH
    return compiled_ops() or PYTORCH
