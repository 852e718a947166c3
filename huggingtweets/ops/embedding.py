"""Looking up rows of tables, and adding gradients to the rows looked up only."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def embedding(
    places: list[Tensor],
    table: Tensor,
    out: Tensor | None,
    *,
    begins_graph: bool,
    silent: Tensor | None = None,
) -> Tensor:
    """Return the sum of several rows of a table for each token, (K, R, C).

    Args:
        places: (K, R) int64 each: which rows of the table.
        table: (n, C), of all K models.
        out: (n, C); the gradient is added to what is there. None: the table is frozen.
        begins_graph: what follows is to be differentiated.
        silent: (K, R) booleans: tokens that give no gradient, as `padding_idx` of `nn.Embedding`.
    """
    if not begins_graph:
        return _looked_up(places, table)
    # Autograd begins at a tensor that requires a gradient; the tables themselves are not leaves.
    anchor = torch.empty(0, requires_grad=True)
    result: Tensor = _Embedding.apply(  # type: ignore[no-untyped-call]
        anchor, places, table, out, silent
    )
    return result


def _looked_up(places: list[Tensor], table: Tensor) -> Tensor:
    x = F.embedding(places[0], table)
    for more in places[1:]:
        x += F.embedding(more, table)
    return x


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _: Tensor, places: list[Tensor], table: Tensor, *rest: Any) -> Tensor:
        ctx.places, ctx.rest = places, rest
        return _looked_up(places, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        out, silent = ctx.rest
        if silent is not None:
            grad = grad.masked_fill(silent.unsqueeze(-1), 0.0)
        flat = grad.reshape(-1, grad.shape[-1])
        for rows in ctx.places if out is not None else ():
            out.index_add_(0, rows.flatten(), flat)
        return None, None, None, None, None
