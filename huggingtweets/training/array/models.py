"""The forward and backward pass of K GPT-2 models at once, written out by hand.

Every layer is one batched matrix product over K; no operation mixes slots. Written out because a
backward pass of our own writes gradients where the optimizer wants them, keeps or recomputes
whatever is cheaper, and needs none of autograd's bookkeeping. Equality with transformers'
GPT2LMHeadModel is tested.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.data.blocks import IGNORED
from huggingtweets.ops.dropout import Dropout, residual_site
from huggingtweets.ops.head import CHUNK_LOGITS, MIN_ROWS, summed_loss
from huggingtweets.ops.linear import (
    Gradients,
    Linear,
    LowRank,
    product,
    project,
    project_backward,
)
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.ops.rows import RowOps
from huggingtweets.ops.saved import Saved
from huggingtweets.runtime.device import by_kind, is_cpu
from huggingtweets.training.array.attention import Saved as SavedAttention
from huggingtweets.training.array.attention import View, attend, attend_backward
from huggingtweets.training.array.layout import Layout, Parameters, Shape


@dataclass(frozen=True)
class Adapters:
    """Low-rank additions to the linear layers of K models: one mapping a layer, by name."""

    master: tuple[Mapping[str, LowRank], ...]
    """Views of the rows of a stack."""
    compute: tuple[Mapping[str, LowRank], ...]
    """The same in the precision of the matrix products."""
    scale: Tensor
    """(K,) fp32."""

    def slots(self, start: int, stop: int) -> "Adapters":
        """Return those of some neighbouring slots; shares memory."""
        master, compute = (
            tuple(
                {name: part.map(lambda tensor: tensor[start:stop]) for name, part in layer.items()}
                for layer in layers
            )
            for layers in (self.master, self.compute)
        )
        return Adapters(master, compute, self.scale[start:stop])

    def refresh(self) -> None:
        """Bring the copy up to date with the master."""
        copies, masters = (
            [tensor for layer in layers for part in layer.values() for tensor in part.tensors()]
            for layers in (self.compute, self.master)
        )
        if copies[0].dtype != masters[0].dtype:
            torch._foreach_copy_(copies, masters)


@dataclass(frozen=True)
class Stack:
    """K models of one shape, with weights of their own or with adapters on one frozen base."""

    shape: Shape
    rows: Tensor
    """(K, N) fp32, contiguous: what is trained."""
    master: Parameters
    """fp32: views of the rows, or the frozen base as the only model."""
    compute: Parameters
    """What the matrix products use: the master itself, or its copy in bf16. The copy is no row but
    tensors of their own: bf16 products on a CPU would copy what is not contiguous."""
    table: Tensor
    """(n, C): the rows that hold the embeddings, cut in widths."""
    adapters: Adapters | None = None

    def slots(self, start: int, stop: int) -> "Stack":
        """Return the stack of some neighbouring slots; shares memory."""
        rows = self.rows[start:stop]
        if self.adapters is not None:
            return replace(self, rows=rows, adapters=self.adapters.slots(start, stop))
        master = self.master.map(lambda tensor: tensor[start:stop])
        compute = master
        if self.compute is not self.master:
            compute = self.compute.map(lambda tensor: tensor[start:stop])
        return Stack(self.shape, rows, master, compute, rows.view(-1, self.shape.width))

    def refresh(self) -> None:
        """Bring the copy up to date with the master."""
        if self.adapters is not None:
            self.adapters.refresh()
        elif self.compute is not self.master:
            torch._foreach_copy_(self.compute.tensors(), self.master.tensors())

    def linear(self, index: int, name: str) -> Linear:
        """Return a linear layer of layer `index`, in the precision of the matrix products."""
        layer = self.compute.layers[index]
        weight, bias = getattr(layer, f"{name}_weight"), getattr(layer, f"{name}_bias")
        if self.adapters is None:
            return Linear(weight, bias)
        return Linear(weight, bias, self.adapters.compute[index][name], self.adapters.scale)

    def gradients(self, index: int, name: str) -> Gradients:
        """Return where the gradients of a linear layer go, in a stack of gradients."""
        if self.adapters is not None:
            adapter = self.adapters.master[index][name]
            return Gradients(adapter.down, adapter.up)
        layer = self.master.layers[index]
        return Gradients(getattr(layer, f"{name}_weight"), getattr(layer, f"{name}_bias"))

    def norm_gradients(self, index: int, number: int) -> Gradients | None:
        """Return where those of a layer norm go; None: nowhere, it is frozen."""
        return None if self.adapters is not None else self.gradients(index, f"norm_{number}")


def build_stack(layout: Layout, rows: Tensor, dtype: torch.dtype) -> Stack:
    """Return the stack of a contiguous (K, N) fp32 buffer, for products in fp32 or bf16."""
    master = layout.stack(rows)
    is_same = dtype == rows.dtype
    compute = master if is_same else master.map(lambda t: t.to(dtype, copy=True).contiguous())
    return Stack(layout.shape, rows, master, compute, rows.view(-1, layout.shape.width))


@dataclass(frozen=True)
class MicroBatch:
    """B blocks for each of K slots, on the device."""

    input_ids: Tensor
    """(K, B, T) int64."""
    targets: Tensor
    """(K, B, T) int64, IGNORED where there is nothing to learn."""
    position_ids: Tensor
    """(K, B, T) int64."""
    view: View
    """Where tokens may look; made from the positions."""
    dropout: Dropout | None = None
    ops: Ops = PYTORCH
    """What computes between the products."""
    fused_gelu: bool = False
    """GELU by PyTorch's own kernel."""

    def noise(self, site: int, x: Tensor) -> Saved:
        """Return what drops elements of tensors like x (K, R, C) at a residual site."""
        if self.dropout is None:
            return self.ops.noise(None, x)
        length, width = self.input_ids.shape[-1], x.shape[-1]
        return self.ops.noise(self.dropout.residual(site, length, width), x)


@dataclass(frozen=True)
class _SavedLayer:
    """What the backward pass needs of one layer; tensors (K, R, ...), R = B * T tokens."""

    norm_1: Saved
    attention_in: Tensor
    attention: SavedAttention
    attention_out: Tensor
    norm_2: Saved
    mlp_in: Tensor
    gelu: Saved
    activated: Tensor
    noises: tuple[Saved, Saved]


@torch.no_grad()
def loss_and_gradients(
    stack: Stack,
    grads: Stack,
    batch: MicroBatch,
    weight: Tensor,
    *,
    accumulate: bool,
    recompute: bool = False,
) -> Tensor:
    """Run one micro-batch forward and backward.

    Args:
        stack: the models.
        grads: another stack, fp32; receives the gradients of each slot's summed loss times its
            weight.
        batch: what to learn.
        weight: (K,) fp32; one over the targets of the slot's optimizer step.
        accumulate: add to what is in `grads` instead of replacing it.
        recompute: keep only the input of each layer for the backward pass, and compute the rest
            again.

    Returns:
        (K,) summed losses in nats, fp32.
    """
    saved: list[_SavedLayer] = []
    inputs: list[Tensor] = []
    ops = batch.ops
    hidden, norm_f, noise = _hidden_states(
        stack, batch, saved=None if recompute else saved, inputs=inputs if recompute else None
    )
    loss, grad = summed_loss(
        hidden,
        stack.compute.wte,
        batch.targets.flatten(1),
        vocab_size=stack.shape.vocab_size,
        weight=weight,
        grad_table=grads.master.wte if grads.adapters is None else None,
        accumulate=accumulate,
        ops=ops,
    )
    out = None
    if grads.adapters is None:
        out = Gradients(grads.master.norm_f_weight, grads.master.norm_f_bias)
    grad = ops.norm_backward(grad, norm_f, stack.master.norm_f_weight, out, accumulate=accumulate)
    for index in reversed(range(stack.shape.num_layers)):
        layer = _layer_forward(stack, index, inputs.pop(), batch) if recompute else saved.pop()
        _layer_backward(stack, grads, index, grad, layer, batch, accumulate=accumulate)
    if grads.adapters is not None:
        return loss
    grad = ops.drop(grad, noise, grad.dtype).view(-1, grad.shape[-1])
    if not accumulate:
        grads.master.wpe.zero_()
    for rows in _embedding_rows(stack, batch):
        grads.table.index_add_(0, rows.flatten(), grad)
    return loss


@torch.no_grad()
def summed_losses(stack: Stack, batch: MicroBatch, hits: Tensor | None = None) -> Tensor:
    """Return each slot's summed loss in nats, (K,) fp32, without gradients.

    `hits` (K, B, T) receives whether each target is the likeliest token.
    """
    hidden, _, _ = _hidden_states(stack, batch)
    loss, _ = summed_loss(
        hidden,
        stack.compute.wte,
        batch.targets.flatten(1),
        vocab_size=stack.shape.vocab_size,
        hits=hits.flatten(1) if hits is not None else None,
        ops=batch.ops,
    )
    return loss


@torch.no_grad()
def target_scores(stack: Stack, batch: MicroBatch, rows: RowOps) -> tuple[Tensor, Tensor]:
    """Return the nats (K, B, T) fp32 of every target, and whether each is the likeliest token.

    Without gradients, and never with all logits at once. 0 and false where there is no target;
    of a lone model on a CPU the output embedding is not computed there.
    """
    hidden, _, _ = _hidden_states(stack, batch)
    targets = batch.targets.flatten(1)
    counts = targets != IGNORED
    nats, hits = torch.zeros_like(targets, dtype=torch.float32), torch.zeros_like(counts)
    chosen = slice(None)
    if len(hidden) == 1 and is_cpu(hidden.device):
        chosen = counts[0].nonzero().squeeze(1)  # type: ignore[assignment]
    hidden, goals = hidden[:, chosen], targets[:, chosen].clamp(min=0)
    found = torch.empty_like(goals, dtype=torch.float32)
    is_hit = torch.empty_like(goals, dtype=torch.bool)
    table = stack.compute.wte.transpose(1, 2)
    held = by_kind(CHUNK_LOGITS, hidden.device, 2**26)
    size = max(MIN_ROWS, held // (len(hidden) * table.shape[2]))
    for start in range(0, hidden.shape[1], size):
        part = slice(start, start + size)
        logits = product(hidden[:, part], table)[..., : stack.shape.vocab_size]
        one, other = rows.score(logits.flatten(0, 1), goals[:, part].flatten())
        found[:, part], is_hit[:, part] = one.view(len(hidden), -1), other.view(len(hidden), -1)
    nats[:, chosen], hits[:, chosen] = found, is_hit
    nats = torch.where(counts, nats, 0.0)
    return nats.view_as(batch.targets), (hits & counts).view_as(batch.targets)


@torch.no_grad()
def logits(stack: Stack, batch: MicroBatch) -> Tensor:
    """Return all logits, (K, B, T, vocabulary) in the compute precision."""
    hidden, _, _ = _hidden_states(stack, batch)
    scores = product(hidden, stack.compute.wte.transpose(1, 2))
    return scores.view(*batch.input_ids.shape, -1)[..., : stack.shape.vocab_size]


def _hidden_states(
    stack: Stack,
    batch: MicroBatch,
    *,
    saved: list[_SavedLayer] | None = None,
    inputs: list[Tensor] | None = None,
) -> tuple[Tensor, Saved, Saved]:
    """Return what the output embedding reads (K, R, C), and what the backward pass needs of it.

    What it needs of the layers, or their inputs, is added to the lists.
    """
    tokens, positions = _embedding_rows(stack, batch)
    x = F.embedding(tokens, stack.table)
    x += F.embedding(positions, stack.table)
    noise = batch.noise(0, x)
    x = batch.ops.drop(x, noise, x.dtype)
    for index in range(stack.shape.num_layers):
        if inputs is not None:
            inputs.append(x.clone())
        layer = _layer_forward(stack, index, x, batch)
        if saved is not None:
            saved.append(layer)
    hidden, norm_f = batch.ops.norm(
        x,
        stack.master.norm_f_weight,
        stack.master.norm_f_bias,
        eps=stack.shape.norm_eps,
        dtype=stack.compute.wte.dtype,
    )
    return hidden, norm_f, noise


def _embedding_rows(stack: Stack, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return which rows of the table are each token's two embeddings, (K, R)."""
    models = len(stack.master.wte)
    first = torch.arange(models, device=stack.rows.device).unsqueeze(1)
    first *= len(stack.table) // models
    tokens = batch.input_ids.flatten(1) + first
    positions = batch.position_ids.flatten(1) + (first + stack.shape.padded_vocab_size)
    return tokens, positions


def _layer_forward(stack: Stack, index: int, x: Tensor, batch: MicroBatch) -> _SavedLayer:
    """Add one layer to the residual stream x (K, R, C), in place."""
    master, ops, num_heads = stack.master.layers[index], batch.ops, stack.shape.num_heads

    def norm(weight: Tensor, bias: Tensor) -> tuple[Tensor, Saved]:
        dtype = stack.compute.wte.dtype
        return ops.norm(x, weight, bias, eps=stack.shape.norm_eps, dtype=dtype)

    attention_in, norm_1 = norm(master.norm_1_weight, master.norm_1_bias)
    qkv = project(attention_in, stack.linear(index, "qkv"))
    attention_out, attention = attend(
        qkv.view(-1, batch.input_ids.shape[-1], qkv.shape[-1]),
        batch.view,
        num_heads=num_heads,
        scale=stack.shape.score_scales[index],
        layer=index,
        dropout=batch.dropout,
        ops=ops,
    )
    attention_out = attention_out.view(x.shape)
    noise_1 = batch.noise(residual_site(index, num_heads, 0), x)
    ops.add_dropped(x, project(attention_out, stack.linear(index, "attention")), noise_1)

    mlp_in, norm_2 = norm(master.norm_2_weight, master.norm_2_bias)
    inner = project(mlp_in, stack.linear(index, "inner"))
    activated, gelu = ops.gelu(inner, use_fused=batch.fused_gelu)
    noise_2 = batch.noise(residual_site(index, num_heads, 1), x)
    ops.add_dropped(x, project(activated, stack.linear(index, "outer")), noise_2)
    return _SavedLayer(
        norm_1,
        attention_in,
        attention,
        attention_out,
        norm_2,
        mlp_in,
        gelu,
        activated,
        (noise_1, noise_2),
    )


def _layer_backward(
    stack: Stack,
    grads: Stack,
    index: int,
    grad: Tensor,
    saved: _SavedLayer,
    batch: MicroBatch,
    *,
    accumulate: bool,
) -> None:
    """Turn the gradient of a layer's output into that of its input, in place."""
    master, ops = stack.master.layers[index], batch.ops
    dtype = stack.compute.wte.dtype
    noise_1, noise_2 = saved.noises

    def backward(name: str, grad: Tensor, x: Tensor) -> Tensor:
        linear, out = stack.linear(index, name), grads.gradients(index, name)
        return project_backward(
            grad, x, linear, out, accumulate=accumulate, add_bias=ops.column_sums
        )

    def add_norm(number: int, grad_in: Tensor, norm: Saved, weight: Tensor) -> None:
        out = grads.norm_gradients(index, number)
        ops.norm_backward(grad_in, norm, weight, out, accumulate=accumulate, grad=grad)

    grad_activated = backward("outer", ops.drop(grad, noise_2, dtype), saved.activated)
    grad_inner = ops.gelu_backward(grad_activated, saved.gelu)
    grad_in = backward("inner", grad_inner, saved.mlp_in)
    add_norm(2, grad_in, saved.norm_2, master.norm_2_weight)

    grad_attention = backward("attention", ops.drop(grad, noise_1, dtype), saved.attention_out)
    grad_qkv = attend_backward(
        grad_attention.view(-1, batch.input_ids.shape[-1], grad.shape[-1]),
        saved.attention,
        batch.view,
        scale=stack.shape.score_scales[index],
        dropout=batch.dropout,
        ops=ops,
    )
    grad_in = backward("qkv", grad_qkv.view(*grad.shape[:2], -1), saved.attention_in)
    add_norm(1, grad_in, saved.norm_1, master.norm_1_weight)
