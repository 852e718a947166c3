"""`recipe.adapter=lora`: train low-rank additions to the linear layers instead of all weights."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.errors import ConfigError


def check_lora() -> None:
    """Check that peft is installed, without importing it.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "recipe.adapter: got lora, whose package peft is not installed; run "
            "pip install 'huggingtweets[lora]', or use recipe.adapter=none"
        )


def lora_config(model: transformers.PreTrainedModel, recipe: RecipeConfig) -> Any:
    """Return the recipe's adapters in the terms of peft."""
    import peft

    return peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        # peft 0.21 refuses them: Mamba's kernels read their weights past the adapter.
        exclude_modules=["out_proj", "conv1d"] if "mamba" in model.config.model_type else None,
        # GPT-2 and its like keep their matrices the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type=peft.TaskType.CAUSAL_LM,
    )


def add_lora(model: transformers.PreTrainedModel, recipe: RecipeConfig, *, seed: int) -> None:
    """Put adapters into every linear layer but the head, in place; only they remain trainable.

    They begin as peft's do, `lora_A` uniform and `lora_B` zero, but as a function of the seed.
    """
    import peft

    # Not `get_peft_model`: what it wraps around the model asks transformers for what is deprecated.
    peft.inject_adapter_in_model(lora_config(model, recipe), model)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_A.default.weight"):
            # What kaiming_uniform_(a=sqrt(5)) comes to, by which peft begins.
            bound = 1 / math.sqrt(parameter.shape[1])
            drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
            parameter.data.copy_(drawn)


def hold_frozen(model: transformers.PreTrainedModel, dtype: torch.dtype) -> None:
    """Hold frozen matrices in the precision of the products; no result changes.

    Left in fp32, autocast casts them again in every micro-step: 0.8 GB written and read for the 128
    tokens of a block of SmolLM2-135M, which takes longer than the products. For a base that is
    stored in that precision, so that nothing is lost.
    """
    table: Any = model.get_input_embeddings()
    for module in model.modules():
        if type(module) is nn.Linear and module.weight is not table.weight:
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)


def adapter_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the adapters of a model after `add_lora`, named as in a peft adapter folder."""
    return {
        f"base_model.model.{name.replace('.default.weight', '.weight')}": tensor.contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name
    }


def save_adapters(
    folder: Path,
    adapters: Mapping[str, Tensor],
    model: transformers.PreTrainedModel,
    recipe: RecipeConfig,
    *,
    base_name: str,
    revision: str | None,
) -> None:
    """Write adapters as a peft adapter folder, which names the base it needs.

    Args:
        folder: of the model's other files.
        adapters: see `adapter_state`.
        model: the base, as it was loaded.
        recipe: that the adapters were trained by.
        base_name: what others find the base by: its name on the Hub, else its folder.
        revision: of the base on the Hub.
    """
    config = lora_config(model, recipe)
    config.base_model_name_or_path, config.revision = base_name, revision
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(dict(adapters), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def copy_weights(model: transformers.PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Set every parameter of a model from weights by its name; others may be there too."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def merge_lora(
    model: transformers.PreTrainedModel, recipe: RecipeConfig, weights: Mapping[str, Tensor]
) -> transformers.PreTrainedModel:
    """Return the plain model that a base and trained adapters amount to.

    Args:
        model: the base; it is changed.
        recipe: that the adapters were trained by.
        weights: of the model after `add_lora`, by the names of its parameters.
    """
    add_lora(model, recipe, seed=0)
    copy_weights(model, weights)
    return without_adapters(model)


def without_adapters(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Merge the adapters within a model into its weights, in place."""
    import peft

    for module in list(model.modules()):
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.merge()
    for name, module in list(model.named_modules()):
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            parent_name, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent_name), child, module.get_base_layer())
    return model.requires_grad_(True)
