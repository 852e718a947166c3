"""The output embedding and cross-entropy of K models, chunk by chunk: never all logits at once.

With logits z = h W^T and p = softmax(z), dL/dz = p - 1[target]; dL/dh = dL/dz W and
dL/dW = dL/dz^T h are taken at once, while the chunk's logits are there.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.linear import product, put
from huggingtweets.ops.norm import Norm, norm_backward, norm_forward
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


@dataclass(frozen=True)
class Head:
    """What ends a training pass."""

    table: Tensor
    """(K, V, C), or (1, V, C) shared by all, in the precision of the matrix products."""
    vocab_size: int
    """Rows of the table from here on are padding."""
    grad_table: Tensor | None
    """(K, V, C) fp32; None: the table is frozen."""
    accumulate: bool
    """Add to what is in `grad_table`."""


def normed_loss(
    x: Tensor, norm: Norm, head: Head, targets: Tensor, weight: Tensor, ops: Ops
) -> Tensor:
    """Return each slot's summed loss (K,), to be differentiated by `loss.backward(weight)` alone.

    The gradient of the weighted losses' sum is taken in the forward pass, while the logits are
    there: that of the table is written, that of the hidden states kept in fp32 for the norm.

    Args:
        x: (K, R, C), the residual stream after the last layer.
        norm: the last.
        head: the output embedding.
        targets: (K, R) int64; negative ones count for nothing.
        weight: (K,) what each slot's loss is multiplied by.
        ops: what computes between the products.
    """
    loss: Tensor = _NormedLoss.apply(x, norm, head, targets, weight, ops)  # type: ignore[no-untyped-call]
    return loss


class _NormedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Norm, head: Head, targets: Tensor, weight: Tensor, ops: Ops
    ) -> Tensor:
        hidden, saved = norm_forward(x, norm, head.table.dtype, ops)
        loss, grad = summed_loss(
            hidden,
            head.table,
            targets,
            vocab_size=head.vocab_size,
            weight=weight,
            grad_table=head.grad_table,
            accumulate=head.accumulate,
            ops=ops,
        )
        ctx.save_for_backward(grad, *saved)
        ctx.rest = norm, ops
        return loss

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        grad, *saved = ctx.saved_tensors
        norm, ops = ctx.rest
        return norm_backward(grad, tuple(saved), norm, ops), None, None, None, None, None
