"""Attention of K models at once, K and the blocks folded into one batch; forward and backward.

On a CPU, and wherever there is dropout: matrix products over windows of queries, each against
only the keys it can see, which leaves out what lies beyond the diagonal or, for short documents,
too far back. PyTorch's fused kernel for CPUs took 1.8 times as long at 128 and 256 positions and
5 times in bf16. On CUDA without dropout: PyTorch's fused kernels (`fused_attention`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.ops.dropout import Dropout
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.saved import Saved as SavedSoftmax
from huggingtweets.training.array.fused_attention import (
    Fused,
    fused_attention,
    fused_attention_backward,
)

_HIDDEN = -1e30
"""Added to scores that must not count; finite, so that no row can become NaN."""


@dataclass(frozen=True)
class Window:
    """Queries `start` to `stop` of each block see keys from `first_key` to `stop`, at most."""

    start: int
    stop: int
    first_key: int
    bias: Tensor
    """(K * B or 1, 1, queries, n): added to the scores of the last n keys."""


@dataclass(frozen=True)
class View:
    """Where the tokens of a micro-batch may look."""

    windows: tuple[Window, ...]
    fused_mask: Tensor | None
    """(K * B, 1, T, T) booleans for PyTorch's fused kernels; None: causal."""
    use_fused: bool


@dataclass(frozen=True)
class Saved:
    """What the backward pass needs of one layer."""

    q: Tensor
    k: Tensor
    v: Tensor
    """(K * B * heads, T, head width) each, q already scaled."""
    weights: list[SavedSoftmax]
    """What `Ops.softmax` saved, by window."""
    fused: Fused | None = None
    """What PyTorch's kernel saved."""


def view_of(
    position_ids: Tensor, *, isolate: bool, reach: int, width: int, use_fused: bool
) -> View:
    """Return where tokens may look: back to the first token of their block or of their document.

    Args:
        position_ids: (K, B, T) integers.
        isolate: a 0 among the positions begins a document, which sees nothing before it.
        reach: with `isolate`, the longest document; longer ones must have no targets.
        width: queries a window.
        use_fused: take PyTorch's kernels.
    """
    T = position_ids.shape[-1]
    place = torch.arange(T, device=position_ids.device)
    starts = (place - position_ids).view(-1, 1, T, 1) if isolate else None
    if use_fused:
        mask = None if starts is None else (place >= starts) & (place <= place.view(T, 1))
        return View((), mask, True)
    windows = []
    for start in range(0, T, width):
        stop = min(start + width, T)
        if starts is None:
            keys, first = place[start:stop], 0
            hidden = keys > place[start:stop, None]
        else:
            first = max(0, start + 1 - reach) // 2 * 2  # even, as dropout masks come in pairs
            keys = place[first:stop]
            hidden = (keys > place[start:stop, None]) | (keys < starts[:, :, start:stop])
        bias = (hidden.float() * _HIDDEN).view(-1, 1, stop - start, len(keys))
        windows.append(Window(start, stop, first, bias))
    return View(tuple(windows), None, False)


def attend(
    qkv: Tensor,
    view: View,
    *,
    num_heads: int,
    scale: float,
    layer: int,
    dropout: Dropout | None,
    ops: Ops,
) -> tuple[Tensor, Saved]:
    """Return attention's output (K * B, T, C) for (K * B, T, 3 * C), and what backward needs."""
    n, T, _ = qkv.shape
    heads = qkv.view(n, T, 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    if view.use_fused:
        assert dropout is None, "PyTorch's kernels have no dropout of ours"
        return _attend_fused(heads, view, scale)
    q, k, v = heads.contiguous().view(3, n * num_heads, T, -1).unbind(0)
    q.mul_(scale)
    out = torch.empty_like(q)
    saved = Saved(q, k, v, [])
    for window in view.windows:
        queries, keys = slice(window.start, window.stop), slice(window.first_key, window.stop)
        site = None
        if dropout is not None:
            places = range(window.start, window.stop), range(window.first_key, window.stop)
            site = dropout.heads(layer, num_heads, *places)
        scores = torch.bmm(q[:, queries], k[:, keys].transpose(1, 2))
        weights, saved_weights = ops.softmax(scores, window.bias, site, num_heads=num_heads)
        saved.weights.append(saved_weights)
        out[:, queries] = torch.bmm(weights, v[:, keys])
    if dropout is not None:
        out.view(n, -1).mul_(dropout.scales[1].unsqueeze(1))
    return out.view(n, num_heads, T, -1).transpose(1, 2).reshape(n, T, -1), saved


def attend_backward(
    grad_out: Tensor, saved: Saved, view: View, *, scale: float, dropout: Dropout | None, ops: Ops
) -> Tensor:
    """Return the gradient (K * B, T, 3 * C) of `qkv` for that of `attend`'s output."""
    n, T, width = grad_out.shape
    if saved.fused is not None:
        return _attend_fused_backward(grad_out, saved)
    num_heads = len(saved.q) // n
    grad = grad_out.view(n, T, num_heads, -1).transpose(1, 2).contiguous()
    if dropout is not None:
        grad.view(n, -1).mul_(dropout.scales[1].unsqueeze(1))
    grad = grad.view(n * num_heads, T, -1)
    grads = grad.new_zeros(3, *grad.shape)
    grad_q, grad_k, grad_v = grads.unbind(0)
    for window, weights in zip(view.windows, saved.weights, strict=True):
        queries, keys = slice(window.start, window.stop), slice(window.first_key, window.stop)
        grad_weights = torch.bmm(grad[:, queries], saved.v[:, keys].transpose(1, 2))
        grad_scores, dropped = ops.softmax_backward(grad_weights, weights)
        grad_v[:, keys] += torch.bmm(dropped.transpose(1, 2), grad[:, queries])
        grad_q[:, queries] = torch.bmm(grad_scores, saved.k[:, keys])
        grad_k[:, keys] += torch.bmm(grad_scores.transpose(1, 2), saved.q[:, queries])
    grad_q.mul_(scale)
    by_head = grads.view(3, n, num_heads, T, -1)
    return by_head.permute(1, 3, 0, 2, 4).reshape(n, T, 3 * width)


def _attend_fused(heads: Tensor, view: View, scale: float) -> tuple[Tensor, Saved]:
    """Run PyTorch's kernel, called by name: its backward pass too, without autograd."""
    _, n, num_heads, T, _ = heads.shape
    q, k, v = heads.unbind(0)
    bias = None
    if view.fused_mask is not None:
        bias = _additive(view.fused_mask, q.dtype).expand(n, num_heads, T, T)
    out, kept = fused_attention(q, k, v, bias, scale)
    saved = Saved(q, k, v, [], Fused(kept, bias, scale))
    return out.transpose(1, 2).reshape(n, T, -1), saved


def _attend_fused_backward(grad_out: Tensor, saved: Saved) -> Tensor:
    n, T, width = grad_out.shape
    assert saved.fused is not None
    grad = grad_out.view(n, T, saved.q.shape[1], -1).transpose(1, 2)
    grads = fused_attention_backward(grad, saved.q, saved.k, saved.v, saved.fused)
    return torch.stack(grads).permute(1, 3, 0, 2, 4).reshape(n, T, 3 * width)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return booleans as what is added to scores; rows begin where CUDA's kernel can load them."""
    *sizes, columns = mask.shape
    padded = torch.zeros(*sizes, -(-columns // 16) * 16, dtype=dtype, device=mask.device)
    bias = padded[..., :columns]
    return bias.masked_fill_(mask.logical_not(), -torch.inf)
