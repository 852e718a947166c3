"""K adapters (LoRA) on one frozen base, in transformers' own modules, whatever the architecture.

Blocks of K slots go through the base one after another in its batch: slot k's are those from k * B
to (k + 1) * B. Every linear layer but the head computes the base's product for all of them, and
each slot's low-rank addition for its own. What lies between (norms, attention, activations) knows
rows or blocks alone, so that no slot touches another.

On a CPU in fp32 a slot's bits do not depend on K or on its neighbours: each slot has products of
its own, of the same shapes whatever K is, and PyTorch's other operators compute all rows alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from huggingtweets.models.adapter_rows import AdapterStack, linear_layers, weight_of
from huggingtweets.ops.attention import HIDDEN
from huggingtweets.ops.dropout import keep_mask, thresholds_and_scales
from huggingtweets.ops.linear import Gradients, Linear
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.ops.saved import Saved, differentiable
from huggingtweets.runtime.device import is_cpu
from huggingtweets.upstream import has_function_mode

SITES_PER_LAYER = 32
"""Most dropouts of a layer; those outside of layers are counted as those of one more."""


@dataclass(frozen=True)
class SlotDropout:
    """What the dropout masks of one micro-batch are made from; tensors on the device."""

    num_slots: int
    keys: Tensor
    """(sites, K * B, 2) int32."""
    thresholds: Tensor
    """(K * B,) int16: smaller hashes are dropped."""
    scales: Tensor
    """(K * B,) fp32: 1 / (1 - p)."""
    is_base: Tensor
    """(K * B,) booleans: the base's own rates count, whatever they are at each place."""

    def blocks(self, slot: int) -> slice:
        """Return which blocks are a slot's."""
        size = self.keys.shape[1] // self.num_slots
        return slice(slot * size, (slot + 1) * size)

    def drops(self, slot: int, rate: float) -> bool:
        """Whether a slot drops anything at a place where the base has such a rate; on a CPU."""
        first = self.blocks(slot).start  # sync: of a CPU, which never waits
        return rate > 0 if bool(self.is_base[first]) else bool(self.scales[first] > 1)


class Current:
    """What the layers of one base compute with just now; of one thread."""

    def __init__(self, ops: Ops) -> None:
        """Compute with the base alone."""
        self.ops = ops
        self.stack: AdapterStack | None = None
        self.grads: AdapterStack | None = None
        self.dropout: SlotDropout | None = None
        self.recompute = False
        """Keep only the input of each layer for the backward pass."""
        self._site = 0
        self._rates: dict[float, tuple[Tensor, Tensor]] = {}

    def begin_layer(self, index: int) -> None:
        """Count dropouts from those of a layer on: what is computed again drops the same."""
        self._site = (index + 1) * SITES_PER_LAYER

    def drop(self, x: Tensor, rate: float) -> Tensor:
        """Return x (K * B, ...) or (K * B * T, C) with elements dropped by the keys of the slots.

        `rate` is the base's own at this place.
        """
        return self._dropped(x, rate, self._next_site(), slice(None))

    def attention(
        self,
        parts: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        scale: float,
        rate: float,
        quick: Callable[[slice], Tensor],
    ) -> Tensor:
        """Return attention's output (K * B, heads, T, width), weights dropped by the slots' keys.

        Args:
            parts: queries, keys and values, (K * B, heads, T, width) each.
            mask: where to look, booleans, or what to add to scores; None: everywhere.
            scale: of the scores.
            rate: the base's own at this place.
            quick: computes some blocks without dropout. On a CPU it is what slots that drop nothing
                get, whatever their neighbours drop.
        """
        site = self._next_site()
        dropout = self.dropout
        assert dropout is not None

        def explicit(blocks: slice) -> Tensor:
            query, key, value = (part[blocks] for part in parts)
            scores = (query @ key.mT) * scale
            seen = None if mask is None else mask if len(mask) == 1 else mask[blocks]
            if seen is not None and seen.dtype == torch.bool:
                scores = scores.masked_fill(~seen, HIDDEN)
            elif seen is not None:
                scores = scores + seen
            weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
            return self._dropped(weights, rate, site, blocks) @ value

        if not is_cpu(parts[0].device):
            return explicit(slice(None))
        found = []
        for slot in range(dropout.num_slots):
            blocks = dropout.blocks(slot)
            found.append((explicit if dropout.drops(slot, rate) else quick)(blocks))
        return torch.cat(found)

    def _next_site(self) -> int:
        self._site += 1
        return self._site - 1

    def _dropped(self, x: Tensor, rate: float, site: int, blocks: slice) -> Tensor:
        dropout = self.dropout
        assert dropout is not None
        if rate not in self._rates:  # made once: a CUDA graph may not copy from the host
            made = thresholds_and_scales(np.array([rate]))
            self._rates[rate] = tuple(one.to(x.device) for one in made)  # type: ignore[assignment]
        threshold, scale = self._rates[rate]
        is_base, keys = dropout.is_base[blocks], dropout.keys[site, blocks]
        columns = x.shape[-1]
        mask = keep_mask(
            keys,
            torch.where(is_base, threshold, dropout.thresholds[blocks]),
            range(x.numel() // (len(keys) * columns)),
            range(columns),
        )
        scales = torch.where(is_base, scale, dropout.scales[blocks])
        return x * (mask * scales.view(-1, 1, 1)).to(x.dtype).view(x.shape)


class _Drops(TorchFunctionMode):
    """Has every dropout of a pass, whoever computes it, drop by the keys of the slots.

    Modules, `F.dropout` in an architecture's own code and that within PyTorch's attention all
    come by here; PyTorch's generator knows no slots.
    """

    def __init__(self, now: Current) -> None:
        super().__init__()
        self._now = now

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, *, p: float, training: bool, inplace: bool) -> Tensor:
        del inplace  # what frees memory elsewhere; nobody reads x again
        return self._now.drop(x, p) if training else x

    def _attention(
        self,
        *parts: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Do what PyTorch documents of its function."""
        query, key, value = parts
        if enable_gqa:
            times = query.shape[1] // key.shape[1]
            key, value = (part.repeat_interleave(times, 1) for part in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        mask = attn_mask
        if is_causal:
            num = query.shape[2], key.shape[2]
            mask = torch.ones(1, 1, *num, dtype=torch.bool, device=query.device).tril()

        def quick(blocks: slice) -> Tensor:
            seen = attn_mask if attn_mask is None or len(attn_mask) == 1 else attn_mask[blocks]
            one: Tensor = F.scaled_dot_product_attention(
                query[blocks], key[blocks], value[blocks], seen, 0.0, is_causal, scale=scale
            )
            return one

        return self._now.attention((query, key, value), mask, scale, dropout_p, quick)


class GroupedLinear(nn.Module):
    """A frozen linear layer with an adapter for each slot."""

    def __init__(
        self,
        base: nn.Module,
        index: int,
        now: Current,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Take the place of a linear layer of PyTorch or of GPT-2.

        Args:
            base: that layer.
            index: of its place in the layout.
            now: of the model.
            device: to hold its weights on.
            dtype: of the products, and so of its weights: cast again in every micro-step they take
                longer than the products.
        """
        super().__init__()
        own: Any = base
        _, num_in, num_out = weight_of(base).shape
        self.in_features, self.out_features = num_in, num_out
        self.weight: Tensor = own.weight.detach().to(device, dtype)
        self.bias: Tensor | None = None if own.bias is None else own.bias.detach().to(device, dtype)
        self._is_turned = not isinstance(base, Conv1D)
        self._index, self._now = index, now

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) for (..., in), whose first dimension is K * B blocks or their rows."""
        now, weight = self._now, self.weight.T if self._is_turned else self.weight
        x = x.to(weight.dtype)
        if now.stack is None:
            out = x @ weight
            return out if self.bias is None else out + self.bias
        shared = weight.unsqueeze(0)
        if is_cpu(x.device) and x.dtype == torch.float32:
            # A product of all rows might take other kernels for another K; a view copies nothing.
            shared = shared.expand(len(now.stack.rows), -1, -1)
        layer = Linear(
            shared,
            None if self.bias is None else self.bias.unsqueeze(0),
            now.stack.compute[self._index],
            now.stack.scale,
        )
        gradients = None
        if now.grads is not None and torch.is_grad_enabled():
            adapter = now.grads.master[self._index]
            gradients = Gradients(adapter.down, adapter.up)
        grouped = x.reshape(len(now.stack.rows), -1, self.in_features)
        if gradients is None:
            out = now.ops.project(grouped, layer)
        else:
            out = _trained(grouped, layer, gradients, now.ops)
        return out.view(*x.shape[:-1], self.out_features)


def _trained(x: Tensor, layer: Linear, gradients: Gradients, ops: Ops) -> Tensor:
    """Add the adapters' gradients to what is there: a layer may be used more than once."""

    def forward(x: Tensor) -> tuple[Tensor, Saved]:
        return ops.project(x, layer), (x,)

    def backward(saved: Saved, grad: Tensor) -> Tensor:
        (x,), grad = saved, grad.contiguous()
        return ops.project_backward(grad, x, layer, gradients, accumulate=True, with_bias=False)

    out: Tensor = differentiable(forward, backward, x)
    return out


class GroupedModel:
    """A base of transformers whose linear layers have K adapters; of one thread."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        device: torch.device,
        dtype: torch.dtype,
        ops: Ops = PYTORCH,
    ) -> None:
        """Put a base onto a device.

        Args:
            model: on the CPU; it stays as it is, and weights that need not be moved are shared.
            device: to compute on.
            dtype: of the matrix products; other weights stay in fp32.
            ops: computes linear layers and their adapters.
        """
        self.now = Current(ops)
        self._kind, self._is_half = device.type, dtype != torch.float32
        self.model = sharing_copy(model)
        layers = linear_layers(self.model)
        self.layers = _layers_of(self.model)
        for index, (name, module) in enumerate(layers):
            parent, _, child = name.rpartition(".")
            grouped = GroupedLinear(module, index, self.now, device, dtype)
            setattr(self.model.get_submodule(parent), child, grouped)
        self.model.to(device).eval()
        for index, layer in enumerate(self.layers):
            layer.forward = partial(self._run_layer, partial(self._compute, index, layer.forward))
        self.model.get_input_embeddings().register_forward_hook(self._begin_graph)

    @property
    def num_sites(self) -> int:
        """How many dropout masks a pass may need."""
        return (len(self.layers) + 1) * SITES_PER_LAYER

    def _run_layer(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a layer; of one that is computed again only the input is kept."""
        if self.now.recompute and torch.is_grad_enabled():
            return checkpoint(
                forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs
            )
        return forward(*args, **kwargs)

    def _compute(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute a layer, be it again for the backward pass: on CUDA that is another thread's."""
        self.now.begin_layer(index)
        if self.now.dropout is None or has_function_mode():
            return forward(*args, **kwargs)
        with _Drops(self.now):
            return forward(*args, **kwargs)

    def _begin_graph(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Have the graph begin behind the frozen embeddings, which have no gradient."""
        is_trained = self.now.grads is not None and torch.is_grad_enabled()
        return output.detach().requires_grad_() if is_trained else output

    @contextmanager
    def computing(
        self,
        stack: AdapterStack | None,
        grads: AdapterStack | None = None,
        dropout: SlotDropout | None = None,
        *,
        recompute: bool = False,
    ) -> Iterator[transformers.PreTrainedModel]:
        """Give the model with these adapters, for forward and backward passes.

        Args:
            stack: of the slots whose blocks come; None: the base alone.
            grads: receives what is differentiated, added to what is there.
            dropout: None: nothing is dropped.
            recompute: keep only the input of each layer for the backward pass.
        """
        now = self.now
        now.stack, now.grads, now.dropout = stack, grads, dropout
        now.recompute = recompute
        now.begin_layer(-1)
        self.model.train(dropout is not None)
        try:
            with (
                nullcontext() if dropout is None else _Drops(now),
                torch.autocast(self._kind, torch.bfloat16, enabled=self._is_half),
            ):
                yield self.model
        finally:
            now.stack = now.grads = now.dropout = None
            self.model.eval()


def sharing_copy(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Return a copy of a model that shares its weights, frozen."""
    memo: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach(), requires_grad=False)
        for tensor in model.parameters()
    }
    memo |= {id(tensor): tensor.detach() for tensor in model.buffers()}
    return copy.deepcopy(model, memo)


def _layers_of(model: transformers.PreTrainedModel) -> list[nn.Module]:
    """Return the layers of a model: its longest list of modules."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max((list(modules) for modules in lists), key=len, default=[])
