"""Adapters (LoRA) of K models as rows of one buffer, of a family of ours or any architecture.

A linear layer of ours may be several of transformers side by side (queries, keys and values of a
Llama). Their adapters become one of as many times the rank, whose `up` is block-diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from huggingtweets.models.layout import Layout, Tensors
from huggingtweets.models.stack import Adapters, Stack, build_stack, copies_of
from huggingtweets.ops.linear import LowRank
from huggingtweets.upstream import copy_tensors

RANK_MULTIPLE = 8
"""Slots hold adapters of a multiple of this rank, so that products have the same shape, and so the
same bits, whatever smaller ranks the neighbours have. What lies beyond a job's own is zero."""

Sources = Sequence[tuple[str, int]]
"""What transformers calls the layers that are one of ours, and how many columns each has."""


@dataclass(frozen=True)
class Place:
    """Where the adapter of one linear layer lies in a row."""

    sources: Sources
    start: int
    num_in: int

    @property
    def num_out(self) -> int:
        """Of all sources side by side."""
        return sum(width for _, width in self.sources)


@dataclass(frozen=True)
class AdapterLayout:
    """Where the adapters of a model lie in its row: `down` (in, rank), then `up` (rank, out)."""

    places: tuple[Place, ...]
    rank: int
    """Of each source."""
    size: int
    """N."""

    def views(self, rows: Tensor) -> tuple[LowRank, ...]:
        """Return the views of a contiguous (K, N) buffer, one for each place."""

        def view(start: int, height: int, width: int) -> Tensor:
            return rows[:, start : start + height * width].view(len(rows), height, width)

        found = []
        for place in self.places:
            rank = self.rank * len(place.sources)
            up_start = place.start + place.num_in * rank
            down = view(place.start, place.num_in, rank)
            found.append(LowRank(down, view(up_start, rank, place.num_out)))
        return tuple(found)

    def fresh(self, own_rank: int, *, seed: int) -> Tensor:
        """Return the row (N,) that LoRA begins with: `down` uniform as in peft, `up` zero.

        Args:
            own_rank: of the job, at most that of the slots; what lies beyond stays zero.
            seed: of the job.
        """
        row = torch.zeros(self.size)
        generator = torch.Generator().manual_seed(seed)
        for _, down, _ in self._sources_of(row):
            num_in = len(down)
            bound = 1 / math.sqrt(num_in)
            drawn = torch.empty(own_rank, num_in).uniform_(-bound, bound, generator=generator)
            down[:, :own_rank] = drawn.T
        return row

    def peft_state(self, row: Tensor, own_rank: int) -> dict[str, Tensor]:
        """Return the adapters of a row under the names of a peft adapter folder."""
        state = {}
        for name, down, up in self._sources_of(row):
            state[f"{name}.lora_A.weight"] = down[:, :own_rank].T.contiguous()
            state[f"{name}.lora_B.weight"] = up[:own_rank].T.contiguous()
        return state

    def row_of(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the row (N,), fp32 on the CPU, of the weights of a peft adapter folder.

        What they have less than this rank is zero.

        Raises:
            KeyError: a linear layer has no adapter.
        """
        row = torch.zeros(self.size)
        for name, down, up in self._sources_of(row):
            own_down, own_up = (state[f"{name}.lora_{side}.weight"].T for side in "AB")
            down[:, : len(own_up)] = own_down
            up[: len(own_up)] = own_up
        return row

    def _sources_of(self, row: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield peft's name of each layer of transformers; views (in, rank), (rank, out) of it."""
        for place, adapter in zip(self.places, self.views(row.unsqueeze(0)), strict=True):
            column = 0
            for at, (name, width) in enumerate(place.sources):
                ranks = slice(at * self.rank, (at + 1) * self.rank)
                up = adapter.up[0, ranks, column : column + width]
                yield f"base_model.model.{name}", adapter.down[0, :, ranks], up
                column += width


def _lay_out(linears: Iterable[tuple[Sources, int]], rank: int) -> AdapterLayout:
    """Lay out the adapters of linear layers one after another: their sources, and inputs."""
    places, end = [], 0
    for sources, num_in in linears:
        places.append(Place(sources, end, num_in))
        end += rank * len(sources) * (num_in + places[-1].num_out)
    return AdapterLayout(tuple(places), rank, end)


def adapter_layout(model: transformers.PreTrainedModel, rank: int) -> AdapterLayout:
    """Lay out adapters for every linear layer but the head, in the order that peft finds them."""
    shapes = [(name, *weight_of(module).shape[1:]) for name, module in linear_layers(model)]
    rank = -(-rank // RANK_MULTIPLE) * RANK_MULTIPLE
    return _lay_out((([(name, num_out)], num_in) for name, num_in, num_out in shapes), rank)


def adapters_of(layout: Layout, rank: int) -> AdapterLayout:
    """Lay out adapters for every linear layer of a family but the head, layer by layer."""
    linears = []
    for index in range(layout.shape.num_layers):
        for tensors in _linear_tensors(layout).values():
            names = [name.format(index).removesuffix(".weight") for name, _ in tensors.sources]
            widths = [width for _, width in tensors.sources]
            linears.append((list(zip(names, widths, strict=True)), tensors.shape[0]))
    return _lay_out(linears, rank)


def row_size(layout: Layout, rank: int) -> int:
    """Return the length of a row of adapters of a family; of rank 0, of all weights."""
    return adapters_of(layout, rank).size if rank else layout.size


def by_layer(layout: Layout, parts: Sequence[LowRank]) -> tuple[Mapping[str, LowRank], ...]:
    """Return what lies at the places of `adapters_of` as a mapping per layer, by our own names."""
    names = list(_linear_tensors(layout))
    layers = (parts[start : start + len(names)] for start in range(0, len(parts), len(names)))
    return tuple(dict(zip(names, layer, strict=True)) for layer in layers)


def _linear_tensors(layout: Layout) -> dict[str, Tensors]:
    return {
        name.removesuffix("_weight"): tensors
        for name, tensors in layout.layer.items()
        if len(tensors.shape) == 2
    }


@torch.no_grad()
def merge_adapters(
    model: transformers.PreTrainedModel, state: Mapping[str, Tensor], scale: float = 1.0
) -> None:
    """Add adapters, named as in a peft adapter folder, to the weights of a model, in place."""
    for name, module in linear_layers(model):
        stem = f"base_model.model.{name}"
        down, up = state[f"{stem}.lora_A.weight"], state[f"{stem}.lora_B.weight"]
        weight: Any = module.weight
        addition = (up @ down) * scale
        weight += addition.T if isinstance(module, Conv1D) else addition


def merged_row(
    layout: Layout, base: Tensor, adapters: AdapterLayout, row: Tensor, scale: float
) -> Tensor:
    """Return the row (N,) of the plain model that a base's row and adapters are, on the CPU."""
    merged = base.detach().to("cpu", torch.float32, copy=True)
    layers = layout.stack(merged.unsqueeze(0)).layers
    views = by_layer(layout, adapters.views(row.unsqueeze(0)))
    for layer, parts in zip(layers, views, strict=True):
        for name, adapter in parts.items():
            layer[f"{name}_weight"].baddbmm_(adapter.down, adapter.up, alpha=scale)
    return merged


def linear_layers(model: transformers.PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Return the layers that get adapters, as peft's `all-linear` finds them, by name."""
    head = model.get_output_embeddings()
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def weight_of(module: nn.Module) -> Tensor:
    """Return the weight (1, in, out) of a linear layer of PyTorch or of GPT-2."""
    weight: Any = module.weight
    whole: Tensor = (weight if isinstance(module, Conv1D) else weight.T).unsqueeze(0)
    return whole


@dataclass(frozen=True)
class AdapterStack:
    """The adapters of K slots, or their gradients."""

    layout: AdapterLayout
    rows: Tensor
    """(K, N) fp32, contiguous: what is trained."""
    master: tuple[LowRank, ...]
    """Views of the rows."""
    compute: tuple[LowRank, ...]
    """The same in the precision of the matrix products."""
    scale: Tensor
    """(K,) fp32."""
    copies: Tensor | None = None
    """(K, N) on CUDA: the copy of the rows that `compute` are views of."""

    def slots(self, start: int, stop: int) -> AdapterStack:
        """Return those of some neighbouring slots; shares memory."""
        master, compute = (
            tuple(part.map(lambda tensor: tensor[start:stop]) for part in parts)
            for parts in (self.master, self.compute)
        )
        return replace(
            self,
            rows=self.rows[start:stop],
            master=master,
            compute=compute,
            scale=self.scale[start:stop],
            copies=None if self.copies is None else self.copies[start:stop],
        )

    def refresh(self) -> None:
        """Bring the copy for the products up to date."""
        if self.copies is not None:
            self.copies.copy_(self.rows)
            return
        copies, masters = (
            [tensor for part in parts for tensor in part.tensors()]
            for parts in (self.compute, self.master)
        )
        if copies[0].dtype != masters[0].dtype:
            copy_tensors(copies, masters)

    def load(self, slot: int, row: Tensor, scale: float = 1.0) -> None:
        """Put a job's adapters into a slot."""
        self.rows[slot].copy_(row)
        self.scale[slot].fill_(scale)
        self.slots(slot, slot + 1).refresh()

    def state(self) -> tuple[Tensor, ...]:
        """Return what belongs to the slots: (K, ...) each."""
        return self.rows, self.scale


def build_adapter_stack(layout: AdapterLayout, rows: Tensor, dtype: torch.dtype) -> AdapterStack:
    """Return the adapters of a (K, N) buffer, for products in fp32 or bf16; their scales are 1."""
    master = layout.views(rows)
    compute, copies = master, copies_of(rows, dtype)
    if copies is not None:
        compute = layout.views(copies)
    elif dtype != rows.dtype:
        compute = tuple(
            part.map(lambda tensor: tensor.to(dtype, copy=True).contiguous()) for part in master
        )
    scale = torch.ones(len(rows), device=rows.device)
    return AdapterStack(layout, rows, master, compute, scale, copies)


def stack_on_base(
    layout: Layout, base: Tensor, rows: Tensor, rank: int, dtype: torch.dtype = torch.float32
) -> Stack:
    """Return K models: the base's row (N,) with adapters (K, n), for products in fp32 or bf16.

    Their scales are ones; whoever loads a slot sets them.
    """
    frozen = build_stack(layout, base.unsqueeze(0), dtype)
    own = build_adapter_stack(adapters_of(layout, rank), rows, dtype)
    adapters = Adapters(by_layer(layout, own.master), by_layer(layout, own.compute), own.scale)
    return replace(frozen, rows=rows, adapters=adapters, copies=own.copies)
