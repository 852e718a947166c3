"""Looking up rows of tables, with dropout, and adding gradients to the rows looked up only."""

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import Saved, differentiable


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

    def forward(_: Tensor) -> tuple[Tensor, Saved]:
        x, noise = ops.embed(places, table, site)
        return x, (noise,)

    def backward(saved: Saved, grad: Tensor) -> None:
        (noise,) = saved
        if out is not None:
            grad = ops.drop(grad.contiguous(), noise, grad.dtype)
            flat = grad.reshape(-1, grad.shape[-1])
            for rows in places:
                out.index_add_(0, rows.flatten(), flat)

    # Autograd begins at a tensor that requires a gradient; the tables themselves are not leaves.
    result: Tensor = differentiable(forward, backward, torch.empty(0, requires_grad=True))
    return result
