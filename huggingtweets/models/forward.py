"""One forward pass of K models over a micro-batch: what the families' files are written in.

A `Pass` knows the weights, where their gradients go, and what computes; a family says in which
order. Differentiable where there is somewhere to put gradients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.models.layout import Shape
from huggingtweets.models.stack import Stack, gradients_of
from huggingtweets.ops.attention import WINDOW, Heads, View, attention, view_of
from huggingtweets.ops.dropout import Dropout, ScaledSite, residual_site
from huggingtweets.ops.embedding import embedding
from huggingtweets.ops.norm import norm
from huggingtweets.ops.reference import PYTORCH, Norm, Ops
from huggingtweets.ops.residual import Activation, Branch, Projection, Stream, branch_out
from huggingtweets.ops.rotary import Angles, angles_of, rotary
from huggingtweets.runtime.device import by_kind


@dataclass(frozen=True)
class MicroBatch:
    """B blocks for each of K slots, on the device."""

    input_ids: Tensor
    """(K, B, T) int64."""
    targets: Tensor
    """(K, B, T) int64, IGNORED where there is nothing to learn."""
    position_ids: Tensor
    """(K, B, T) int64."""
    views: Mapping[int | None, View]
    """Where tokens may look; made from the positions: in layers that see so many tokens only."""
    dropout: Dropout | None = None
    ops: Ops = PYTORCH
    """What computes between the products."""
    fused_gelu: bool = False
    """GELU by PyTorch's own kernel."""


@dataclass(frozen=True)
class Pass:
    """A forward pass; tensors are (K, R, C), R = B * T tokens, unless said otherwise."""

    stack: Stack
    batch: MicroBatch
    grads: Stack | None = None
    """Where gradients go; None: nothing is differentiated."""
    accumulate: bool = False
    """Add to the gradients that are there."""
    angles: Angles | None = None
    attend: Callable[[Tensor, int], Tensor] | None = None
    """Takes the place of attention over the micro-batch: queries, keys and values, layer -> what
    attention gives. With a cache, for decoding."""

    def embedding(self, **ids: Tensor) -> Tensor:
        """Return the sum of embeddings for each token, with dropout: ids (K, B, T) by table."""
        out = None
        if self.grads is not None and self.grads.adapters is None:
            out = self.grads.table
            for name in () if self.accumulate else ids:
                is_written = name == "wte" and self.stack.shape.is_tied  # by the head
                if not is_written:
                    self.grads.master.own[name].zero_()
        rows = [self._rows(name, of_table) for name, of_table in ids.items()]
        return embedding(rows, self.stack.table, out, self._site(0, 0), self.batch.ops)

    def _rows(self, name: str, ids: Tensor) -> Tensor:
        """Return which rows (K, R) of `stack.table` are these embeddings."""
        # `stack.table` is all rows of the K models, one after another, cut in widths: a model has
        # so many of them, and a storage offset tells at which one an embedding begins.
        table = self.stack.master.own[name]
        per_model = len(self.stack.table) // len(table)
        first = table[0].storage_offset() - self.stack.table.storage_offset()
        models = torch.arange(len(table), device=ids.device).unsqueeze(1)
        return ids.flatten(1) + (models * per_model + first // table.shape[-1])

    def branch(
        self, x: Stream, index: int, norm: str, to: str, *, activate: bool = False
    ) -> tuple[Stream, Tensor]:
        """Return the stream, to go on with, and what a linear layer makes of its norm.

        With `activate` the activation of the feed-forward layers follows.
        """
        by = self._linear(index, to, activate=activate)
        return branch_out(x, self.norm_named(norm, index), by, self.batch.ops)

    def join(self, x: Stream, h: Tensor, index: int, name: str, which: int) -> Stream:
        """Return the stream to which is added what a linear layer makes of h, with dropout.

        `which` is 0 after attention and 1 after the feed-forward layers.
        """
        site = self._site(2, residual_site(index, self.stack.shape.num_heads, which))
        assert x.branch is None
        return Stream(x.x, h, Branch(self._linear(index, name), site))

    def _linear(self, index: int, name: str, *, activate: bool = False) -> Projection:
        out = None if self.grads is None else self.grads.gradients(index, name)
        how = None
        if activate:
            how = Activation(self.stack.shape.is_gated, self.batch.fused_gelu)
        return Projection(self.stack.linear(index, name), out, self.accumulate, how)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Return the norm of the stream after the last layer."""
        return norm(x, self.norm_named(name), self.stack.dtype, self.batch.ops)

    def norm_named(self, name: str, index: int | None = None) -> Norm:
        """Return a norm of a layer, or the last one, and where its gradients go."""

        def part(stack: Stack) -> Mapping[str, Tensor]:
            return stack.master.own if index is None else stack.master.layers[index]

        weights, out = part(self.stack), None
        if self.grads is not None and self.grads.adapters is None:
            out = gradients_of(part(self.grads), name)
        eps = self.stack.shape.norm_eps
        weight, bias = weights[f"{name}_weight"], weights.get(f"{name}_bias")
        return Norm(weight, bias, eps, out, self.accumulate)

    def norm_heads(self, qkv: Tensor, index: int, q_name: str, k_name: str) -> Tensor:
        """Return queries, keys and values, each head of the first two normed by itself."""
        shape, K = self.stack.shape, len(qkv)
        sizes = [shape.num_heads, shape.num_kv_heads, shape.num_kv_heads]
        parts = torch.split(qkv.view(*qkv.shape[:2], -1, shape.head_width), sizes, 2)
        normed = [
            norm(
                part.reshape(K, -1, shape.head_width),
                self.norm_named(name, index),
                qkv.dtype,
                self.batch.ops,
            ).view(part.shape)
            for part, name in zip(parts, (q_name, k_name), strict=False)
        ]
        return torch.cat([*normed, parts[2]], 2).view(qkv.shape)

    def turn(self, qkv: Tensor, index: int) -> Tensor:
        """Return queries, keys and values, the first two turned by their positions."""
        shape, places = self.stack.shape, self.batch.position_ids
        if shape.rotary is None or self.angles is None or not shape.rotary.layers[index]:
            return qkv
        heads = qkv.view(
            -1, places.shape[-1], shape.num_heads + 2 * shape.num_kv_heads, shape.head_width
        )
        turned = rotary(heads, self.angles, shape.num_heads + shape.num_kv_heads)
        return turned.view(qkv.shape)

    def attention(self, qkv: Tensor, index: int) -> Tensor:
        """Return attention's output for queries, keys and values side by side."""
        if self.attend is not None:
            return self.attend(qkv, index)
        shape, batch = self.stack.shape, self.batch
        sliding = shape.sliding[index] if shape.sliding else None
        out = attention(
            qkv.view(-1, batch.input_ids.shape[-1], qkv.shape[-1]),
            batch.views[sliding],
            Heads(shape.num_heads, shape.num_kv_heads, shape.score_scales[index], index),
            batch.dropout if shape.can_drop[1] else None,
            batch.ops,
        )
        return out.view(*qkv.shape[:2], -1)

    def _site(self, kind: int, site: int) -> ScaledSite | None:
        if self.batch.dropout is None or not self.stack.shape.can_drop[kind]:
            return None
        length, width = self.batch.input_ids.shape[-1], self.stack.shape.width
        return self.batch.dropout.residual(site, length, width)


def begin(
    stack: Stack, batch: MicroBatch, grads: Stack | None = None, *, accumulate: bool = False
) -> Pass:
    """Return a pass over a micro-batch, with the angles of its positions where there are any."""
    angles, turning = None, stack.shape.rotary
    if turning is not None and stack.frequencies is not None:
        places = batch.position_ids.flatten(0, 1)
        angles = angles_of(places, stack.frequencies, factor=turning.factor, dtype=torch.float32)
    return Pass(stack, batch, grads, accumulate, angles)


def micro_batch(
    shape: Shape,
    blocks: tuple[Tensor, Tensor, Tensor],
    *,
    isolate: bool,
    reach: int,
    use_fused: bool,
    dropout: Dropout | None = None,
    ops: Ops = PYTORCH,
    fused_gelu: bool = False,
) -> MicroBatch:
    """Return B blocks for each of K models, and where their tokens may look.

    Args:
        shape: of the models.
        blocks: ids, targets and positions, (K, B, T) int64 each.
        isolate: see `view_of`, as of `reach` and `use_fused`.
        reach: likewise.
        use_fused: likewise.
        dropout: None: there is none.
        ops: what computes between the products.
        fused_gelu: GELU by PyTorch's own kernel.
    """
    views = {
        sliding: view_of(
            blocks[2],
            isolate=isolate,
            reach=reach,
            width=by_kind(WINDOW, blocks[0].device),
            use_fused=use_fused,
            use_spans=ops.flash is not None,
            sliding=sliding,
        )
        for sliding in {None, *shape.sliding}
    }
    return MicroBatch(*blocks, views, dropout, ops, fused_gelu)
