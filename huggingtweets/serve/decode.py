"""One token of every row of K stacked models, each row at a position of its own."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.models.forward import MicroBatch, begin
from huggingtweets.models.run import hidden_states
from huggingtweets.models.stack import Stack
from huggingtweets.ops.attention import View


def build_cache(stack: Stack, num_rows: int, num_positions: int) -> Tensor:
    """Return room for the keys and values of K models with S rows each.

    Returns:
        (layers, 2, K, S, heads, positions, head width).
    """
    shape = stack.shape
    return torch.zeros(
        shape.num_layers,
        2,
        len(stack.rows),
        num_rows,
        shape.num_kv_heads,
        num_positions,
        shape.head_width,
        dtype=stack.dtype,
        device=stack.rows.device,
    )


@torch.no_grad()
def decode_step(stack: Stack, cache: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """Feed one token of each row and return fp32 logits (K, S, V).

    A row sees what its place of the cache holds before its position: it joins by starting at
    position 0 in any free place, and leaves by no longer being read.

    Args:
        stack: K models, the first of those that the cache was built for.
        cache: see `build_cache`; changed.
        tokens: (K, S) int64.
        positions: (K, S) int64, -1 for a row that is idle: computed, not kept.
    """
    shape, dtype = stack.shape, stack.dtype
    K, S = tokens.shape
    places = positions.clamp(min=0)
    longest = int(places.max()) + 1  # sync: positions are known on the host
    k, s = torch.arange(K).unsqueeze(1).expand(K, S), torch.arange(S).expand(K, S)
    place, last = torch.arange(longest, device=tokens.device), places.unsqueeze(-1)

    def attend(qkv: Tensor, index: int) -> Tensor:
        sliding = shape.sliding[index] if shape.sliding else None
        seen = place <= last
        if sliding is not None:
            seen &= place > last - sliding
        mask = torch.zeros(seen.shape, dtype=dtype, device=tokens.device)
        mask = mask.masked_fill_(~seen, -torch.inf).view(K * S, 1, 1, longest)
        sizes = [shape.num_heads, shape.num_kv_heads, shape.num_kv_heads]
        queries, *new = torch.split(qkv.view(K, S, -1, shape.head_width), sizes, 2)
        for kept, part in zip(cache[index], new, strict=True):
            kept[k, s, :, places] = part
        keys, values = (
            kept[:K, :, :, :longest].reshape(K * S, shape.num_kv_heads, longest, -1)
            for kept in cache[index]
        )
        mixed = F.scaled_dot_product_attention(
            queries.reshape(K * S, shape.num_heads, 1, -1),
            keys,
            values,
            attn_mask=mask,
            scale=shape.score_scales[index],
            enable_gqa=shape.num_heads != shape.num_kv_heads,
        )
        return mixed.reshape(K, S, -1)

    ids, at = tokens.unsqueeze(2), places.unsqueeze(2)
    batch = MicroBatch(ids, ids, at, View((), None, use_fused=False), fused_gelu=True)
    hidden = hidden_states(replace(begin(stack, batch), attend=attend))
    return torch.bmm(hidden, stack.head.transpose(1, 2)).float()[..., : shape.vocab_size]
