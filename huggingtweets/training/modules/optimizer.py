"""AdamW over the trained parameters of one model."""

import torch
from torch import nn

from huggingtweets.config.schema import RecipeConfig


def build_optimizer(module: nn.Module, recipe: RecipeConfig) -> torch.optim.AdamW:
    """Return a fused AdamW; weight decay applies to matrices (two dimensions or more) only."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.adam_eps,
        fused=True,
    )
