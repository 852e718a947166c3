"""Output projection and cross-entropy in one: never all logits at once, no second copy of any."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.data.blocks import IGNORED

CHUNK_LOGITS = {"cpu": 2**25, "cuda": 2**28}
"""Logits held at a time, by device type. On a CPU chunks save memory, not time: small
ones cost up to a third more in bf16."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return `cross_entropy(hidden @ weight.T, targets, reduction="sum")`, fp32.

    Logits are made, turned into their gradient in place, and multiplied back chunk by chunk
    already in the forward pass; the backward pass only scales. Under autocast the matrix products
    run in its precision, the softmax always in fp32.

    Args:
        hidden: (N, D) floats.
        weight: (V, D) floats.
        targets: (N,) int64; rows of IGNORED count for nothing.
    """
    if len(hidden) * len(weight) <= CHUNK_LOGITS.get(hidden.device.type, 2**26):
        logits = (hidden @ weight.T).float()
        return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        needs_grad = any(ctx.needs_input_grad)
        with torch.autocast(device, enabled=False):
            loss, grad_hidden, grad_weight = _loss_and_gradients(
                hidden.to(dtype or hidden.dtype),
                weight.to(dtype or weight.dtype),
                targets,
                needs_grad=needs_grad,
            )
        if needs_grad:
            ctx.save_for_backward(grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(scale), grad_weight.mul_(scale), None


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, needs_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    loss = torch.zeros((), device=hidden.device)
    grad_hidden = torch.empty_like(hidden) if needs_grad else hidden
    grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_grad else weight
    chunk = max(64, CHUNK_LOGITS.get(hidden.device.type, 2**26) // len(weight))
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        target = targets[rows].clamp(min=0).unsqueeze(1)
        counts = (targets[rows] != IGNORED).unsqueeze(1)
        logits = (hidden[rows] @ weight.T).float()
        log_total = logits.logsumexp(dim=1, keepdim=True)
        loss += ((log_total - logits.gather(1, target)) * counts).sum()
        if needs_grad:
            gradient = logits.sub_(log_total).exp_()
            gradient.scatter_add_(1, target, torch.full_like(log_total, -1.0)).mul_(counts)
            gradient = gradient.to(hidden.dtype)
            torch.mm(gradient, weight, out=grad_hidden[rows])
            if weight.dtype == torch.float32:
                grad_weight.addmm_(gradient.T, hidden[rows])
            else:
                grad_weight += gradient.T @ hidden[rows]
    return loss, grad_hidden, grad_weight
