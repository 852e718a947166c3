"""LoRA in the fused engine: one frozen base for all slots, and K sets of adapters stacked.

As `lora.py` does with peft: every linear layer but the head, scale alpha / rank, no dropout of its
own. A slot holds the adapters alone, some hundred times less than a model.
"""

import math

import torch
from torch import Tensor

from huggingtweets.models.adapters import adapter_size, linear_tensors, view_adapters
from huggingtweets.models.layout import Layout


def fresh_adapters(layout: Layout, rank: int, *, own_rank: int, seed: int) -> Tensor:
    """Return the row (n,) that LoRA begins with: `down` uniform as in peft, `up` zero.

    Args:
        layout: of the base.
        rank: of the slots.
        own_rank: of the job, at most `rank`; what lies beyond is zero and stays so.
        seed: of the job.
    """
    row = torch.zeros(1, adapter_size(layout, rank))
    generator = torch.Generator().manual_seed(seed)
    for layer in view_adapters(layout, row, rank):
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
    for layer, adapters in zip(layers, view_adapters(layout, row.unsqueeze(0), rank), strict=True):
        for name, adapter in adapters.items():
            weight = layer[f"{name}_weight"]
            weight.baddbmm_(adapter.down, adapter.up, alpha=scale)
    return merged


def peft_state(layout: Layout, row: Tensor, *, rank: int, own_rank: int) -> dict[str, Tensor]:
    """Return the adapters of a row under the names of a peft adapter folder."""
    state, tensors = {}, linear_tensors(layout)
    for index, layer in enumerate(view_adapters(layout, row.unsqueeze(0), rank)):
        for name, adapter in layer.items():
            source = tensors[name].sources[0][0].format(index)
            stem = f"base_model.model.{source.removesuffix('.weight')}"
            state[f"{stem}.lora_A.weight"] = adapter.down[0, :, :own_rank].T.contiguous()
            state[f"{stem}.lora_B.weight"] = adapter.up[0, :own_rank].T.contiguous()
    return state
