"""The forward and backward pass of K GPT-2 models at once, written out by hand.

Every layer is one batched matrix product over K; no operation mixes slots. Written out because a
backward pass of our own writes gradients where the optimizer wants them, keeps or recomputes
whatever is cheaper, and needs none of autograd's bookkeeping. Equality with transformers'
GPT2LMHeadModel is tested.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.training.array_attention import Saved, View, attend, attend_backward
from huggingtweets.training.array_dropout import Dropout, keep_mask, residual_site
from huggingtweets.training.array_head import summed_loss
from huggingtweets.training.array_layout import Layout, Parameters, Shape
from huggingtweets.training.array_linear import (
    Gradients,
    Linear,
    LowRank,
    product,
    project,
    project_backward,
    put,
)

_GELU_1 = 2 * math.sqrt(2 / math.pi)
_GELU_3 = _GELU_1 * 0.044715


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


@dataclass(frozen=True)
class _SavedLayer:
    """What the backward pass needs of one layer; tensors (K, R, ...), R = B * T tokens."""

    norm_1: tuple[Tensor, Tensor]
    """Normalised input before weight and bias, and one over its standard deviation."""
    attention_in: Tensor
    attention: Saved
    attention_out: Tensor
    norm_2: tuple[Tensor, Tensor]
    mlp_in: Tensor
    inner: Tensor
    """Before the activation."""
    gate: Tensor | None
    """The activation is inner * gate; None where PyTorch's kernel computed it."""
    activated: Tensor
    masks: tuple[Tensor | None, Tensor | None]


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
    hidden, norm_f, embedding_mask = _hidden_states(
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
    )
    out = None
    if grads.adapters is None:
        out = Gradients(grads.master.norm_f_weight, grads.master.norm_f_bias)
    grad = _norm_backward(grad, norm_f, stack.master.norm_f_weight, out, accumulate=accumulate)
    for index in reversed(range(stack.shape.num_layers)):
        layer = _layer_forward(stack, index, inputs.pop(), batch) if recompute else saved.pop()
        _layer_backward(stack, grads, index, grad, layer, batch, accumulate=accumulate)
    if grads.adapters is not None:
        return loss
    if embedding_mask is not None:
        grad.mul_(embedding_mask)
    grad = grad.view(-1, grad.shape[-1])
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
    )
    return loss


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
) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
    """Return what the output embedding reads (K, R, C), and what the backward pass needs of it.

    What it needs of the layers, or their inputs, is added to the lists.
    """
    tokens, positions = _embedding_rows(stack, batch)
    x = F.embedding(tokens, stack.table)
    x += F.embedding(positions, stack.table)
    mask = _residual_mask(batch, 0, x)
    if mask is not None:
        x.mul_(mask)
    for index in range(stack.shape.num_layers):
        if inputs is not None:
            inputs.append(x.clone())
        layer = _layer_forward(stack, index, x, batch)
        if saved is not None:
            saved.append(layer)
    norm_f = normalise(x, stack.shape.norm_eps)
    hidden = scale_and_shift(norm_f[0], stack.master.norm_f_weight, stack.master.norm_f_bias)
    return hidden.to(stack.compute.wte.dtype), norm_f, mask


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
    master, dtype = stack.master.layers[index], stack.compute.wte.dtype
    num_heads = stack.shape.num_heads

    norm_1 = normalise(x, stack.shape.norm_eps)
    attention_in = scale_and_shift(norm_1[0], master.norm_1_weight, master.norm_1_bias).to(dtype)
    qkv = project(attention_in, stack.linear(index, "qkv"))
    attention_out, attention = attend(
        qkv.view(-1, batch.input_ids.shape[-1], qkv.shape[-1]),
        batch.view,
        num_heads=num_heads,
        scale=stack.shape.score_scales[index],
        layer=index,
        dropout=batch.dropout,
    )
    attention_out = attention_out.view(x.shape)
    mask_1 = _residual_mask(batch, residual_site(index, num_heads, 0), x)
    _add(x, project(attention_out, stack.linear(index, "attention")), mask_1)

    norm_2 = normalise(x, stack.shape.norm_eps)
    mlp_in = scale_and_shift(norm_2[0], master.norm_2_weight, master.norm_2_bias).to(dtype)
    inner = project(mlp_in, stack.linear(index, "inner"))
    gate = None
    if batch.view.use_fused:
        activated = F.gelu(inner, approximate="tanh")
    else:
        inner = inner.float()
        gate = gelu_gate(inner)
        activated = (inner * gate).to(dtype)
    mask_2 = _residual_mask(batch, residual_site(index, num_heads, 1), x)
    _add(x, project(activated, stack.linear(index, "outer")), mask_2)
    return _SavedLayer(
        norm_1,
        attention_in,
        attention,
        attention_out,
        norm_2,
        mlp_in,
        inner,
        gate,
        activated,
        (mask_1, mask_2),
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
    master, dtype = stack.master.layers[index], stack.compute.wte.dtype
    mask_1, mask_2 = saved.masks

    def backward(name: str, grad: Tensor, x: Tensor) -> Tensor:
        linear, out = stack.linear(index, name), grads.gradients(index, name)
        return project_backward(grad.to(dtype), x, linear, out, accumulate=accumulate)

    def add_norm(number: int, grad_in: Tensor, norm: tuple[Tensor, Tensor], weight: Tensor) -> None:
        out = grads.norm_gradients(index, number)
        grad.add_(_norm_backward(grad_in.float(), norm, weight, out, accumulate=accumulate))

    grad_out = grad if mask_2 is None else grad * mask_2
    grad_activated = backward("outer", grad_out, saved.activated)
    grad_inner = _gelu_backward(grad_activated, saved.inner, saved.gate)
    grad_in = backward("inner", grad_inner, saved.mlp_in)
    add_norm(2, grad_in, saved.norm_2, master.norm_2_weight)

    grad_out = grad if mask_1 is None else grad * mask_1
    grad_attention = backward("attention", grad_out, saved.attention_out)
    grad_qkv = attend_backward(
        grad_attention.view(-1, batch.input_ids.shape[-1], grad.shape[-1]),
        saved.attention,
        batch.view,
        scale=stack.shape.score_scales[index],
        dropout=batch.dropout,
    )
    grad_in = backward("qkv", grad_qkv.view(*grad.shape[:2], -1), saved.attention_in)
    add_norm(1, grad_in, saved.norm_1, master.norm_1_weight)


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return (x - mean) / deviation and one over the deviation, over the last dimension."""
    width = x.shape[-1]
    # With a weight and a bias the CPU kernel is twice as fast as without.
    ones, zeros = x.new_ones(width), x.new_zeros(width)
    normalised, _, inverse = torch.native_layer_norm(x, [width], ones, zeros, eps)
    return normalised, inverse


def scale_and_shift(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Finish a layer norm, (K, R, C) by (K, C)."""
    return torch.addcmul(bias.unsqueeze(1), x, weight.unsqueeze(1))


def _norm_backward(
    grad: Tensor,
    norm: tuple[Tensor, Tensor],
    weight: Tensor,
    out: Gradients | None,
    *,
    accumulate: bool,
) -> Tensor:
    """Put the gradients of weight and bias into `out` and return that of the norm's input."""
    normalised, inverse = norm
    if out is not None:
        put(out.first, (grad * normalised).sum(1), accumulate=accumulate)
        put(out.second, grad.sum(1), accumulate=accumulate)
    grad = grad * weight.unsqueeze(1)
    # Of an input that has mean 0 and deviation 1, hence the zeros and ones.
    grad, _, _ = torch.ops.aten.native_layer_norm_backward(
        grad,
        normalised,
        [grad.shape[-1]],
        torch.zeros_like(inverse),
        torch.ones_like(inverse),
        grad.new_ones(grad.shape[-1]),
        None,
        [True, False, False],
    )
    return torch.mul(grad, inverse, out=grad)


def gelu_gate(x: Tensor) -> Tensor:
    """Return s with x * s = GELU by tanh: the sigmoid takes a fifth of the time of tanh."""
    one = torch.full((), _GELU_1, device=x.device)
    return torch.addcmul(one, x, x, value=_GELU_3).mul_(x).sigmoid_()


def _gelu_backward(grad: Tensor, x: Tensor, gate: Tensor | None) -> Tensor:
    """Return grad * (s + x s (1 - s) u'), with s the gate, the sigmoid of u(x)."""
    if gate is None:
        out: Tensor = torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
        return out
    one = torch.full((), _GELU_1, device=x.device)
    slope = torch.addcmul(one, x, x, value=3 * _GELU_3).mul_(x)
    slope = torch.addcmul(slope, slope, gate, value=-1)
    return torch.addcmul(gate, gate, slope).mul_(grad.float())


def _residual_mask(batch: MicroBatch, site: int, x: Tensor) -> Tensor | None:
    """Return a mask like x (K, R, C), scaled, or None without dropout."""
    if batch.dropout is None:
        return None
    T = batch.input_ids.shape[-1]
    keys, thresholds, scales = batch.dropout.mask(site)
    mask = keep_mask(keys, thresholds, range(T), range(x.shape[-1]))
    return mask.mul_(scales.view(-1, 1, 1)).view(x.shape)


def _add(x: Tensor, branch: Tensor, mask: Tensor | None) -> None:
    """Add a branch to the residual stream."""
    if mask is None:
        x.add_(branch)
    else:
        x.addcmul_(branch.float(), mask)
