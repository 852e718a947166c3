"""The dropout of embeddings."""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import keep, kept


def drop(x: Tensor, site: ScaledSite | None, ops: Ops) -> Tensor:
    """Return x (K, R, C) with elements dropped and the others scaled; None: x itself."""
    if site is None:
        return x
    result: Tensor = _Drop.apply(x, site, ops)  # type: ignore[no-untyped-call]
    return result


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
