"""What decoding and scoring compute between matrix products: rows without a gradient.

By PyTorch's operators on any device, of fixed shapes and without looking at a value, so that a CUDA
graph can hold them; on a CPU by the C++ of compiled.cpp, which computes the same.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.kernels.compiled import CompiledOps, compiled_ops
from huggingtweets.ops.dropout import MAX_COLUMNS
from huggingtweets.runtime.device import by_kind, is_cpu

MAX_HEAD_WIDTH = 512
"""Of the C++: CHUNK of compiled.cpp."""

SCORED_LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Logits held at a time where nothing is learnt, by device type."""
MIN_SCORED = 128
"""Rows of them, at least. Of 50,257 words in fp32 these are 25 MiB: still in the reach of a CPU's
cache, and what the C library keeps (32 MiB). With 64 or 256 rows each costs a fifth more."""

_MISSED = 1e-9
"""How often at most the draws of a token may all lie outside the nucleus."""


def num_draws(top_p: float) -> int:
    """Return how many draws find a token of the nucleus, except for one time in a billion.

    What lies outside has the mass q = 1 - top_p. A draw from there leaves, of that mass, what is
    likelier than the token drawn: a share that is uniform between 0 and 1. So n draws in a row all
    miss with probability q^n / n!.
    """
    outside, num = max(1 - top_p, 0.0), 1
    while outside**num / math.factorial(num) > _MISSED:
        num += 1
    return num


def num_scored(device: torch.device, num_words: int) -> int:
    """Return for how many rows logits of this many words are held at a time."""
    return max(MIN_SCORED, by_kind(SCORED_LOGITS, device) // num_words)


class RowOps:
    """Of K models with S rows each, one token per row; by PyTorch's operators."""

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor) -> Tensor:
        """Return the layer norm of x (K, S, C) fp32, in the precision of `out`; may use it."""
        normed = F.layer_norm(x, x.shape[-1:], eps=eps)
        return torch.addcmul(bias.unsqueeze(1), normed, weight.unsqueeze(1)).to(out.dtype)

    def gelu(self, inner: Tensor) -> Tensor:
        """Return GELU by tanh; may change its input."""
        return F.gelu(inner, approximate="tanh")

    def add(self, x: Tensor, branch: Tensor) -> None:
        """Add to the residual stream x (K, S, C) fp32."""
        x.add_(branch)

    def attend(
        self,
        qkv: Tensor,
        cache: Tensor,
        rows: Tensor,
        positions: Tensor,
        scale: float,
        sliding: int | None = None,
    ) -> Tensor:
        """Keep each row's key and value and return what it attends to, (K, S, C).

        Args:
            qkv: (K, S, 3 C).
            cache: (2, all rows, heads, P, head width): keys and values of one layer.
            rows: (n,) int64, n = K * S: which of the cache each is; here all, in their order.
            positions: (n,) int64: place of the token in its sequence; below 0 it is nobody's, and
                what is kept of it at 0 is written over by whoever begins there.
            scale: of the scores.
            sliding: how many tokens are seen at most, its own included; None: all.
        """
        heads, limit, width = cache.shape[2:]
        parts = qkv.view(len(rows), 3, heads, 1, width)
        keys, values = cache.unbind(0)
        place = positions.clamp(min=0).view(-1, 1, 1, 1).expand(-1, heads, 1, width)
        keys.scatter_(2, place, parts[:, 1])
        values.scatter_(2, place, parts[:, 2])
        column, last = torch.arange(limit, device=qkv.device), place[..., :1]
        seen = column <= last
        if sliding is not None:
            seen &= column > last - sliding
        seen = seen[:, :1]
        mixed = F.scaled_dot_product_attention(
            parts[:, 0], keys, values, attn_mask=seen, scale=scale
        )
        return mixed.reshape(qkv.shape[0], qkv.shape[1], -1)

    def draw(
        self,
        logits: Tensor,
        temperatures: Tensor,
        top_ps: Tensor,
        banned: Tensor,
        uniforms: Tensor,
    ) -> Tensor:
        """Draw a token for each row from its nucleus: the likeliest that make up top_p.

        A token is drawn from all. Where those likelier than it make up top_p already, it lies
        outside, and one of those is drawn instead, and so on (`num_draws`): what comes out of the
        nucleus is distributed as it is there, and nothing is sorted.

        Args:
            logits: (n, V).
            temperatures: (n,) fp32.
            top_ps: (n,) fp32.
            banned: (n,) int64: a token that is not drawn; below 0: none.
            uniforms: (n, draws) fp64, from 0 to below 1.

        Returns:
            (n,) int64.
        """
        scores = logits.float() / temperatures.unsqueeze(1)
        column = torch.arange(logits.shape[1], device=logits.device)
        scores.masked_fill_(column == banned.unsqueeze(1), -torch.inf)
        weights = (scores - scores.amax(1, keepdim=True)).exp_()
        found = weights.argmax(1, keepdim=True)
        goal = weights.sum(1, keepdim=True, dtype=torch.float64) * top_ps.unsqueeze(1).double()
        cut = torch.full_like(weights[:, :1], -1.0)
        is_open = torch.ones_like(found, dtype=torch.bool)
        for draw in range(uniforms.shape[1]):
            steps = (weights * (weights > cut)).double().cumsum(1)
            mark = uniforms[:, draw : draw + 1] * steps[:, -1:]
            drawn = torch.searchsorted(steps, mark, right=True).clamp_(max=logits.shape[1] - 1)
            weight = weights.gather(1, drawn)
            above = (weights * (weights > weight)).sum(1, keepdim=True, dtype=torch.float64)
            is_inside = above < goal
            found = torch.where(is_open & is_inside, drawn, found)
            is_open = is_open & ~is_inside
            cut = torch.where(is_inside, cut, weight)
        return found.squeeze(1)

    def score(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nats (n,) fp32 of each target, and whether it is the likeliest token.

        Args:
            logits: (n, V); may be changed.
            targets: (n,) int64.
        """
        logits = logits.float()
        of_target = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
        hits = logits.argmax(1) == targets  # of equal ones, as in bf16, one is the likeliest
        return torch.logsumexp(logits, 1) - of_target, hits


class CompiledRowOps(RowOps):
    """`RowOps` in C++, on the calling thread alone; one object for one thread.

    It keeps its scratch memory: what PyTorch allocates for each of some hundred small results is a
    fifth of the time of a decoding step.
    """

    def __init__(self, ops: CompiledOps) -> None:
        """Take the functions of a library."""
        self._call = ops.call
        self._scratch: dict[str, Tensor] = {}

    def _room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return memory that is used again by the next call of this name."""
        kept = self._scratch.get(name)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._scratch[name] = torch.empty(shape, dtype=dtype)
        return kept

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor) -> Tensor:
        """See `RowOps`."""
        normalised = self._room("normalised", tuple(x.shape), torch.float32)
        inverse = self._room("inverse", tuple(x.shape[:2]), torch.float32)
        strides = [part.stride(0) if len(part) > 1 else 0 for part in (weight, bias)]
        self._call(
            out.dtype, "norm", normalised.data_ptr(), inverse.data_ptr(), out.data_ptr(),
            x.data_ptr(), weight.data_ptr(), bias.data_ptr(), *x.shape, *strides, eps,
        )  # fmt: skip
        return out

    def gelu(self, inner: Tensor) -> Tensor:
        """See `RowOps`."""
        self._call(inner.dtype, "gelu", inner.data_ptr(), inner.data_ptr(), inner.numel())
        return inner

    def add(self, x: Tensor, branch: Tensor) -> None:
        """See `RowOps`."""
        self._call(branch.dtype, "add", x.data_ptr(), branch.data_ptr(), x.numel())

    def attend(
        self,
        qkv: Tensor,
        cache: Tensor,
        rows: Tensor,
        positions: Tensor,
        scale: float,
        sliding: int | None = None,
    ) -> Tensor:
        """See `RowOps`; the C++ knows no sliding windows."""
        assert sliding is None
        _, num_all, heads, limit, width = cache.shape
        out = self._room("attended", (*qkv.shape[:2], heads * width), qkv.dtype)
        values = cache.data_ptr() + num_all * heads * limit * width * cache.element_size()
        self._call(
            qkv.dtype, "attend_rows", out.data_ptr(), qkv.data_ptr(), cache.data_ptr(), values,
            rows.data_ptr(), positions.data_ptr(), len(rows), heads, limit, width, scale,
        )  # fmt: skip
        return out

    def draw(
        self,
        logits: Tensor,
        temperatures: Tensor,
        top_ps: Tensor,
        banned: Tensor,
        uniforms: Tensor,
    ) -> Tensor:
        """See `RowOps`."""
        num, vocab_size = logits.shape
        tokens = torch.empty(num, dtype=torch.int64)
        weights = self._room("weights", (vocab_size,), torch.float32)
        sums = self._room("sums", (vocab_size // MAX_HEAD_WIDTH + 1,), torch.float64)
        self._call(
            logits.dtype, "draw_rows", tokens.data_ptr(), logits.data_ptr(),
            temperatures.data_ptr(), top_ps.data_ptr(), banned.data_ptr(), uniforms.data_ptr(),
            weights.data_ptr(), sums.data_ptr(), num, logits.stride(0), vocab_size,
            uniforms.shape[1],
        )  # fmt: skip
        return tokens

    def score(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `RowOps`."""
        num, vocab_size = logits.shape
        nats, hits = torch.empty(num), torch.empty(num, dtype=torch.bool)
        targets = targets.contiguous()
        self._call(
            logits.dtype, "score_rows", nats.data_ptr(), hits.data_ptr(), logits.data_ptr(),
            targets.data_ptr(), num, logits.stride(0), vocab_size,
        )  # fmt: skip
        return nats, hits


_REFERENCE = RowOps()


def choose_row_ops(device: torch.device, *, num_positions: int, head_width: int) -> RowOps:
    """Return what computes fastest on a device; for one thread."""
    fits = num_positions <= MAX_COLUMNS and head_width <= MAX_HEAD_WIDTH
    ops = compiled_ops() if is_cpu(device) and fits else None
    return CompiledRowOps(ops) if isinstance(ops, CompiledOps) else _REFERENCE
