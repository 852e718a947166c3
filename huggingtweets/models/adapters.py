"""Adapters of many people on one base: where they lie in a row, and the models they make together.

A linear layer of ours may be several of transformers side by side (queries, keys and values of a
Llama). Their adapters become one of as many times the rank, whose `up` is block-diagonal.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from huggingtweets.models.layout import Layout, Tensors
from huggingtweets.models.stack import Adapters, Stack, build_stack, copies_of
from huggingtweets.ops.linear import LowRank


def adapter_size(layout: Layout, rank: int) -> int:
    """Return the length of a row of adapters."""
    each = (
        rank * len(tensors.sources) * sum(tensors.shape)
        for tensors in linear_tensors(layout).values()
    )
    return layout.shape.num_layers * sum(each)


def view_adapters(layout: Layout, rows: Tensor, rank: int) -> tuple[Mapping[str, LowRank], ...]:
    """Return the views of a contiguous (K, n) buffer of adapters, a mapping per layer."""
    found, end = [], 0

    def take(height: int, width: int) -> Tensor:
        nonlocal end
        start, end = end, end + height * width
        return rows[:, start:end].view(len(rows), height, width)

    for _ in range(layout.shape.num_layers):
        layer = {}
        for name, tensors in linear_tensors(layout).items():
            (num_in, num_out), own_rank = tensors.shape, rank * len(tensors.sources)
            layer[name] = LowRank(take(num_in, own_rank), take(own_rank, num_out))
        found.append(layer)
    return tuple(found)


def pack_adapters(layout: Layout, state: Mapping[str, Tensor], rank: int) -> Tensor:
    """Return the row (n,), fp32 on the CPU, of the weights of a peft adapter folder.

    What they have less than this rank is zero.

    Raises:
        KeyError: a linear layer has no adapter.
    """
    row = torch.zeros(1, adapter_size(layout, rank))
    for index, layer in enumerate(view_adapters(layout, row, rank)):
        for name, tensors in linear_tensors(layout).items():
            column = 0
            for at, (source, width) in enumerate(tensors.sources):
                stem = f"base_model.model.{source.format(index).removesuffix('.weight')}"
                down, up = (state[f"{stem}.lora_{side}.weight"].T for side in "AB")
                ranks = slice(at * rank, at * rank + len(up))
                layer[name].down[0, :, ranks] = down
                layer[name].up[0, ranks, column : column + width] = up
                column += width
    return row[0]


def stack_on_base(
    layout: Layout, base: Tensor, rows: Tensor, rank: int, dtype: torch.dtype = torch.float32
) -> Stack:
    """Return K models: the base's row (N,) with adapters (K, n), for products in fp32 or bf16.

    Their scales are ones; whoever loads a slot sets them.
    """
    frozen = build_stack(layout, base.unsqueeze(0), dtype)
    master = view_adapters(layout, rows, rank)
    compute, copies = master, copies_of(rows, dtype)
    if copies is not None:
        compute = view_adapters(layout, copies, rank)
    elif dtype != rows.dtype:
        compute = tuple(
            {
                name: part.map(lambda tensor: tensor.to(dtype, copy=True).contiguous())
                for name, part in layer.items()
            }
            for layer in master
        )
    adapters = Adapters(master, compute, torch.ones(len(rows), device=rows.device))
    return replace(frozen, rows=rows, adapters=adapters, copies=copies)


def linear_tensors(layout: Layout) -> dict[str, Tensors]:
    """Return the linear layers of each layer by name."""
    return {
        name.removesuffix("_weight"): tensors
        for name, tensors in layout.layer.items()
        if len(tensors.shape) == 2
    }
