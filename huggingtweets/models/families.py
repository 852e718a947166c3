"""Which families there are; a further one is a file beside `gpt2.py` and a line here."""

from types import ModuleType
from typing import Any

import torch

from huggingtweets.errors import ConfigError
from huggingtweets.models import gpt2, llama
from huggingtweets.models.layout import Layout, Shape
from huggingtweets.models.stack import Stack, build_stack

FAMILIES: dict[str, ModuleType] = {
    "gpt2": gpt2,
    "llama": llama,
    "smollm3": llama,
    "qwen2": llama,
    "qwen3": llama,
}
"""By the `model_type` of transformers: modules with why_not_stacked, read_shape, layout_of, embed
and layer."""


def why_not_fused(config: Any) -> str | None:
    """Return in one sentence why models of a transformers config cannot be stacked, or None."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(FAMILIES)
        return f"the fused engine stacks {known}, and this is {config.model_type}"
    reason: str | None = family.why_not_stacked(config)
    return reason


def has_own_lora(config: Any) -> bool:
    """Whether our own forward pass computes adapters as transformers names them.

    Llamas have queries, keys and values side by side in one product of ours, and an adapter each.
    """
    return config.model_type == "gpt2" and why_not_fused(config) is None


def shape_of(config: Any) -> Shape:
    """Return the shape of a transformers config.

    Raises:
        ConfigError: such models cannot be stacked.
    """
    reason = why_not_fused(config)
    if reason:
        raise ConfigError(f"engine.kind: got fused; {reason}; set engine=single")
    shape: Shape = FAMILIES[config.model_type].read_shape(config)
    return shape


def layout_of(shape: Shape) -> Layout:
    """Lay out one model of a shape."""
    layout: Layout = FAMILIES[shape.family].layout_of(shape)
    return layout


def stack_of(model: Any, dtype: torch.dtype) -> Stack | None:
    """Return a transformers model as a stack of one, on its device; None: its family has no pass.

    Args:
        model: its weights are copied.
        dtype: of the matrix products.
    """
    if why_not_fused(model.config):
        return None
    layout = layout_of(shape_of(model.config))
    row = layout.pack(model.state_dict()).to(model.device)
    return build_stack(layout, row.unsqueeze(0), dtype)
