"""Layer norm and RMS norm of K models, apart from the residual stream.

With n = (x - mean) / sigma and y = n w + b, and g = dL/dy w: dL/dw sums dL/dy n over the tokens,
dL/db sums dL/dy, and dL/dx = (g - mean(g) - n mean(g n)) / sigma. RMS norm has no mean to subtract
and no bias: n = x / rms(x), dL/dx = (g - n mean(g n)) / rms(x).
"""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.reference import Joining, Norm, Ops
from huggingtweets.ops.saved import keep, kept


def norm(x: Tensor, of: Norm, dtype: torch.dtype, ops: Ops) -> Tensor:
    """Return the norm of x (K, R, C) in the precision of the matrix products."""
    if not torch.is_grad_enabled():
        return ops.add_norm(x, None, Joining(), of, dtype)[1]
    result: Tensor = _Norm.apply(x, of, dtype, ops)  # type: ignore[no-untyped-call]
    return result


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, of: Norm, dtype: torch.dtype, ops: Ops) -> Tensor:
        _, out, saved = ops.add_norm(x, None, Joining(), of, dtype)
        keep(ctx, saved)
        ctx.of, ctx.ops = of, ops
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        grad_out = grad_out.contiguous()
        grad, _ = ctx.ops.add_norm_backward(None, grad_out, *kept(ctx), Joining(), ctx.of, None)
        return grad, None, None, None
