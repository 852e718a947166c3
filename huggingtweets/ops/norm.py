"""Layer norm and RMS norm of the residual stream of K models.

With n = (x - mean) / sigma and y = n w + b, and g = dL/dy w: dL/dw sums dL/dy n over the tokens,
dL/db sums dL/dy, and dL/dx = (g - mean(g) - n mean(g n)) / sigma. RMS norm has no mean to subtract
and no bias: n = x / rms(x), dL/dx = (g - n mean(g n)) / rms(x).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.linear import Gradients
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import Saved


@dataclass(frozen=True)
class Norm:
    """One norm of K models."""

    weight: Tensor
    """(K, C), or (1, C) and frozen; of the precision of the stream."""
    bias: Tensor | None
    """Likewise; None: an RMS norm."""
    eps: float
    out: Gradients | None = None
    """Where the gradients of weight and bias go; None: nowhere."""
    accumulate: bool = False
    """Add to what is there."""


def norm(x: Tensor, of: Norm, dtype: torch.dtype, ops: Ops) -> Tensor:
    """Return the norm of x (K, R, C) in the precision of the matrix products."""
    if not torch.is_grad_enabled():
        return norm_forward(x, of, dtype, ops)[0]
    result: Tensor = _Norm.apply(x, of, dtype, ops)  # type: ignore[no-untyped-call]
    return result


def norm_forward(x: Tensor, of: Norm, dtype: torch.dtype, ops: Ops) -> tuple[Tensor, Saved]:
    """Return the norm, and what its backward pass needs."""
    if of.bias is None:
        return ops.rms_norm(x, of.weight, eps=of.eps, dtype=dtype)
    return ops.norm(x, of.weight, of.bias, eps=of.eps, dtype=dtype)


def norm_backward(
    grad_out: Tensor, saved: Saved, of: Norm, ops: Ops, *, grad: Tensor | None = None
) -> Tensor:
    """Write the gradients of weight and bias; return that of x, or add it to `grad` in place."""
    backward = ops.rms_norm_backward if of.bias is None else ops.norm_backward
    return backward(grad_out, saved, of.weight, of.out, accumulate=of.accumulate, grad=grad)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, of: Norm, dtype: torch.dtype, ops: Ops) -> Tensor:
        out, saved = norm_forward(x, of, dtype, ops)
        ctx.save_for_backward(*saved)
        ctx.of, ctx.ops = of, ops
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        grad = norm_backward(grad_out.contiguous(), ctx.saved_tensors, ctx.of, ctx.ops)
        return grad, None, None, None
