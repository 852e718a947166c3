"""The linear layers of K models: each with its own weights, or all with those of one frozen base.

In the second case (LoRA) each model has a low-rank addition of its own. The base's product is then
one large product for all K models, and no gradient of its weights is computed.

With y = x W + b and the loss L, dL/dW = x^T dL/dy, dL/db sums dL/dy over the tokens, and
dL/dx = dL/dy W^T. An adapter adds s (x D) U: dL/dU = s (x D)^T dL/dy, dL/dD = x^T (s dL/dy U^T).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.runtime.device import is_cuda


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


def project(x: Tensor, linear: Linear, *, with_bias: bool = True) -> Tensor:
    """Return (K, R, out) for x (K, R, in)."""
    bias = linear.bias if with_bias else None
    if linear.adapter is None or linear.scale is None:
        # One operator with the bias: added afterwards it is one more pass, and rounds otherwise.
        if bias is None:
            return product(x, linear.weight)
        return torch.baddbmm(bias.unsqueeze(1), x, linear.weight)
    out = product(x, linear.weight)
    if bias is not None:
        out += bias.unsqueeze(1)
    low = torch.bmm(x, linear.adapter.down).mul_(linear.scale.view(-1, 1, 1))
    return out.baddbmm_(low, linear.adapter.up)


def project_backward(
    grad: Tensor,
    x: Tensor,
    linear: Linear,
    out: Gradients,
    *,
    accumulate: bool,
    add_bias: Callable[..., None] | None,
) -> Tensor:
    """Put the gradients of the layer's parameters into `out` and return that of x.

    `add_bias` is `Ops.column_sums`; None: the gradient of the bias is written elsewhere.
    """
    if linear.adapter is None or linear.scale is None:
        put_product(out.first, x.transpose(1, 2), grad, accumulate=accumulate)
        if out.second is not None and add_bias is not None:
            add_bias(grad, out.second, accumulate=accumulate)
        return torch.bmm(grad, linear.weight.transpose(1, 2))
    scale = linear.scale.view(-1, 1, 1)
    low = torch.bmm(x, linear.adapter.down).mul_(scale)  # again: it costs less than to keep it
    grad_low = torch.bmm(grad, linear.adapter.up.transpose(1, 2)).mul_(scale)
    put_product(out.first, x.transpose(1, 2), grad_low, accumulate=accumulate)
    assert out.second is not None
    put_product(out.second, low.transpose(1, 2), grad, accumulate=accumulate)
    grad_x = product(grad, linear.weight.transpose(1, 2))
    return grad_x.baddbmm_(grad_low, linear.adapter.down.transpose(1, 2))


def put(target: Tensor, value: Tensor, *, accumulate: bool) -> None:
    """Write a gradient where the optimizer reads it, or add it to what is there."""
    if accumulate:
        target.add_(value)
    else:
        target.copy_(value)


def put_product(target: Tensor, a: Tensor, b: Tensor, *, accumulate: bool) -> None:
    """Write a b (K, m, n) where the optimizer reads it, a part of each row, or add it there.

    On CUDA straight from the product, summed in fp32. On CPUs that of a single model alone: where
    the result is not contiguous PyTorch falls back to one product a slot, which costs more than the
    pass that it saves.
    """
    if is_cuda(target.device):
        _product_into(target, a, b, accumulate)
    elif len(target) == 1 and a.dtype == target.dtype and not accumulate:
        torch.bmm(a, b, out=target)
    else:
        put(target, torch.bmm(a, b), accumulate=accumulate)


def _product_on_cuda(target: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
    if a.dtype == target.dtype:
        torch.baddbmm(target, a, b, beta=float(accumulate), out=target)
    elif accumulate:
        torch.baddbmm(target, a, b, out_dtype=target.dtype, out=target)
    else:
        torch.bmm(a, b, out_dtype=target.dtype, out=target)


_product_into = torch.library.custom_op(
    "huggingtweets::product_into", _product_on_cuda, mutates_args=("target",), device_types="cuda"
)
"""One operator: PyTorch 2.13 knows no shapes for a product with a type of its own and `out`."""
_product_into.register_fake(lambda *_: None)


@_product_into.register_kernel("cpu")
def _(target: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
    put(target, torch.bmm(a, b), accumulate=accumulate)
