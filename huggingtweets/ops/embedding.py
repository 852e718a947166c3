"""Looking up rows of tables, and adding gradients to the rows looked up only."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def embedding(places: list[Tensor], table: Tensor, out: Tensor | None) -> Tensor:
    """Return the sum of several rows of a table for each token.

    Args:
        places: (K, R) int64 each: which rows of the table.
        table: (n, C), of all K models.
        out: (n, C); the gradient is added to what is there. None: nothing is differentiated.

    Returns:
        (K, R, C), which requires a gradient where there is somewhere to put it.
    """
    if out is None:
        return _looked_up(places, table)
    # Autograd begins at a tensor that requires a gradient; the tables themselves are no leaves.
    anchor = torch.empty(0, requires_grad=True)
    result: Tensor = _Embedding.apply(anchor, places, table, out)  # type: ignore[no-untyped-call]
    return result


def differentiable(x: Tensor) -> Tensor:
    """Return x as where a graph begins: so that what follows is differentiated, though x is not."""
    return x.detach().requires_grad_()


def _looked_up(places: list[Tensor], table: Tensor) -> Tensor:
    x = F.embedding(places[0], table)
    for more in places[1:]:
        x += F.embedding(more, table)
    return x


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _: Tensor, places: list[Tensor], table: Tensor, out: Tensor) -> Tensor:
        ctx.places, ctx.out = places, out
        return _looked_up(places, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, None]:
        flat = grad.reshape(-1, grad.shape[-1])
        for rows in ctx.places:
            ctx.out.index_add_(0, rows.flatten(), flat)
        return None, None, None, None
