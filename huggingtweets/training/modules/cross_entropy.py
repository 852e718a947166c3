"""Output projection and cross-entropy in one: never all logits at once, no second copy of any."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.data.blocks import IGNORED
from huggingtweets.kernels.rows import choose_row_ops, num_scored
from huggingtweets.runtime.device import autocast_dtype, by_kind, is_cpu

CHUNK_LOGITS = {"cpu": 2**26, "cuda": 2**28}
"""Logits held at a time, by device type. On a CPU chunks save memory, not time: small
ones cost up to a third more in bf16."""
FEW_LOGITS = 2**23
"""Up to this many PyTorch's own operations are as fast."""
ROWS_MULTIPLE = 64
WORDS_MULTIPLE = 64
"""The vocabulary is padded to a multiple of it, in memory and for the moment of the product."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return `cross_entropy(hidden @ weight.T, targets, reduction="sum")`, fp32.

    On a CPU rows without a target are left out first. Logits are made, turned into their gradient
    in place, and multiplied back chunk by chunk already in the forward pass; the backward pass
    only scales. Under autocast the matrix products run in its precision, the softmax always in
    fp32.

    Args:
        hidden: (N, D) floats.
        weight: (V, D) floats.
        targets: (N,) int64; rows of IGNORED count for nothing.
    """
    if is_cpu(hidden.device) and not torch.compiler.is_compiling():
        rows = rows_with_target(targets)
        if rows is not None:
            hidden, targets = hidden[rows], targets[rows]
    if len(hidden) * len(weight) <= FEW_LOGITS:
        logits = (hidden @ weight.T).float()
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


def rows_with_target(targets: Tensor) -> Tensor | None:
    """Return which rows have a target, and some that have none: up to a multiple of 64.

    None: all, or as good as all. Few shapes come about, as kernels are made for each.
    """
    is_ignored = targets == IGNORED
    num_rows = -(-int((~is_ignored).sum()) // ROWS_MULTIPLE) * ROWS_MULTIPLE  # sync: on a CPU
    if num_rows >= len(targets):
        return None
    return is_ignored.int().argsort(stable=True)[:num_rows]


@torch.no_grad()
def linear_hits(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's cross-entropy, (N,) fp32, and whether its target is the likeliest.

    Args:
        hidden: (N, D) floats.
        weight: (V, D) floats.
        targets: (N,) int64; rows of IGNORED are 0 and no hits.
    """
    nats = torch.zeros(targets.shape, device=hidden.device)
    hits = torch.zeros_like(targets, dtype=torch.bool)
    counts = targets != IGNORED
    score = choose_row_ops(hidden.device, num_positions=0, head_width=0).score
    chunk = num_scored(hidden.device, len(weight))
    dtype = autocast_dtype(hidden.device)
    hidden, table = hidden.to(dtype or hidden.dtype), weight.to(dtype or weight.dtype).T
    # Rows of an odd number of words, written one after another, take half as long again.
    held = hidden.new_empty(chunk, len(weight) + (-len(weight) % WORDS_MULTIPLE))
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, len(hidden), chunk):
            rows = slice(start, min(start + chunk, len(hidden)))
            logits = held[: rows.stop - start, : len(weight)]
            torch.mm(hidden[rows], table, out=logits)
            nats[rows], hits[rows] = score(logits, targets[rows].clamp(min=0))
    return torch.where(counts, nats, 0.0), hits & counts


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = autocast_dtype(hidden.device)
        is_trained = ctx.needs_input_grad[1]
        with torch.autocast(hidden.device.type, enabled=False):
            loss, grad_hidden, grad_weight = _loss_and_gradients(
                hidden.to(dtype or hidden.dtype),
                weight.to(dtype or weight.dtype),
                targets,
                is_trained=is_trained,
            )
        ctx.save_for_backward(grad_hidden, grad_weight if is_trained else None)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grads = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        grad_hidden, grad_weight = (
            None if grad is None else _scaled(grad, scale, dtype) for grad, dtype in grads
        )
        return grad_hidden, grad_weight, None


def _scaled(grad: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a gradient times a scale in a precision, in one pass; the gradient is used up."""
    if grad.dtype == dtype:
        return grad.mul_(scale)
    return grad * scale.to(dtype).view(1, 1)  # of two dimensions: so its precision counts


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, is_trained: bool
) -> tuple[Tensor, Tensor, Tensor]:
    num_words = len(weight)
    weight = _padded(weight)
    loss = torch.zeros((), device=hidden.device)
    grad_hidden = torch.empty_like(hidden)
    grad_weight = weight
    chunk = max(64, by_kind(CHUNK_LOGITS, hidden.device) // len(weight))
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        target = targets[rows].clamp(min=0).unsqueeze(1)
        counts = (targets[rows] != IGNORED).unsqueeze(1)
        logits = hidden[rows] @ weight.T
        logits[:, num_words:] = -torch.inf
        log_probs = torch.log_softmax(logits, 1, dtype=torch.float32)
        loss -= (log_probs.gather(1, target) * counts).sum()
        gradient = log_probs.exp_()
        gradient.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=torch.float32))
        gradient = gradient.mul_(counts).to(hidden.dtype)
        torch.mm(gradient, weight, out=grad_hidden[rows])
        if is_trained:  # a third of the head's arithmetic, in vain where LoRA freezes it
            product = gradient.T @ hidden[rows]
            grad_weight = grad_weight.float().add_(product) if start else product
    return loss, grad_hidden, grad_weight[:num_words]


def _padded(weight: Tensor) -> Tensor:
    """Return (V, D) weights with rows of zeros up to a multiple that kernels are fast at."""
    missing = -len(weight) % WORDS_MULTIPLE
    return F.pad(weight, (0, 0, 0, missing)) if missing else weight
