"""`recipe.adapter=lora`: train low-rank additions to the linear layers instead of all weights."""

import importlib.util
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.errors import ConfigError


def check_lora() -> None:
    """Check that peft is installed, without importing it.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "recipe.adapter: got lora, whose package peft is not installed; expected it; run "
            "pip install 'huggingtweets[lora]', or use recipe.adapter=none"
        )


def add_lora(model: PreTrainedModel, recipe: RecipeConfig) -> None:
    """Put adapters into every linear layer but the head, in place; only they remain trainable."""
    import peft

    config = peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        fan_in_fan_out=model.config.model_type == "gpt2",
        task_type=peft.TaskType.CAUSAL_LM,
    )
    peft.get_peft_model(model, config)


def copy_weights(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    """Set every parameter of a model from weights by its name; others may be there too."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def merge_lora(
    model: PreTrainedModel, recipe: RecipeConfig, weights: Mapping[str, Tensor]
) -> PreTrainedModel:
    """Return the plain model that a base and trained adapters amount to.

    Args:
        model: the base; it is changed.
        recipe: that the adapters were trained by.
        weights: of the model after `add_lora`, by the names of its parameters.
    """
    import peft

    add_lora(model, recipe)
    copy_weights(model, weights)
    for module in list(model.modules()):
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.merge()
    for name, module in list(model.named_modules()):
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            parent_name, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent_name), child, module.get_base_layer())
    return model.requires_grad_(True)
