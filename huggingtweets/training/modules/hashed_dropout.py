"""Dropout whose mask is hashed from a key: on a CPU a tenth of what `bernoulli_` costs.

The key is drawn from PyTorch's generator, so masks are functions of its seed and recomputing a
layer gives the same one.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from huggingtweets.ops.dropout import keep_mask, thresholds_and_scales
from huggingtweets.runtime.device import is_cpu


def draw_keys(num: int) -> Tensor:
    """Return (num, 2) int32 keys from PyTorch's generator for the CPU."""
    return torch.randint(-(2**31), 2**31 - 1, (num, 2), dtype=torch.int32)


def threshold_and_scale(rate: float) -> tuple[Tensor, float]:
    """Return what `keep_mask` compares with, as (1,), and what makes up for what is dropped."""
    thresholds, scales = thresholds_and_scales(np.array([rate]))
    return thresholds, float(scales)


class HashedDropout(nn.Module):
    """`nn.Dropout`, quick on a CPU; elsewhere the same as it."""

    def __init__(self, rate: float) -> None:
        """Drop each element with this probability, to one in 65,536."""
        super().__init__()
        self.p = rate
        self._threshold, self._scale = threshold_and_scale(rate)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., rows, columns) with elements dropped while training."""
        if not self.training or self.p == 0.0:
            return x
        if not is_cpu(x.device) or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        dropped: Tensor = _Drop.apply(x, self._threshold, self._scale)  # type: ignore[no-untyped-call]
        return dropped


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, scale: float) -> Tensor:
        rows, columns = x.shape[-2:]
        num = x.numel() // (rows * columns)
        thresholds = threshold.expand(num)
        mask = keep_mask(draw_keys(num), thresholds, range(rows), range(columns), dtype=x.dtype)
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x * mask.view(x.shape)).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (grad * mask.view(grad.shape)).mul_(ctx.scale), None, None
