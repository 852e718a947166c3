"""The linear layers of K models: each with its own weights, or all with those of one frozen base.

In the second case (LoRA) each model has a low-rank addition of its own. The base's product is then
one large product for all K models, and no gradient of its weights is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
    bias: Tensor
    """(K, out) or (1, out)."""
    adapter: LowRank | None = None
    scale: Tensor | None = None
    """(K,) fp32, of the adapters."""


@dataclass(frozen=True)
class Gradients:
    """Where the gradients of a layer go, fp32: those of weight and bias, or those of adapters."""

    first: Tensor
    second: Tensor


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return (K, R, out) for (K, R, in) and (K, in, out) or (1, in, out)."""
    if len(weight) == len(x):
        return torch.bmm(x, weight)
    return (x.flatten(0, 1) @ weight[0]).view(*x.shape[:2], -1)


def project(x: Tensor, linear: Linear) -> Tensor:
    """Return (K, R, out) for x (K, R, in)."""
    if linear.adapter is None or linear.scale is None:
        return torch.baddbmm(linear.bias.unsqueeze(1), x, linear.weight)
    out = torch.addmm(linear.bias[0], x.flatten(0, 1), linear.weight[0]).view(*x.shape[:2], -1)
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
        add_bias(grad, out.second, accumulate=accumulate)
        return torch.bmm(grad, linear.weight.transpose(1, 2))
    scale = linear.scale.view(-1, 1, 1)
    low = torch.bmm(x, linear.adapter.down).mul_(scale)  # again: it costs less than to keep it
    grad_low = torch.bmm(grad, linear.adapter.up.transpose(1, 2)).mul_(scale)
    put(out.first, torch.bmm(x.transpose(1, 2), grad_low), accumulate=accumulate)
    put(out.second, torch.bmm(low.transpose(1, 2), grad), accumulate=accumulate)
    grad_x = product(grad, linear.weight.transpose(1, 2))
    return grad_x.baddbmm_(grad_low, linear.adapter.down.transpose(1, 2))


def put(target: Tensor, value: Tensor, *, accumulate: bool) -> None:
    """Write a gradient where the optimizer reads it, or add it to what is there.

    Straight from the product (`out=`) would save a pass, but on CPUs PyTorch falls back to one
    product a slot where the result, here a part of each row, is not contiguous.
    """
    if accumulate:
        target.add_(value)
    else:
        target.copy_(value)
