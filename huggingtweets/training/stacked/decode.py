"""One decoding step of K models with S sequences each: tokens in, logits out, with a cache.

Every row stands at a position of its own and sees what the cache holds before it. So rows come and
go as they like: one that begins starts at position 0 in a free place of the cache, nothing need be
cleared, and one that has ended is no longer read. Shapes are fixed and no value is looked at: on
CUDA a step can be a graph.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from huggingtweets.kernels.rows import CompiledRowOps, RowOps, choose_row_ops
from huggingtweets.models.forward import MicroBatch, begin
from huggingtweets.models.layout import Shape
from huggingtweets.models.run import hidden_states
from huggingtweets.models.stack import Stack
from huggingtweets.ops.linear import product
from huggingtweets.ops.reference import Norm, Ops
from huggingtweets.ops.saved import Saved


@dataclass
class Cache:
    """Keys and values of K models with S rows each; of one thread."""

    layers: Tensor
    """(layers, 2, rows, heads, P, head width) in the precision of the products."""
    rows: Tensor
    """(K, S) int64: where in `layers` each row lies."""
    ops: RowOps

    def keep(self, chosen: Tensor) -> None:
        """Keep only the chosen (K, n) of the S rows, in that order; n of a model may be equal.

        The C++ reads rows wherever they lie; PyTorch's operators want them side by side.
        """
        self.rows = self.rows.gather(1, chosen)
        if not isinstance(self.ops, CompiledRowOps):
            self.layers = self.layers[:, :, self.rows.flatten()]
            self.rows = torch.arange(self.rows.numel(), device=chosen.device).view(chosen.shape)


def build_cache(stack: Stack, num_rows: int, num_positions: int) -> Cache:
    """Return room for `num_rows` rows of each model, of this many positions."""
    shape, device = stack.shape, stack.rows.device
    num, width = len(stack.rows), shape.head_width
    size = (shape.num_layers, 2, num * num_rows, shape.num_heads, num_positions, width)
    return Cache(
        torch.zeros(size, dtype=stack.dtype, device=device),
        torch.arange(num * num_rows, device=device).view(num, num_rows),
        choose_row_ops(device, num_positions=num_positions, head_width=width)
        if not any(shape.sliding)
        else RowOps(),
    )


@torch.no_grad()
def decode_step(
    stack: Stack, cache: Cache, tokens: Tensor, positions: Tensor, *, with_logits: bool = True
) -> Tensor | None:
    """Feed one token of each row.

    Args:
        stack: K models, with weights or adapters of their own.
        cache: of this stack; keeps the tokens' keys and values.
        tokens: (K, S) int64.
        positions: (K, S) int64: where in its sequence each token stands; below 0 it is nobody's.
        with_logits: not wanted as long as prompts are fed: the output embedding is most of a step.

    Returns:
        (K, S, V) fp32 logits of what follows; None if they are not wanted.
    """
    shape, places, rows = stack.shape, positions.flatten(), cache.rows.flatten()

    def attend(qkv: Tensor, index: int) -> Tensor:
        sliding = shape.sliding[index] if shape.sliding else None
        return cache.ops.attend(
            _for_all_heads(qkv, shape),
            cache.layers[index],
            rows,
            places,
            shape.score_scales[index],
            sliding,
        )

    ids, at = tokens.unsqueeze(2), positions.clamp(min=0).unsqueeze(2)
    batch = MicroBatch(ids, ids, at, views={}, ops=_Rows(cache.ops))
    hidden = hidden_states(replace(begin(stack, batch), attend=attend))
    if not with_logits:
        return None
    return product(hidden, stack.head.transpose(1, 2))[..., : shape.vocab_size].float()


def _for_all_heads(qkv: Tensor, shape: Shape) -> Tensor:
    """Give every query head keys and values of its own."""
    times = shape.num_heads // shape.num_kv_heads
    if times == 1:
        return qkv
    sizes = [shape.num_heads, shape.num_kv_heads, shape.num_kv_heads]
    heads = qkv.view(*qkv.shape[:2], -1, shape.head_width)
    q, k, v = torch.split(heads, sizes, 2)
    shared = (part.repeat_interleave(times, 2) for part in (k, v))
    return torch.cat([q, *shared], 2).flatten(2)


class _Rows(Ops):
    """What a forward pass asks of `Ops`, by `RowOps`: no gradient, scratch memory used again."""

    def __init__(self, rows: RowOps) -> None:
        self._rows = rows
        self._normed: Tensor | None = None

    def norm(self, x: Tensor, of: Norm, dtype: torch.dtype) -> tuple[Tensor, Saved]:
        if of.bias is None:
            return super().norm(x, of, dtype)
        if self._normed is None:
            self._normed = torch.empty_like(x, dtype=dtype)
        return self._rows.norm(x, of.weight, of.bias, of.eps, self._normed), None

    def gelu(self, inner: Tensor, *, use_fused: bool) -> tuple[Tensor, Saved]:
        return self._rows.gelu(inner), None

    def add_dropped(self, x: Tensor, branch: Tensor, noise: Saved) -> Tensor:
        self._rows.add(x, branch)
        return x


def draw_tokens(
    cache: Cache,
    logits: Tensor,
    *,
    temperatures: Tensor,
    top_ps: Tensor,
    banned: Tensor,
    uniforms: Tensor,
) -> Tensor:
    """Draw a token for each row from its nucleus; see `RowOps.draw`.

    Args:
        cache: the logits were made with.
        logits: (K, S, V) fp32; may be changed.
        temperatures: (K, S) fp32.
        top_ps: (K, S) fp32.
        banned: (K, S) int64: a token that is not drawn; below 0: none.
        uniforms: (K, S, draws) fp64; `num_draws` says how many.

    Returns:
        (K, S) int64.
    """
    drawn = cache.ops.draw(
        logits.flatten(0, 1),
        temperatures.flatten(),
        top_ps.flatten(),
        banned.flatten(),
        uniforms.flatten(0, 1),
    )
    return drawn.view(logits.shape[:2])
