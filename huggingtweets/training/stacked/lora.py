"""LoRA in the fused engine: one frozen base for all slots, and K sets of adapters stacked.

As `lora.py` does with peft: every linear layer but the head, scale alpha / rank, no dropout of its
own. A slot holds the adapters alone, some hundred times less than a model.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from huggingtweets.models.layout import Layout
from huggingtweets.models.stack import Adapters, Stack, build_stack, copies_of
from huggingtweets.ops.linear import LowRank

LINEAR_NAMES = ("qkv", "attention", "inner", "outer")
"""The linear layers of each layer."""


def adapter_places(layout: Layout, rank: int) -> tuple[list[dict[str, tuple[int, int, int]]], int]:
    """Return where adapters lie in a row, and its length.

    Returns:
        For each layer: name -> first value, inputs and outputs of the linear layer. `down`
        (inputs, rank) lies there and `up` (rank, outputs) behind it.
    """
    places, end = [], 0
    for _ in range(layout.shape.num_layers):
        layer = {}
        for name in LINEAR_NAMES:
            num_in, num_out = layout.linear_size(name)
            layer[name] = (end, num_in, num_out)
            end += rank * (num_in + num_out)
        places.append(layer)
    return places, end


def stack_adapters(layout: Layout, rows: Tensor, rank: int) -> tuple[Mapping[str, LowRank], ...]:
    """Return the views of a (K, N) buffer of adapters."""
    places, _ = adapter_places(layout, rank)

    def view(start: int, height: int, width: int) -> Tensor:
        return rows[:, start : start + height * width].view(len(rows), height, width)

    return tuple(
        {
            name: LowRank(view(start, num_in, rank), view(start + num_in * rank, rank, num_out))
            for name, (start, num_in, num_out) in layer.items()
        }
        for layer in places
    )


def build_adapter_stack(
    layout: Layout, base: Tensor, rows: Tensor, dtype: torch.dtype, rank: int
) -> Stack:
    """Return K models of one base (N,) and adapters (K, n), for products in fp32 or bf16.

    Their scales are ones; whoever loads a slot sets them.
    """
    frozen = build_stack(layout, base.unsqueeze(0), dtype)
    master = stack_adapters(layout, rows, rank)
    compute, copies = master, copies_of(rows, dtype)
    if copies is not None:
        compute = stack_adapters(layout, copies, rank)
    elif dtype != rows.dtype:
        compute = tuple(
            {
                name: part.map(lambda tensor: tensor.to(dtype, copy=True).contiguous())
                for name, part in layer.items()
            }
            for layer in master
        )
    scale = torch.ones(len(rows), device=rows.device)
    adapters = Adapters(master, compute, scale)
    return Stack(layout.shape, rows, frozen.master, frozen.compute, frozen.table, adapters, copies)


def fresh_adapters(layout: Layout, rank: int, *, own_rank: int, seed: int) -> Tensor:
    """Return the row (n,) that LoRA begins with: `down` uniform as in peft, `up` zero.

    Args:
        layout: of the base.
        rank: of the slots.
        own_rank: of the job, at most `rank`; what lies beyond is zero and stays so.
        seed: of the job.
    """
    row = torch.zeros(1, adapter_places(layout, rank)[1])
    generator = torch.Generator().manual_seed(seed)
    for layer in stack_adapters(layout, row, rank):
        for adapter in layer.values():
            bound = 1 / math.sqrt(adapter.down.shape[1])
            drawn = torch.empty(own_rank, adapter.down.shape[1])
            drawn.uniform_(-bound, bound, generator=generator)
            adapter.down[0, :, :own_rank] = drawn.T
    return row[0]


def merge_adapters(layout: Layout, base: Tensor, row: Tensor, *, rank: int, scale: float) -> Tensor:
    """Return the row (N,) of the plain model that a base and adapters amount to, on the CPU."""
    merged = base.detach().to("cpu", torch.float32, copy=True)
    layers = layout.stack(merged.unsqueeze(0)).layers
    for layer, adapters in zip(layers, stack_adapters(layout, row.unsqueeze(0), rank), strict=True):
        for name, adapter in adapters.items():
            weight = layer[f"{name}_weight"]
            weight.baddbmm_(adapter.down, adapter.up, alpha=scale)
    return merged


def peft_state(layout: Layout, row: Tensor, *, rank: int, own_rank: int) -> dict[str, Tensor]:
    """Return the adapters of a row under the names of a peft adapter folder."""
    state = {}
    for index, layer in enumerate(stack_adapters(layout, row.unsqueeze(0), rank)):
        for name, adapter in layer.items():
            stem = f"base_model.model.{layout.linear_name(index, name)}"
            state[f"{stem}.lora_A.weight"] = adapter.down[0, :, :own_rank].T.contiguous()
            state[f"{stem}.lora_B.weight"] = adapter.up[0, :own_rank].T.contiguous()
    return state
