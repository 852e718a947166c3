"""The learning rate as a pure function of the step."""

import math

from huggingtweets.config.schema import RecipeConfig, Schedule


def lr_at(step: int, *, recipe: RecipeConfig, total_steps: int) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0.

    Grows linearly over the warm-up, then falls to zero (cosine or linear) at `total_steps`, or
    stays: the values `transformers.get_scheduler` gives.
    """
    warmup_steps = math.ceil(recipe.warmup_frac * total_steps)
    if step < warmup_steps:
        return recipe.lr * step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    match recipe.schedule:
        case Schedule.cosine:
            return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
        case Schedule.linear:
            return recipe.lr * (1 - progress)
        case Schedule.constant:
            return recipe.lr
