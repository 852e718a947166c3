"""Layer norm and RMS norm of K models, apart from the residual stream.

With n = (x - mean) / sigma and y = n w + b, and g = dL/dy w: dL/dw sums dL/dy n over the tokens,
dL/db sums dL/dy, and dL/dx = (g - mean(g) - n mean(g n)) / sigma. RMS norm has no mean to subtract
and no bias: n = x / rms(x), dL/dx = (g - n mean(g n)) / rms(x).
"""

import torch
from torch import Tensor

from huggingtweets.ops.reference import Joining, Norm, Ops
from huggingtweets.ops.saved import Saved, differentiable


def norm(x: Tensor, of: Norm, dtype: torch.dtype, ops: Ops) -> Tensor:
    """Return the norm of x (K, R, C) in the precision of the matrix products."""

    def forward(x: Tensor) -> tuple[Tensor, Saved]:
        _, out, saved = ops.add_norm(x, None, Joining(), of, dtype)
        return out, (saved,)

    def backward(saved: Saved, grad_out: Tensor) -> Tensor:
        (of_norm,), grad_out = saved, grad_out.contiguous()
        return ops.add_norm_backward(None, grad_out, of_norm, Joining(), of, None)[0]

    result: Tensor = differentiable(forward, backward, x)
    return result
