"""One decoding step of K models with S sequences each: tokens in, logits out, with a cache.

Every row stands at a position of its own and sees what the cache holds before it. So rows come and
go as they like: one that begins starts at position 0 in a free place of the cache, nothing need be
cleared, and one that has ended is no longer read. Shapes are fixed and no value is looked at: on
CUDA a step can be a graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.ops.linear import product, project
from huggingtweets.ops.rows import CompiledRowOps, RowOps, choose_row_ops
from huggingtweets.training.array.models import Stack


@dataclass
class Cache:
    """Keys and values of K models with S rows each; of one thread."""

    layers: Tensor
    """(layers, 2, rows, heads, P, head width) in the precision of the products."""
    rows: Tensor
    """(K, S) int64: where in `layers` each row lies."""
    tables: Tensor
    """(K or 1, 1) int64: where in the table of embeddings each model's begin."""
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
    """Return room for `num_rows` rows of each model, of so many positions."""
    shape, device = stack.shape, stack.rows.device
    num, width = len(stack.rows), shape.width // shape.num_heads
    models = len(stack.master.wte)
    size = (shape.num_layers, 2, num * num_rows, shape.num_heads, num_positions, width)
    return Cache(
        torch.zeros(size, dtype=stack.compute.wte.dtype, device=device),
        torch.arange(num * num_rows, device=device).view(num, num_rows),
        torch.arange(models, device=device).unsqueeze(1) * (len(stack.table) // models),
        choose_row_ops(device, num_positions=num_positions, head_width=width),
    )


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
    shape, master, ops = stack.shape, stack.master, cache.ops
    places = positions.flatten()
    x = F.embedding(tokens + cache.tables, stack.table)
    first = cache.tables + shape.padded_vocab_size
    x += F.embedding(positions.clamp(min=0) + first, stack.table)
    normed = torch.empty_like(x, dtype=stack.compute.wte.dtype)
    rows = cache.rows.flatten()

    def norm(weight: Tensor, bias: Tensor) -> Tensor:
        return ops.norm(x, weight, bias, shape.norm_eps, normed)

    for index, layer in enumerate(master.layers):
        qkv = project(norm(layer.norm_1_weight, layer.norm_1_bias), stack.linear(index, "qkv"))
        scale = shape.score_scales[index]
        mixed = ops.attend(qkv, cache.layers[index], rows, places, scale)
        ops.add(x, project(mixed, stack.linear(index, "attention")))
        inner = project(norm(layer.norm_2_weight, layer.norm_2_bias), stack.linear(index, "inner"))
        ops.add(x, project(ops.gelu(inner), stack.linear(index, "outer")))
    if not with_logits:
        return None
    hidden = norm(master.norm_f_weight, master.norm_f_bias)
    logits = product(hidden, stack.compute.wte.transpose(1, 2))
    return logits[..., : shape.vocab_size].float()


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
