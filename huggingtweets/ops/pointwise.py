"""What is computed element by element: activations, and the dropout of embeddings."""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import keep, kept


def gelu(x: Tensor, ops: Ops, *, use_fused: bool = False) -> Tensor:
    """Return GELU by tanh; see `Ops.gelu`, and `Ops.gelu_backward` for its derivative."""
    if not torch.is_grad_enabled():
        return ops.gelu(x, use_fused=use_fused)[0]
    result: Tensor = _Gelu.apply(x, ops, use_fused)  # type: ignore[no-untyped-call]
    return result


def swiglu(x: Tensor, ops: Ops) -> Tensor:
    """Return silu(gate) * up (K, R, F) for gate and up side by side, (K, R, 2 F).

    With s the sigmoid of the gate a: d(a s)/da = s (1 + a (1 - s)).
    """
    result: Tensor = _SwiGlu.apply(x, ops)  # type: ignore[no-untyped-call]
    return result


def drop(x: Tensor, site: ScaledSite | None, ops: Ops) -> Tensor:
    """Return x (K, R, C) with elements dropped and the others scaled; None: x itself."""
    if site is None:
        return x
    result: Tensor = _Drop.apply(x, site, ops)  # type: ignore[no-untyped-call]
    return result


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ops: Ops, use_fused: bool) -> Tensor:
        out, saved = ops.gelu(x, use_fused=use_fused)
        ctx.save_for_backward(*saved)
        ctx.ops = ops
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.ops.gelu_backward(grad.contiguous(), ctx.saved_tensors), None, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ops: Ops) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ops = ops
        return ops.swiglu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.ops.swiglu_backward(grad.contiguous(), x), None


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, site: ScaledSite, ops: Ops) -> Tensor:
        noise = ops.noise(site, x)
        keep(ctx, noise)
        ctx.ops = ops
        return ops.drop(x, noise, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (noise,) = kept(ctx)
        return ctx.ops.drop(grad.contiguous(), noise, grad.dtype), None, None
