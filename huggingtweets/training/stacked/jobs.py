"""Jobs of the fused engine, and what one is while it sits in a slot."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.blocks import IGNORED
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.ops.dropout import site_keys, thresholds_and_scales
from huggingtweets.training.progress import Training, TrainingJob
from huggingtweets.training.records import TrainResult
from huggingtweets.training.stacked.slots import Inputs


@dataclass(frozen=True)
class Exported:
    """The weights of a job, fp32 on the CPU."""

    weights: dict[str, Tensor] | None
    """Named as in transformers; None: there are only adapters."""
    adapters: dict[str, Tensor] | None = None
    """With `recipe.adapter=lora`: named as in a peft adapter folder."""


@dataclass(frozen=True)
class StackedResult:
    """What became of a job: figures and weights, or an error."""

    slug: str
    trained: TrainResult | None = None
    export: Callable[[], Exported] | None = None
    """Makes the weights out of what the engine copied; half a second for GPT-2."""
    error: HuggingtweetsError | None = None

    @cached_property
    def exported(self) -> Exported | None:
        """The weights to keep; made at the first call, so not in the way of training."""
        return self.export() if self.export is not None else None

    @property
    def weights(self) -> dict[str, Tensor] | None:
        """See `Exported.weights`."""
        return self.exported.weights if self.exported else None

    @property
    def adapters(self) -> dict[str, Tensor] | None:
        """See `Exported.adapters`."""
        return self.exported.adapters if self.exported else None


@dataclass(eq=False)
class SlotState:
    """A job in its slot."""

    training: Training
    slot: int
    rates: tuple[float, float, float]
    """Dropout of embeddings, attention and residuals."""

    def __post_init__(self) -> None:
        """Find the longest document of each block."""
        positions = self.job.training_set.blocks.position_ids
        self.reach_per_block = positions.max(axis=1, initial=0).astype(np.int64) + 1

    @property
    def job(self) -> TrainingJob:
        """What is trained."""
        return self.training.job

    @property
    def heldout_size(self) -> int:
        """T of the held-out blocks; 0: there are none."""
        heldout = self.job.heldout
        return heldout.blocks.input_ids.shape[1] if heldout else 0


def adapter_rank(recipe: RecipeConfig) -> int:
    """Return the rank of the adapters; 0: all weights are trained."""
    return recipe.lora_rank if recipe.adapter is Adapter.lora else 0


def fill_step(inputs: Inputs, states: list[SlotState], num: int, first: int) -> None:
    """Write the settings of each slot's next optimizer step, and of its dropout.

    Args:
        inputs: see `step_inputs`.
        states: the busy slots.
        num: K; slots without a seat are idle.
        first: of the slots.
    """
    arrays = inputs.arrays()
    controls = np.zeros((9, num), np.float32)
    rates = np.zeros((3, num))
    for state in states:
        recipe, num_targets = state.job.recipe, state.training.num_targets
        clip = recipe.max_grad_norm or np.inf
        controls[:, state.slot - first] = (
            1 / max(1, num_targets), 1.0, num_targets, state.training.lr, clip, recipe.weight_decay,
            recipe.beta1, recipe.beta2, recipe.adam_eps,
        )  # fmt: skip
        rates[:, state.slot - first] = state.rates
    controls[4][controls[1] == 0] = np.inf  # an idle slot clips nothing, and divides by no zero
    arrays["controls"][...] = controls
    blocks = arrays["scales"].shape[1] // num
    thresholds, scales = thresholds_and_scales(np.repeat(rates, blocks, axis=1))
    arrays["thresholds"][...] = thresholds.numpy()
    arrays["scales"][...] = scales.numpy()
    inputs.send()


def fill_micro(inputs: Inputs, states: list[SlotState], index: int, first: int) -> int:
    """Write micro-batch `index` of each slot's next optimizer step.

    A slot that has no block there, and the end of a block shorter than T, get no targets.

    Args:
        inputs: see `micro_inputs`.
        states: the busy slots.
        index: from 0.
        first: of the slots.

    Returns:
        The longest document among the blocks.
    """
    arrays = inputs.arrays()
    tokens, keys = arrays["tokens"], arrays["keys"]
    _, num, size, _ = tokens.shape
    tokens[1] = IGNORED
    seeds, steps = np.zeros((2, num), np.int64)
    reach = 1
    for state in states:
        slot, blocks = state.slot - first, state.training.blocks[index * size : (index + 1) * size]
        chosen, used = slice(blocks.start, blocks.stop), slice(0, len(blocks))
        source = state.job.training_set.blocks
        length = source.input_ids.shape[1]
        tokens[0, slot, used, :length] = source.input_ids[chosen]
        tokens[1, slot, used, :length] = source.targets[chosen]
        tokens[2, slot, used, :length] = source.position_ids[chosen]
        tokens[2, slot, used, length:] = 0
        reach = max(reach, int(state.reach_per_block[chosen].max(initial=1)))
        seeds[slot], steps[slot] = state.job.seed, state.training.step
    if any(any(state.rates) for state in states):
        places = np.tile(np.arange(index * size, (index + 1) * size), num)
        made = site_keys(np.repeat(seeds, size), np.repeat(steps, size), places, len(keys))
        keys[...] = made.numpy()
    inputs.send()
    return reach


def untrainable(job: TrainingJob, block_size: int, rank: int) -> str | None:
    """Return in one sentence why a job cannot run in slots of this kind, or None."""
    recipe = job.recipe
    length = job.training_set.blocks.input_ids.shape[1]
    if length > block_size:
        return (
            f"recipe.block_size: got {length}; expected at most the {block_size} of this batch; "
            "let the largest block size of the batch decide"
        )
    own_rank = adapter_rank(recipe)
    if bool(own_rank) != bool(rank) or own_rank > rank:
        return (
            f"recipe.adapter: got {recipe.adapter} of rank {own_rank}; expected what the slots of "
            f"this batch hold, rank {rank} (0: all weights); run such jobs apart"
        )
    return None
