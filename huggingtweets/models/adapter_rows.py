"""Adapters (LoRA) of K models as rows of one buffer, for any architecture of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from huggingtweets.models.stack import copies_of
from huggingtweets.ops.linear import LowRank
from huggingtweets.upstream import copy_tensors

RANK_MULTIPLE = 8
"""Slots hold adapters of a multiple of this rank, so that products have the same shape, and so the
same bits, whatever smaller ranks the neighbours have. What lies beyond a job's own is zero."""


@dataclass(frozen=True)
class Place:
    """Where the adapter of one linear layer lies in a row."""

    name: str
    """What transformers calls the layer."""
    start: int
    num_in: int
    num_out: int


@dataclass(frozen=True)
class AdapterLayout:
    """Where the adapters of a model lie in its row: `down` (in, rank), then `up` (rank, out)."""

    places: tuple[Place, ...]
    rank: int
    size: int
    """N."""

    def views(self, rows: Tensor) -> tuple[LowRank, ...]:
        """Return the views of a contiguous (K, N) buffer, one for each place."""

        def view(start: int, height: int, width: int) -> Tensor:
            return rows[:, start : start + height * width].view(len(rows), height, width)

        return tuple(
            LowRank(
                view(place.start, place.num_in, self.rank),
                view(place.start + place.num_in * self.rank, self.rank, place.num_out),
            )
            for place in self.places
        )

    def fresh(self, own_rank: int, *, seed: int) -> Tensor:
        """Return the row (N,) that LoRA begins with: `down` uniform as in peft, `up` zero.

        Args:
            own_rank: of the job, at most that of the slots.
            seed: of the job.
        """
        row = torch.zeros(1, self.size)
        generator = torch.Generator().manual_seed(seed)
        for adapter in self.views(row):
            num_in = adapter.down.shape[1]
            bound = 1 / math.sqrt(num_in)
            drawn = torch.empty(own_rank, num_in).uniform_(-bound, bound, generator=generator)
            adapter.down[0, :, :own_rank] = drawn.T
        return row[0]

    def peft_state(self, row: Tensor, own_rank: int) -> dict[str, Tensor]:
        """Return the adapters of a row under the names of a peft adapter folder."""
        state = {}
        for place, adapter in zip(self.places, self.views(row.unsqueeze(0)), strict=True):
            stem = f"base_model.model.{place.name}"
            state[f"{stem}.lora_A.weight"] = adapter.down[0, :, :own_rank].T.contiguous()
            state[f"{stem}.lora_B.weight"] = adapter.up[0, :own_rank].T.contiguous()
        return state

    def row_of(self, state: Mapping[str, Tensor]) -> Tensor:
        """Return the row (N,), fp32, of `peft_state`."""
        row = torch.zeros(1, self.size)
        for place, adapter in zip(self.places, self.views(row), strict=True):
            stem = f"base_model.model.{place.name}"
            down, up = state[f"{stem}.lora_A.weight"], state[f"{stem}.lora_B.weight"]
            adapter.down[0, :, : len(down)] = down.T
            adapter.up[0, : len(down)] = up.T
        return row[0]


def adapter_layout(model: transformers.PreTrainedModel, rank: int) -> AdapterLayout:
    """Lay out adapters for every linear layer but the head, in the order that peft finds them."""
    rank = -(-rank // RANK_MULTIPLE) * RANK_MULTIPLE
    places, end = [], 0
    for name, module in linear_layers(model):
        num_in, num_out = weight_of(module).shape[1:]
        places.append(Place(name, end, num_in, num_out))
        end += rank * (num_in + num_out)
    return AdapterLayout(tuple(places), rank, end)


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
