"""The linear layers of K models: each with its own weights, or all with those of one frozen base.

In the second case (LoRA) each model has a low-rank addition of its own. The base's product is then
one large product for all K models, and no gradient of its weights is computed.

With y = x W + b and the loss L, dL/dW = x^T dL/dy, dL/db sums dL/dy over the tokens, and
dL/dx = dL/dy W^T. An adapter adds s (x D) U: dL/dU = s (x D)^T dL/dy, dL/dD = x^T (s dL/dy U^T).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """Additions x @ down @ up * scale to a linear layer of K models, or their gradients."""

    down: Tensor
    """(K, in, rank)."""
    up: Tensor
    """(K, rank, out)."""

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return both."""
        return self.down, self.up

    def map(self, change: Callable[[Tensor], Tensor]) -> "LowRank":
        """Return what a function makes of both."""
        return LowRank(change(self.down), change(self.up))


@dataclass(frozen=True)
class Linear:
    """One linear layer."""

    weight: Tensor
    """(K, in, out), or (1, in, out) and frozen."""
    bias: Tensor | None
    """(K, out) or (1, out)."""
    adapter: LowRank | None = None
    scale: Tensor | None = None
    """(K,) fp32, of the adapters."""


@dataclass(frozen=True)
class Gradients:
    """Where the gradients of a layer go, fp32: those of weight and bias, or those of adapters."""

    first: Tensor
    second: Tensor | None


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return (K, R, out) for (K, R, in) and (K, in, out) or (1, in, out)."""
    if len(weight) == len(x):
        return torch.bmm(x, weight)
    return (x.flatten(0, 1) @ weight[0]).view(*x.shape[:2], -1)


def project(x: Tensor, linear: Linear) -> Tensor:
    """Return (K, R, out) for x (K, R, in)."""
    if linear.adapter is None or linear.scale is None:
        if linear.bias is None:
            return product(x, linear.weight)
        return torch.baddbmm(linear.bias.unsqueeze(1), x, linear.weight)
    out = product(x, linear.weight)
    if linear.bias is not None:
        out += linear.bias.unsqueeze(1)
    low = torch.bmm(x, linear.adapter.down).mul_(linear.scale.view(-1, 1, 1))
    return out.baddbmm_(low, linear.adapter.up)


def project_backward(
    grad: Tensor,
    x: Tensor,
    linear: Linear,
    out: Gradients,
    *,
    accumulate: bool,
    add_bias: Callable[..., None],
) -> Tensor:
    """Put the gradients of the layer's parameters into `out` and return that of x.

    `add_bias` is `Ops.column_sums`.
    """
    if linear.adapter is None or linear.scale is None:
        put(out.first, torch.bmm(x.transpose(1, 2), grad), accumulate=accumulate)
        if out.second is not None:
            add_bias(grad, out.second, accumulate=accumulate)
        return torch.bmm(grad, linear.weight.transpose(1, 2))
    scale = linear.scale.view(-1, 1, 1)
    low = torch.bmm(x, linear.adapter.down).mul_(scale)  # again: it costs less than to keep it
    grad_low = torch.bmm(grad, linear.adapter.up.transpose(1, 2)).mul_(scale)
    put(out.first, torch.bmm(x.transpose(1, 2), grad_low), accumulate=accumulate)
    assert out.second is not None
    put(out.second, torch.bmm(low.transpose(1, 2), grad), accumulate=accumulate)
    grad_x = product(grad, linear.weight.transpose(1, 2))
    return grad_x.baddbmm_(grad_low, linear.adapter.down.transpose(1, 2))


def linear(
    x: Tensor,
    layer: Linear,
    out: Gradients | None,
    *,
    accumulate: bool,
    add_bias: Callable[..., None],
) -> Tensor:
    """Return `project` of x (K, R, in); its backward pass writes the parameters' gradients.

    Args:
        x: differentiable.
        layer: its tensors are no leaves of the graph.
        out: where their gradients go; None: nothing is to be differentiated.
        accumulate: add to what is there.
        add_bias: `Ops.column_sums`.
    """
    if out is None:
        return project(x, layer)
    result: Tensor = _Linear.apply(x, layer, out, accumulate, add_bias)  # type: ignore[no-untyped-call]
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Linear, *rest: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.rest = layer, rest
        return project(x, layer)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (out, accumulate, add_bias) = ctx.saved_tensors, ctx.rest
        grad = grad.contiguous()
        grad_x = project_backward(grad, x, ctx.layer, out, accumulate=accumulate, add_bias=add_bias)
        return grad_x, None, None, None, None


def put(target: Tensor, value: Tensor, *, accumulate: bool) -> None:
    """Write a gradient where the optimizer reads it, or add it to what is there.

    Straight from the product (`out=`) would save a pass, but on CPUs PyTorch falls back to one
    product a slot where the result, here a part of each row, is not contiguous.
    """
    if accumulate:
        target.add_(value)
    else:
        target.copy_(value)
