"""PyTorch's fused attention kernels called by name.

`scaled_dot_product_attention` takes the same ones. Called by name they take queries, keys and
values as they lie side by side, their gradients go there in one copy: 29 launches per layer less.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from huggingtweets.runtime.device import kind_of
from huggingtweets.upstream import aten

Kept = tuple[Any, ...]


@dataclass(frozen=True)
class Fused:
    """What the backward pass needs beside q, k and v."""

    kept: Kept
    """What the kernel saved; its output first."""
    bias: Tensor | None
    scale: float


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Kept]:
    """Return attention's output like q (n, heads, T, head width), and what backward needs.

    Args:
        q: queries.
        k: keys.
        v: values.
        bias: (n, heads, T, T) added to the scores; None: causal.
        scale: of the scores.
    """
    kept = _KERNELS[kind_of(q.device)][0](q, k, v, bias, scale)
    return kept[0], kept


def fused_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, fused: Fused
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v for that of the output."""
    backward = _KERNELS[kind_of(q.device)][1]
    grads: tuple[Tensor, Tensor, Tensor] = backward(grad, q, k, v, fused)
    return grads


def _flash_for_cpu(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Kept:
    kept: Kept = aten("_scaled_dot_product_flash_attention_for_cpu")(
        q, k, v, 0.0, bias is None, attn_mask=bias, scale=scale
    )
    return kept


def _flash_for_cpu_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, fused: Fused) -> Kept:
    out, sums = fused.kept
    grads: Kept = aten("_scaled_dot_product_flash_attention_for_cpu_backward")(
        grad, q, k, v, out, sums, 0.0, fused.bias is None, attn_mask=fused.bias, scale=fused.scale
    )
    return grads


def _cuda(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Kept:
    """FlashAttention where it can be, which is in half precision and without a bias."""
    kept: Kept
    if bias is None and q.dtype != torch.float32:
        kept = aten("_scaled_dot_product_flash_attention")(q, k, v, 0.0, True, False, scale=scale)
    else:
        kept = aten("_scaled_dot_product_efficient_attention")(
            q, k, v, bias, True, 0.0, bias is None, scale=scale
        )
    return kept


def _cuda_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, fused: Fused) -> Kept:
    grads: Kept
    if len(fused.kept) == 4:  # by the memory-efficient kernel
        out, sums, seed, offset = fused.kept
        grads = aten("_scaled_dot_product_efficient_attention_backward")(
            grad, q, k, v, fused.bias, out, sums, seed, offset, 0.0,
            [True, True, True, False], fused.bias is None, scale=fused.scale,
        )  # fmt: skip
        return grads[:3]
    out, sums, starts_q, starts_k, longest_q, longest_k, seed, offset, _ = fused.kept
    grads = aten("_scaled_dot_product_flash_attention_backward")(
        grad, q, k, v, out, sums, starts_q, starts_k, longest_q, longest_k, 0.0, True, seed, offset,
        scale=fused.scale,
    )  # fmt: skip
    return grads


_KERNELS: dict[str, tuple[Callable[..., Kept], Callable[..., Any]]] = {
    "cpu": (_flash_for_cpu, _flash_for_cpu_backward),
    "cuda": (_cuda, _cuda_backward),
}
"""Forward and backward, by where the tensors lie."""
