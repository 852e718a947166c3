"""Steps, epochs and learning rates: pure functions of the blocks, the recipe and the step."""

import math
from itertools import accumulate

from huggingtweets.config.schema import RecipeConfig, Schedule
from huggingtweets.data.blocks import TrainingSet


def lr_at(step: int, *, recipe: RecipeConfig, total_steps: int) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0.

    Grows linearly from 0 over the warm-up, then falls to zero (cosine or linear) at `total_steps`,
    or stays: the values `transformers.get_scheduler` gives, but that the last step, which may be
    the only one, is none of the warm-up.
    """
    warmup_steps = min(math.ceil(recipe.warmup_frac * total_steps), total_steps - 1)
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


def count_steps(training_set: TrainingSet, recipe: RecipeConfig) -> int:
    """Return the optimizer steps of a whole training: never a matter of the world size."""
    steps = -(-len(training_set.blocks) // recipe.global_batch_size)
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def epoch_end_steps(training_set: TrainingSet, recipe: RecipeConfig) -> list[int]:
    """Return, for each epoch, the number of steps after which all its blocks are trained."""
    blocks = accumulate(training_set.blocks_per_epoch)
    return [-(-count // recipe.global_batch_size) for count in blocks]


def epochs_at(step: int, epoch_ends: list[int]) -> float:
    """Return epochs trained after this many steps, a fraction within an epoch."""
    done, start = 0, 0
    for end in epoch_ends:
        if step < end:
            return done + (step - start) / (end - start)
        done, start = done + 1, end
    return float(done)
