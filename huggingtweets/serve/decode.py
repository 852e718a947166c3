"""One token of every row of K stacked GPT-2 models, each row at a position of its own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.models.stack import Stack
from huggingtweets.ops.linear import project
from huggingtweets.ops.reference import PYTORCH


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
        shape.num_heads,
        num_positions,
        shape.width // shape.num_heads,
        dtype=stack.compute.wte.dtype,
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
    shape, master, dtype = stack.shape, stack.master, stack.compute.wte.dtype
    K, S = tokens.shape
    first = torch.arange(K, device=tokens.device).unsqueeze(1) * (len(stack.table) // K)
    places = positions.clamp(min=0)
    longest = int(places.max()) + 1  # sync: positions are known on the host
    x = F.embedding(tokens + first, stack.table)
    x += F.embedding(places + first + shape.padded_vocab_size, stack.table)
    k, s = torch.arange(K).unsqueeze(1).expand(K, S), torch.arange(S).expand(K, S)
    seen = torch.arange(longest, device=tokens.device) <= places.unsqueeze(-1)
    mask = torch.zeros(seen.shape, dtype=dtype, device=tokens.device).masked_fill_(
        ~seen, -torch.inf
    )
    mask = mask.view(K * S, 1, 1, longest)
    heads, width = shape.num_heads, shape.width // shape.num_heads
    for index, exact in enumerate(master.layers):
        normed = PYTORCH.norm(
            x, exact.norm_1_weight, exact.norm_1_bias, eps=shape.norm_eps, dtype=dtype
        )[0]
        qkv = project(normed, stack.linear(index, "qkv")).view(K, S, 3, heads, width)
        cache[index, 0][k, s, :, places] = qkv[:, :, 1]
        cache[index, 1][k, s, :, places] = qkv[:, :, 2]
        keys, values = (
            cache[index, which, :K, :, :, :longest].reshape(K * S, heads, longest, width)
            for which in (0, 1)
        )
        queries = qkv[:, :, 0].reshape(K * S, heads, 1, width)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=shape.score_scales[index]
        )
        x += project(mixed.reshape(K, S, -1), stack.linear(index, "attention"))
        normed = PYTORCH.norm(
            x, exact.norm_2_weight, exact.norm_2_bias, eps=shape.norm_eps, dtype=dtype
        )[0]
        inner = project(normed, stack.linear(index, "inner"))
        x += project(F.gelu(inner, approximate="tanh"), stack.linear(index, "outer"))
    normed = PYTORCH.norm(
        x, master.norm_f_weight, master.norm_f_bias, eps=shape.norm_eps, dtype=dtype
    )[0]
    logits = torch.bmm(normed, stack.compute.wte.transpose(1, 2)).float()
    return logits[..., : shape.vocab_size]
