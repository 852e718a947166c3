"""Attention that never looks beyond its document, and costs no more than what it looks at.

Registered with transformers under `NAME`; a model takes it for every layer, and `Spans`, made
once per micro-batch, say where tokens may look. Five ways lead to the same numbers:

- windows, on a CPU: matrix products over runs of queries, each against the keys from the first
  document of the run on. PyTorch's kernel for CPUs leaves the fused path as soon as there is
  dropout, and computes the whole square.
- varlen, on CUDA in half precision with isolated documents: FlashAttention over documents of
  different lengths, dropout included. No square at all.
- masked, for other architectures: PyTorch's kernels under an explicit mask, or causal without one.
- additive, for those without such kernels: their own attention, with -1e30 added where a token
  must not look. Their code would add the booleans of a mask, and isolate nothing.
- apart, for those that take no mask or have no attention (Mamba): a row for each document.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from huggingtweets.models.grouped import Current
from huggingtweets.ops.attention import (
    HIDDEN,
    Window,
    attend_windows,
    attend_windows_backward,
)
from huggingtweets.ops.dropout import Site
from huggingtweets.ops.reference import PYTORCH
from huggingtweets.ops.saved import keep, kept
from huggingtweets.runtime.device import autocast_dtype
from huggingtweets.training.modules.hashed_dropout import draw_keys, threshold_and_scale
from huggingtweets.upstream import aten

_FLASH_VARLEN = aten("_flash_attention_forward")

NAME = "huggingtweets"
ISOLATED_WIDTH, JOINED_WIDTH = 64, 128
"""Queries of a window. Narrower windows compute less of what is hidden, wider ones make fewer,
larger products: measured at 128 to 1024 positions, 32 to 128 are equal within noise."""


class Attention(StrEnum):
    """How attention is computed."""

    windows = "windows"
    varlen = "varlen"
    masked = "masked"
    additive = "additive"
    apart = "apart"


@dataclass(frozen=True)
class Windows:
    """Where the tokens of one micro-batch may look, for a CPU."""

    runs: tuple[Window, ...]


@dataclass(frozen=True)
class Documents:
    """Where the documents of one micro-batch begin in its B * T tokens, for CUDA."""

    starts: Tensor
    """(most + 1,) int32, ascending; the last ones are all B * T where there are fewer documents."""
    longest: int


@dataclass(frozen=True)
class SlotWindows:
    """Where the tokens of K slots may look, for a CPU; each slot's windows fit its own blocks.

    Shared windows would begin with the longest document of any slot, and a slot's sums would run
    over other zeros beside other neighbours.
    """

    slots: tuple[Windows, ...]
    mask: Tensor | None
    """(K * B, 1, T, T) booleans: the same, for slots with dropout; None: there are none."""
    now: Current


Spans = Windows | Documents | SlotWindows


def document_mask(position_ids: Tensor) -> Tensor:
    """Return where attention may look: causal, and never across a restart of the positions.

    Args:
        position_ids: (B, T) integers; each 0 begins a document.

    Returns:
        (B, 1, T, T) booleans, True where the row may attend to the column.
    """
    documents = (position_ids == 0).cumsum(dim=1)
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril().unsqueeze(1)


def additive_mask(position_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `document_mask` as what is added to the scores: 0 where attention may look."""
    hidden = ~document_mask(position_ids)
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, HIDDEN)


def windows_of(position_ids: Tensor, *, isolate: bool, dtype: torch.dtype) -> Windows:
    """Return the windows of (B, T) blocks on a CPU.

    Args:
        position_ids: positions within the documents.
        isolate: a document sees nothing before its first token; else a block is one document.
        dtype: of the scores.
    """
    T = position_ids.shape[1]
    width = ISOLATED_WIDTH if isolate else JOINED_WIDTH
    place = torch.arange(T)
    starts = place - position_ids if isolate else torch.zeros(1, T, dtype=torch.long)
    first_keys = starts[:, ::width].amin(0).tolist()  # sync: on a CPU, which never waits
    runs = []
    for start, first in zip(range(0, T, width), first_keys, strict=True):
        stop, first = min(start + width, T), first // 2 * 2  # even: dropout masks come in pairs
        keys = place[first:stop]
        hidden = (keys > place[start:stop, None]) | (keys < starts[:, start:stop, None])
        bias = hidden.unsqueeze(1).to(dtype).mul_(HIDDEN)
        runs.append(Window(start, stop, first, bias))
    return Windows(tuple(runs))


def documents_of(position_ids: Tensor, *, most: int, longest: int) -> Documents:
    """Return where the documents of (B, T) blocks begin, without waiting for the device.

    Args:
        position_ids: positions within the documents.
        most: no fewer than there are documents; zeros among the positions.
        longest: tokens of the longest one, or more.
    """
    is_start = (position_ids == 0).flatten()
    total = is_start.numel()
    number = is_start.cumsum(0) - 1
    place = torch.arange(total, dtype=torch.int32, device=is_start.device)
    starts = torch.full((most + 1,), total, dtype=torch.int32, device=is_start.device)
    return Documents(starts.scatter_reduce(0, number, place, "amin"), longest)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    spans: Spans | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return (B, T, heads, head width) for (B, heads, T, head width), as transformers wants it."""
    if spans is None:
        # Heavy: it imports what compiles models.
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    key, value = (_for_all_heads(part, query.shape[1]) for part in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(spans, Documents):
        return _varlen(query, key, value, spans, dropout, scale), None
    run: Callable[..., Tensor] = _slot_by_slot if isinstance(spans, SlotWindows) else _windowed
    return run(query, key, value, spans, dropout, scale).transpose(1, 2), None


def register() -> None:
    """Have transformers know our attention by its name."""
    transformers.AttentionInterface.register(NAME, attend)


def _for_all_heads(part: Tensor, num_heads: int) -> Tensor:
    """Repeat keys or values that several query heads share."""
    times = num_heads // part.shape[1]
    return part if times == 1 else part.repeat_interleave(times, dim=1)


def _windowed(q: Tensor, k: Tensor, v: Tensor, spans: Windows, rate: float, scale: float) -> Tensor:
    dtype = autocast_dtype(q.device) or q.dtype
    q, k, v = (part.to(dtype) for part in (q, k, v))
    out: Tensor = _WindowedAttention.apply(q, k, v, spans.runs, rate, scale)  # type: ignore[no-untyped-call]
    return out


class _WindowedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        runs: tuple[Window, ...],
        rate: float,
        scale: float,
    ) -> Tensor:
        B, heads, T, _ = q.shape
        q, k, v = (part.reshape(B * heads, T, -1) for part in (q * scale, k, v))
        threshold, rescale = threshold_and_scale(rate)
        thresholds = threshold.expand(B * heads)
        keys = draw_keys(B * heads) if rate else None

        def site_of(rows: range, columns: range) -> Site | None:
            return None if keys is None else Site(keys, thresholds, rows, columns)

        out, saved = attend_windows(q, k, v, runs, heads, site_of, PYTORCH)
        if rate:
            out.mul_(rescale)
        keep(ctx, q, k, v, saved)
        ctx.runs, ctx.scale, ctx.rescale = runs, scale, rescale if rate else None
        return out.view(B, heads, T, -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, saved = kept(ctx)
        shape = grad.shape
        grad = grad.reshape(q.shape)
        if ctx.rescale is not None:
            grad = grad * ctx.rescale
        grads = attend_windows_backward(grad, q, k, v, ctx.runs, saved, PYTORCH)
        grads[0].mul_(ctx.scale)
        return (*(part.view(shape) for part in grads), None, None, None)


def _slot_by_slot(
    q: Tensor, k: Tensor, v: Tensor, spans: SlotWindows, rate: float, scale: float
) -> Tensor:
    """Attend within each slot by its windows, or explicitly where it drops weights."""
    dtype = autocast_dtype(q.device) or q.dtype
    q, k, v = (part.to(dtype) for part in (q, k, v))
    size = len(q) // len(spans.slots)

    def quick(blocks: slice) -> Tensor:
        own = spans.slots[blocks.start // size]
        return _windowed(q[blocks], k[blocks], v[blocks], own, 0.0, scale)

    if spans.mask is not None:
        return spans.now.attention((q, k, v), spans.mask, scale, rate, quick)
    return torch.cat([quick(slice(start, start + size)) for start in range(0, len(q), size)])


def _varlen(q: Tensor, k: Tensor, v: Tensor, spans: Documents, rate: float, scale: float) -> Tensor:
    """Run FlashAttention over documents; it has no kernel in fp32."""
    B, heads, T, width = q.shape
    dtype = autocast_dtype(q.device) or q.dtype
    flat = [part.to(dtype).transpose(1, 2).reshape(B * T, heads, width) for part in (q, k, v)]
    out: Tensor = _FLASH_VARLEN(
        *flat,
        spans.starts,
        spans.starts,
        spans.longest,
        spans.longest,
        rate,
        True,  # causal
        False,
        scale=scale,
    )[0]
    return out.view(B, T, heads, width)
