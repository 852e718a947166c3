"""PyTorch's fused attention kernels called by name.

`scaled_dot_product_attention` takes the same ones. Called by name they take queries, keys and
values as they lie side by side, their gradients go there in one copy: 29 launches per layer less.
"""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.runtime.device import kind_of
from huggingtweets.upstream import aten

_FLASH = aten("_scaled_dot_product_flash_attention")
_FLASH_BACKWARD = aten("_scaled_dot_product_flash_attention_backward")
_EFFICIENT = aten("_scaled_dot_product_efficient_attention")
_EFFICIENT_BACKWARD = aten("_scaled_dot_product_efficient_attention_backward")
_ON_CPU = aten("_scaled_dot_product_flash_attention_for_cpu")
_ON_CPU_BACKWARD = aten("_scaled_dot_product_flash_attention_for_cpu_backward")

Kept = tuple[Any, ...]


def fused_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Kept:
    """Return attention's output like q (n, heads, T, head width), and what backward needs.

    Args:
        q: queries.
        k: keys.
        v: values.
        bias: (n, heads, T, T) added to the scores; None: causal.
        scale: of the scores.
    """
    causal = bias is None
    kept: Kept
    if kind_of(q.device) == "cpu":
        kept = _ON_CPU(q, k, v, 0.0, causal, attn_mask=bias, scale=scale)
    elif causal and q.dtype != torch.float32:  # all that FlashAttention has kernels for
        kept = _FLASH(q, k, v, 0.0, True, False, scale=scale)
    else:
        kept = _EFFICIENT(q, k, v, bias, True, 0.0, causal, scale=scale)
    return kept


def fused_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, kept: Kept, scale: float
) -> Kept:
    """Return the gradients of q, k and v for that of the output; `kept` is of `fused_attention`."""
    given, causal = (grad, q, k, v), bias is None
    grads: Kept
    if kind_of(q.device) == "cpu":
        grads = _ON_CPU_BACKWARD(*given, *kept, 0.0, causal, attn_mask=bias, scale=scale)
    elif len(kept) == 4:  # of the memory-efficient kernel: output, sums, seed and offset
        wanted = [True, True, True, False]
        grads = _EFFICIENT_BACKWARD(*given, bias, *kept, 0.0, wanted, causal, scale=scale)
    else:  # output, sums, starts and longest of queries and keys, seed and offset, a mask
        *kept_, seed, offset, _ = kept
        grads = _FLASH_BACKWARD(*given, *kept_, 0.0, True, seed, offset, scale=scale)
    return grads[:3]
