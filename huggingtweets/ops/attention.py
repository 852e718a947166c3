"""Attention of K models at once, K and the blocks folded into one batch; forward and backward.

On CUDA: Triton (`triton_attention`). Where there is none, PyTorch's fused kernels without dropout.
Else, and on a CPU: matrix products over windows of queries, each against only the keys it can see,
which leaves out what lies beyond the diagonal or, for short documents, too far back. PyTorch's
fused kernel for CPUs took 1.8 times as long at 128 and 256 positions and 5 times in bf16.

With S = s Q K^T + mask, P = softmax(S), P' = P dropped and scaled, O = P' V, and dX for dL/dX:
dV = P'^T dO, dP' = dO V^T, dP = dP' dropped and scaled, dS = P (dP - rowsum(dP P)),
dQ = s dS K, dK = s dS^T Q. Where several query heads share a key head, its gradients are sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.ops.dropout import Dropout, Site
from huggingtweets.ops.fused_attention import fused_attention, fused_attention_backward
from huggingtweets.ops.reference import Flash, Ops
from huggingtweets.ops.saved import Saved, differentiable

WINDOW = {"cpu": 64, "cuda": 256}
"""Queries per window, by device type."""

HIDDEN = -1e30
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
class Spans:
    """What Triton's kernel wants to know, (K * B, T) int32 each."""

    starts: Tensor
    """The first token that each sees."""
    ends: Tensor
    """How many tokens lie before the first that no longer sees each."""


@dataclass(frozen=True)
class View:
    """Where the tokens of a micro-batch may look."""

    windows: tuple[Window, ...]
    fused_mask: Tensor | None
    """(K * B, 1, T, T) booleans for PyTorch's fused kernels; None: causal."""
    use_fused: bool
    spans: Spans | None = None
    """For Triton's; None: back to the first."""


@dataclass(frozen=True)
class Heads:
    """How one layer attends."""

    num: int
    num_kv: int
    """Key and value heads, each shared by num / num_kv query heads."""
    scale: float
    """What scores are multiplied by."""
    layer: int
    """Which dropout masks are its own."""


def view_of(
    position_ids: Tensor,
    *,
    isolate: bool,
    reach: int,
    width: int,
    use_fused: bool,
    use_spans: bool = False,
    sliding: int | None = None,
) -> View:
    """Return where tokens may look: back to the first token of their block or of their document.

    Args:
        position_ids: (K, B, T) integers.
        isolate: a 0 among the positions begins a document, which sees nothing before it.
        reach: with `isolate`, the longest document; longer ones must have no targets.
        width: queries per window.
        use_fused: take PyTorch's kernels.
        use_spans: take Triton's.
        sliding: tokens see this many, themselves included, at most; None: no such limit.
    """
    T = position_ids.shape[-1]
    place = torch.arange(T, device=position_ids.device)
    starts = (place - position_ids).view(-1, 1, T, 1) if isolate else None
    if sliding is not None and sliding < T:
        # Later of the two: a document's start, and the first token within the window.
        nearest = (place - (sliding - 1)).view(1, 1, T, 1)
        starts = nearest if starts is None else starts.maximum(nearest)
        reach = min(reach, sliding) if isolate else sliding
    if use_spans:
        return View((), None, False, None if starts is None else _spans(starts, position_ids))
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
        bias = (hidden.float() * HIDDEN).view(-1, 1, stop - start, len(keys))
        windows.append(Window(start, stop, first, bias))
    return View(tuple(windows), None, False)


def _spans(starts: Tensor, position_ids: Tensor) -> Spans:
    flat = position_ids.flatten(0, -2)
    first = starts.view(-1, flat.shape[1]).clamp(min=0).int().expand(flat.shape).contiguous()
    place = torch.arange(flat.shape[1], dtype=torch.int32, device=flat.device)
    places = place.expand(flat.shape).contiguous()
    return Spans(first, torch.searchsorted(first, places, right=True, out_int32=True))


def attention(qkv: Tensor, view: View, heads: Heads, dropout: Dropout | None, ops: Ops) -> Tensor:
    """Return attention's output (n, T, heads * width) for n = K * B blocks of K models.

    Args:
        qkv: (n, T, (heads + 2 * num_kv) * width): queries, keys, values side by side.
        view: where tokens may look.
        heads: of the layer.
        dropout: of the attention weights.
        ops: what computes between the products.
    """
    if ops.flash is not None:
        return _by_triton(qkv, view.spans, heads, dropout, ops.flash)
    if view.use_fused:
        assert dropout is None, "PyTorch's kernels have no dropout of ours"
        return _by_pytorch(qkv, view.fused_mask, heads)
    return _by_windows(qkv, view.windows, heads, dropout, ops)


def _split(qkv: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys, values (n, heads, T, width), for every query head its own."""
    n, T, _ = qkv.shape
    by_head = qkv.view(n, T, heads.num + 2 * heads.num_kv, -1).transpose(1, 2)
    q, k, v = torch.split(by_head, [heads.num, heads.num_kv, heads.num_kv], 1)
    if heads.num == heads.num_kv:
        return q, k, v
    times = heads.num // heads.num_kv
    return q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)


def _by_triton(
    qkv: Tensor, spans: Spans | None, heads: Heads, dropout: Dropout | None, flash: Flash
) -> Tensor:
    """Attend by a kernel that hashes dropout itself."""
    starts, ends = (None, None) if spans is None else (spans.starts, spans.ends)
    random = dropout.all_heads(heads.layer, heads.num) if dropout else (None, None, None)
    numbers = heads.num, heads.num_kv, heads.scale

    def forward(qkv: Tensor) -> tuple[Tensor, Saved]:
        qkv = qkv.contiguous()
        out, sums = flash.forward(qkv, starts, *random, *numbers)
        return out, (out, sums, qkv, starts, ends, *random)

    def backward(saved: Saved, grad: Tensor) -> Tensor:
        found: Tensor = flash.backward(grad.contiguous(), *saved, *numbers)
        return found

    out: Tensor = differentiable(forward, backward, qkv)
    return out


def _by_pytorch(qkv: Tensor, mask: Tensor | None, heads: Heads) -> Tensor:
    """Attend by PyTorch's kernels."""
    n, T, _ = qkv.shape

    def forward(qkv: Tensor) -> tuple[Tensor, Saved]:
        q, k, v = _split(qkv, heads)
        bias = None if mask is None else _additive(mask, q.dtype).expand(n, heads.num, T, T)
        found = fused_attention(q, k, v, bias, heads.scale)
        return found[0].transpose(1, 2).reshape(n, T, -1), (q, k, v, bias, found)

    def backward(saved: Saved, grad: Tensor) -> Tensor:
        q, k, v, bias, found = saved
        grad = grad.view(n, T, heads.num, -1).transpose(1, 2)
        return _joined(fused_attention_backward(grad, q, k, v, bias, found, heads.scale), heads)

    out: Tensor = differentiable(forward, backward, qkv)
    return out


def _joined(grads: Sequence[Tensor] | Tensor, heads: Heads) -> Tensor:
    """Return gradients (n, heads, T, width) of queries, keys and values side by side.

    Those of keys and values that query heads share are added up.
    """
    n, num, T, width = grads[0].shape
    if num == heads.num_kv:
        stacked = grads if isinstance(grads, Tensor) else torch.stack(list(grads))
        return stacked.permute(1, 3, 0, 2, 4).reshape(n, T, -1)
    shared = [part.view(n, heads.num_kv, -1, T, width).sum(2) for part in grads[1:]]
    return torch.cat([grads[0], *shared], 1).transpose(1, 2).reshape(n, T, -1)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return booleans as what is added to scores; rows begin where CUDA's kernel can load them."""
    *sizes, columns = mask.shape
    padded = torch.zeros(*sizes, -(-columns // 16) * 16, dtype=dtype, device=mask.device)
    return padded[..., :columns].masked_fill_(mask.logical_not(), -torch.inf)


def attend_windows(
    q: Tensor, k: Tensor, v: Tensor, windows: Sequence[Window], num_heads: int,
    site_of: Callable[[range, range], Site | None], ops: Ops,
) -> tuple[Tensor, list[Saved]]:  # fmt: skip
    """Return attention's output, not made up for what is dropped, and what its backward pass needs.

    Args:
        q: scaled queries (n * heads, T, width).
        k: keys, likewise.
        v: values, likewise.
        windows: of the queries, one after another.
        num_heads: heads.
        site_of: gives the dropout of some rows and columns.
        ops: what computes between the products.
    """
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    saved: list[Saved] = []
    for window in windows:
        queries, keys = slice(window.start, window.stop), slice(window.first_key, window.stop)
        site = site_of(range(window.start, window.stop), range(window.first_key, window.stop))
        scores = torch.bmm(q[:, queries], k[:, keys].transpose(1, 2))
        weights, of_window = ops.softmax(scores, window.bias, site, num_heads=num_heads)
        saved.append(of_window)
        out[:, queries] = torch.bmm(weights, v[:, keys])
    return out, saved


def attend_windows_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, windows: Sequence[Window],
    saved: Sequence[Saved], ops: Ops,
) -> Tensor:  # fmt: skip
    """Return the gradients (3, n * heads, T, width) of scaled queries, keys and values."""
    grads = grad.new_zeros(3, *grad.shape)
    grad_q, grad_k, grad_v = grads.unbind(0)
    for window, of_window in zip(windows, saved, strict=True):
        queries, keys = slice(window.start, window.stop), slice(window.first_key, window.stop)
        grad_weights = torch.bmm(grad[:, queries], v[:, keys].transpose(1, 2))
        grad_scores, dropped = ops.softmax_backward(grad_weights, of_window)
        grad_v[:, keys] += torch.bmm(dropped.transpose(1, 2), grad[:, queries])
        grad_q[:, queries] = torch.bmm(grad_scores, k[:, keys])
        grad_k[:, keys] += torch.bmm(grad_scores.transpose(1, 2), q[:, queries])
    return grads


def _by_windows(
    qkv: Tensor, windows: Sequence[Window], heads: Heads, dropout: Dropout | None, ops: Ops
) -> Tensor:
    """Attend by matrix products over windows of queries."""
    n, T, _ = qkv.shape

    def site_of(rows: range, columns: range) -> Site | None:
        return dropout.heads(heads.layer, heads.num, rows, columns) if dropout else None

    def forward(qkv: Tensor) -> tuple[Tensor, Saved]:
        if heads.num == heads.num_kv:  # one copy for all three
            packed = qkv.view(n, T, 3, heads.num, -1).permute(2, 0, 3, 1, 4).contiguous()
            q, k, v = packed.view(3, n * heads.num, T, -1).unbind(0)
        else:
            q, k, v = (part.reshape(n * heads.num, T, -1) for part in _split(qkv, heads))
        # In place only in what was copied above; else queries are still part of the input.
        q = q.mul_(heads.scale) if heads.num == heads.num_kv else q * heads.scale
        out, of_windows = attend_windows(q, k, v, windows, heads.num, site_of, ops)
        if dropout is not None:  # once over the output, T / width times less than over weights
            out.view(n, -1).mul_(dropout.scales[1].unsqueeze(1))
        out = out.view(n, heads.num, T, -1).transpose(1, 2).reshape(n, T, -1)
        return out, (q, k, v, of_windows)

    def backward(saved: Saved, grad: Tensor) -> Tensor:
        q, k, v, of_windows = saved
        grad = grad.reshape(n, T, heads.num, -1).transpose(1, 2).contiguous()
        if dropout is not None:
            grad.view(n, -1).mul_(dropout.scales[1].unsqueeze(1))
        grad = grad.view(n * heads.num, T, -1)
        grads = attend_windows_backward(grad, q, k, v, windows, of_windows, ops)
        grads[0].mul_(heads.scale)
        return _joined(grads.view(3, n, heads.num, T, -1), heads)

    out: Tensor = differentiable(forward, backward, qkv)
    return out
