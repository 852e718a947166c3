"""How a branch leaves the residual stream of K models and comes back to it.

Out: norm, then a linear layer. In: a linear layer, dropout, then the sum. Each is one function, so
that the branch's gradient is added to the stream's in the pass that computes it, and because a
function of autograd costs 25 to 70 microseconds: 44 of them were 3 % of a step at width 128.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.linear import Gradients, Linear, project, project_backward
from huggingtweets.ops.norm import Norm, norm_backward, norm_forward
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import Saved


@dataclass(frozen=True)
class Projection:
    """A linear layer and where the gradients of its parameters go."""

    layer: Linear
    out: Gradients | None
    """None: nothing is to be differentiated."""
    accumulate: bool
    """Add to what is there."""

    def backward(self, grad: Tensor, x: Tensor, add_bias: Callable[..., None]) -> Tensor:
        """Write the parameters' gradients and return that of the input."""
        assert self.out is not None
        return project_backward(
            grad, x, self.layer, self.out, accumulate=self.accumulate, add_bias=add_bias
        )


def branch_out(x: Tensor, norm: Norm, to: Projection, ops: Ops) -> tuple[Tensor, Tensor]:
    """Return the stream x (K, R, C) itself, to go on with, and norm(x) W + b."""
    if to.out is None:
        return x, project(norm_forward(x, norm, to.layer.weight.dtype, ops)[0], to.layer)
    found: tuple[Tensor, Tensor] = _BranchOut.apply(x, norm, to, ops)  # type: ignore[no-untyped-call]
    return found


def join(x: Tensor, h: Tensor, by: Projection, site: ScaledSite | None, ops: Ops) -> Tensor:
    """Add h W + b, with elements dropped, to the stream x, in place; return the stream."""
    if by.out is None:
        ops.add_dropped(x, project(h, by.layer), ops.noise(site, x))
        return x
    result: Tensor = _Join.apply(x, h, by, site, ops)  # type: ignore[no-untyped-call]
    return result


class _BranchOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm, to: Projection, ops: Ops) -> tuple[Tensor, Tensor]:
        normed, saved = norm_forward(x, norm, to.layer.weight.dtype, ops)
        ctx.save_for_backward(normed, *saved)
        ctx.rest = norm, to, ops
        ctx.mark_dirty(x)  # or x would come out as a view, which nothing may be added to in place
        return x, project(normed, to.layer)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        normed, *saved = ctx.saved_tensors
        norm, to, ops = ctx.rest
        grad_normed = to.backward(grad_out.contiguous(), normed, ops.column_sums)
        # In place: all else that reads the stream's gradient is the branch's own backward pass,
        # and that is over, as it ended with `grad_out`.
        grad = norm_backward(grad_normed, tuple(saved), norm, ops, grad=grad.contiguous())
        return grad, None, None, None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, by: Projection, site: ScaledSite | None, ops: Ops
    ) -> Tensor:
        noise: Saved = ops.noise(site, x)
        is_mask = isinstance(noise, Tensor)  # else what it is made from again
        ctx.save_for_backward(h, noise if is_mask else None)
        ctx.rest = by, ops, None if is_mask else noise
        ops.add_dropped(x, project(h, by.layer), noise)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, mask = ctx.saved_tensors
        by, ops, noise = ctx.rest
        grad = grad.contiguous()
        dropped = ops.drop(grad, noise if mask is None else mask, h.dtype)
        return grad, by.backward(dropped, h, ops.column_sums), None, None, None
