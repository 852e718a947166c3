"""The output embedding and cross-entropy of K models, chunk by chunk: never all logits at once.

With logits z = h W^T and p = softmax(z), dL/dz = p - 1[target]; dL/dh = dL/dz W and
dL/dW = dL/dz^T h are taken at once, while the chunk's logits are there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.ops.linear import product, put_product
from huggingtweets.ops.reference import PYTORCH, Norm, Ops
from huggingtweets.ops.residual import Stream, normed_backward
from huggingtweets.ops.saved import Saved, differentiable
from huggingtweets.runtime.device import by_kind, is_cuda

CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Logits held at a time, by device type: on a CPU they should fit a cache."""

MIN_ROWS = 256
"""Tokens of each slot at a time, at least: every chunk adds to the whole gradient of the table."""


def _chunks(hidden: Tensor, vocab_size: int, ops: Ops) -> list[tuple[slice, slice]]:
    """Return which slots and which of their tokens are computed together, in turn.

    A few slots with all their tokens, so that the gradient of a table is written once; how many
    tokens does not depend on the number of slots.
    """
    K, R, _ = hidden.shape
    limit = by_kind(CHUNK_LOGITS, hidden.device)
    if is_cuda(hidden.device) and ops.overwrites_logits:
        limit *= 2  # else there are copies in fp32
    rows = min(R, max(MIN_ROWS, limit // vocab_size))
    slots = max(1, limit // (rows * vocab_size))
    return [
        (slice(first, first + slots), slice(start, start + rows))
        for first in range(0, K, slots)
        for start in range(0, R, rows)
    ]


@dataclass(frozen=True)
class Head:
    """The output embedding, and where its gradient goes."""

    table: Tensor
    """(K, V, C), or (1, V, C) shared by all, in the precision of the matrix products."""
    vocab_size: int
    """Rows of the table from here on are padding."""
    grad_table: Tensor | None = None
    """(K, V, C) fp32; None: the table is frozen."""
    accumulate: bool = False
    """Add to what is in `grad_table`."""


def summed_loss(
    hidden: Tensor, head: Head, targets: Tensor, weight: Tensor, ops: Ops = PYTORCH
) -> tuple[Tensor, Tensor]:
    """Return each slot's summed loss in nats, and the gradient of its hidden states.

    Args:
        hidden: (K, R, C) in the precision of the matrix products.
        head: receives the gradient of its table.
        targets: (K, R) int64; negative ones count for nothing.
        weight: (K,) what each slot's loss is multiplied by, for the gradients only.
        ops: what computes between the products.

    Returns:
        (K,) fp32 and (K, R, C), fp32 or what the products are in.
    """
    K = len(hidden)
    is_double = hidden.dtype == torch.float64
    loss = torch.zeros(K, device=hidden.device, dtype=torch.float64 if is_double else torch.float32)
    grads = torch.empty_like(hidden, dtype=hidden.dtype if ops.overwrites_logits else loss.dtype)
    for slots, rows in _chunks(hidden, head.table.shape[1], ops):
        chunk = hidden[slots, rows]
        own = head.table if len(head.table) == 1 else head.table[slots]
        found = ops.cross_entropy(
            product(chunk, own.transpose(1, 2)),
            targets[slots, rows],
            vocab_size=head.vocab_size,
            weight=weight[slots],
        )
        loss[slots] += found.total
        # The gradient of logits is as large as they are: it is scaled on the narrow sides instead.
        if found.scale is None:
            own = own.expand(len(chunk), -1, -1)
            torch.bmm(found.gradient, own, out=grads[slots, rows])
        else:
            torch.mul(product(found.gradient, own), found.scale, out=grads[slots, rows])
            chunk = (chunk * found.scale).to(hidden.dtype)
        if head.grad_table is not None:
            put_product(
                head.grad_table[slots],
                found.gradient.transpose(1, 2),
                chunk,
                accumulate=head.accumulate or rows.start > 0,
            )
    return loss, grads


def normed_loss(
    stream: Stream, norm: Norm, head: Head, targets: Tensor, weight: Tensor, ops: Ops
) -> Tensor:
    """Return each slot's summed loss (K,), to be differentiated by `loss.sum().backward()` alone.

    The gradient of the weighted losses' sum is taken in the forward pass, while the logits are
    there: that of the table is written, that of the hidden states kept in fp32 for the norm.

    Args:
        stream: after the last layer.
        norm: the last.
        head: the output embedding.
        targets: (K, R) int64; negative ones count for nothing.
        weight: (K,) what each slot's loss is multiplied by.
        ops: what computes between the products.
    """
    branch = stream.branch

    def forward(x: Tensor, h: Tensor | None) -> tuple[Tensor, Saved]:
        _, hidden, saved = Stream(x, h, branch).normed(norm, head.table.dtype, ops)
        loss, grad = summed_loss(hidden, head, targets, weight, ops)
        return loss, (grad, h, saved)

    def backward(saved: Saved, _: Tensor) -> tuple[Tensor, Tensor | None]:
        grad, h, of_norm = saved
        return normed_backward(None, grad, h, branch, of_norm, norm, ops)

    loss: Tensor = differentiable(forward, backward, stream.x, stream.h)
    return loss
