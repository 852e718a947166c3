"""Looking up rows of tables, with dropout, and adding gradients to the rows looked up only."""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import keep, kept


def embedding(
    places: list[Tensor],
    table: Tensor,
    out: Tensor | None,
    site: ScaledSite | None,
    ops: Ops,
) -> Tensor:
    """Return the sum of several rows of a table for each token, (K, R, C), with dropout.

    Args:
        places: (K, R) int64 each: which rows of the table.
        table: (n, C), of all K models.
        out: (n, C); the gradient is added to what is there. None: the table is frozen.
        site: of dropout.
        ops: what computes.
    """
    if not torch.is_grad_enabled():
        return ops.embed(places, table, site)[0]
    # Autograd begins at a tensor that requires a gradient; the tables themselves are not leaves.
    anchor = torch.empty(0, requires_grad=True)
    result: Tensor = _Embedding.apply(  # type: ignore[no-untyped-call]
        anchor, places, table, site, ops, out
    )
    return result


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, _: Tensor, places: list[Tensor], table: Tensor, site: ScaledSite | None, ops: Ops,
        out: Tensor | None,
    ) -> Tensor:  # fmt: skip
        x, noise = ops.embed(places, table, site)
        keep(ctx, noise)
        ctx.rest = places, ops, out
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        (noise,) = kept(ctx)
        places, ops, out = ctx.rest
        if out is not None:
            grad = ops.drop(grad.contiguous(), noise, grad.dtype)
            flat = grad.reshape(-1, grad.shape[-1])
            for rows in places:
                out.index_add_(0, rows.flatten(), flat)
        return (None,) * 6
