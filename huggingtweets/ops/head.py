"""The output embedding and cross-entropy of K models, chunk by chunk: never all logits at once.

With logits z = h W^T and p = softmax(z), dL/dz = p - 1[target]; dL/dh = dL/dz W and
dL/dW = dL/dz^T h are taken at once, while the chunk's logits are there.
"""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.linear import product, put
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.runtime.device import by_kind

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Logits held at a time, by device type: on a CPU they should fit a cache."""

MIN_ROWS = 256
"""Tokens of each slot at a time, at least: every chunk adds to the whole gradient of the table."""


def summed_loss(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    vocab_size: int,
    weight: Tensor | None = None,
    grad_table: Tensor | None = None,
    accumulate: bool = False,
    hits: Tensor | None = None,
    ops: Ops = PYTORCH,
) -> tuple[Tensor, Tensor]:
    """Return each slot's summed loss in nats and, given weights, the gradient of its hidden states.

    Args:
        hidden: (K, R, C) in the precision of the matrix products.
        table: (K, V, C), or (1, V, C) shared by all, likewise.
        targets: (K, R) int64; negative ones count for nothing.
        vocab_size: rows of the table from here on are padding.
        weight: (K,) what each slot's loss is multiplied by, for the gradients only.
        grad_table: (K, V, C) fp32; receives the gradient of the table, unless that is frozen.
        accumulate: add to what is in `grad_table` instead of replacing it.
        hits: (K, R) booleans; receives whether each target is the likeliest token.
        ops: what computes between the products.

    Returns:
        (K,) fp32 and (K, R, C) fp32; the latter is empty without weights.
    """
    K = len(hidden)
    is_double = hidden.dtype == torch.float64
    loss = torch.zeros(K, device=hidden.device, dtype=torch.float64 if is_double else torch.float32)
    grads = []
    rows = max(MIN_ROWS, by_kind(CHUNK_LOGITS, hidden.device, 2**26) // (K * table.shape[1]))
    for start in range(0, hidden.shape[1], rows):
        chunk = hidden[:, start : start + rows]
        found = ops.cross_entropy(
            product(chunk, table.transpose(1, 2)),
            targets[:, start : start + rows],
            vocab_size=vocab_size,
            weight=weight,
            hits=hits[:, start : start + rows] if hits is not None else None,
        )
        loss += found.total
        if found.scale is None:
            continue
        grads.append(product(found.gradient, table).to(loss.dtype).mul_(found.scale))
        if grad_table is not None:
            scaled = (chunk * found.scale).to(hidden.dtype)
            grad_chunk = torch.bmm(found.gradient.transpose(1, 2), scaled)
            put(grad_table, grad_chunk, accumulate=accumulate or start > 0)
    return loss, torch.cat(grads, 1) if grads else hidden.new_empty(0)


def weighted_loss(
    hidden: Tensor,
    table: Tensor,
    targets: Tensor,
    *,
    vocab_size: int,
    weight: Tensor,
    grad_table: Tensor | None,
    accumulate: bool,
    ops: Ops,
) -> tuple[Tensor, Tensor]:
    """Return what to differentiate and what to report, (K,) each: weighted and plain summed losses.

    The gradient of the table is written in the forward pass, as that of the weighted losses' sum;
    that of the hidden states waits for the backward pass. For the arguments see `summed_loss`.
    """
    found: tuple[Tensor, Tensor] = _WeightedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, table, targets, vocab_size, weight, grad_table, accumulate, ops
    )
    return found


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        targets: Tensor,
        vocab_size: int,
        weight: Tensor,
        grad_table: Tensor | None,
        accumulate: bool,
        ops: Ops,
    ) -> tuple[Tensor, Tensor]:
        loss, grad = summed_loss(
            hidden,
            table,
            targets,
            vocab_size=vocab_size,
            weight=weight,
            grad_table=grad_table,
            accumulate=accumulate,
            ops=ops,
        )
        ctx.save_for_backward(grad)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(loss)
        return loss * weight, loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return ((grad * scale.view(-1, 1, 1)).to(ctx.dtype), *[None] * 7)
