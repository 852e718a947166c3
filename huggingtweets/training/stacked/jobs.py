"""Jobs of the fused engine, and what one is while it sits in a slot."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.blocks import IGNORED, TrainingSet
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.models.layout import Shape
from huggingtweets.ops.dropout import site_keys, thresholds_and_scales
from huggingtweets.training.ending import Judge, ending_after
from huggingtweets.training.loop import count_steps, epoch_end_steps
from huggingtweets.training.progress import Progress
from huggingtweets.training.records import Ending, TrainResult
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.stacked.slots import Inputs, Snapshot


@dataclass(frozen=True)
class StackedJob:
    """One job for the fused engine."""

    slug: str
    training_set: TrainingSet
    heldout: HeldoutSet | None
    recipe: RecipeConfig
    seed: int
    """Of dropout."""
    probe: HeldoutSet | None = None
    """Training posts scored beside the held-out ones."""
    judge: Judge | None = None
    """Asked beside the recipe's own `stop`; ends the training where it gives a reason. A sweep
    prunes its trials so: the slot is free for the next job after the very evaluation."""


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

    job: StackedJob
    slot: int
    rates: tuple[float, float, float]
    """Dropout of embeddings, attention and residuals."""
    total_steps: int
    epoch_ends: list[int]
    targets_per_block: npt.NDArray[np.int64]
    reach_per_block: npt.NDArray[np.int64]
    """The longest document of each block."""
    progress: Progress = field(default_factory=Progress)
    ended_by: Ending = Ending.full
    best: Snapshot | None = None
    """Weights of the lowest held-out loss so far."""
    last_lr: float = 0.0
    """Learning rate of the last step taken."""
    line_tokens: int = 0
    line_steps: int = 0
    """Since the last logged line."""
    line_start: float = 0.0
    """The engine's training seconds at the last logged line."""

    @property
    def heldout_size(self) -> int:
        """T of the held-out blocks; 0: there are none."""
        heldout = self.job.heldout
        return heldout.blocks.input_ids.shape[1] if heldout else 0

    @property
    def blocks(self) -> range:
        """Blocks of the next optimizer step."""
        size = self.job.recipe.global_batch_size
        start = self.progress.step * size
        return range(start, min(start + size, len(self.job.training_set.blocks)))

    @property
    def num_targets(self) -> int:
        """Targets of the next optimizer step."""
        blocks = self.blocks
        return int(self.targets_per_block[blocks.start : blocks.stop].sum())

    @property
    def ending(self) -> Ending | None:
        """Why the job ends after its last evaluation; None: it does not."""
        evals, job = self.progress.evals, self.job
        if self.progress.step == self.total_steps:
            return Ending.full
        if len(evals) < 2 or evals[-1].step != self.progress.step:
            return None
        return ending_after(job.recipe, evals) or (job.judge(evals) if job.judge else None)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step taken ended an epoch, or the training."""
        step = self.progress.step
        return step in self.epoch_ends or step == self.total_steps


@dataclass(frozen=True)
class LineToCome:
    """A line of a job's history whose loss is still on its way from the device."""

    state: SlotState
    slot: int
    """Where the job sat."""
    step: int
    lr: float
    tokens: int
    num_steps: int
    seconds: float
    """Since the line before."""


def line_to_come(state: SlotState, seconds: float) -> LineToCome:
    """Return the line up to the last step, and begin the next; `seconds` is the engine's clock."""
    line = LineToCome(
        state,
        state.slot,
        state.progress.step,
        state.last_lr,
        state.line_tokens,
        state.line_steps,
        seconds - state.line_start,
    )
    state.line_tokens, state.line_steps, state.line_start = 0, 0, seconds
    return line


def start_slot(job: StackedJob, slot: int, rates: tuple[float, float, float]) -> SlotState:
    """Give a job its slot."""
    recipe, blocks = job.recipe, job.training_set.blocks
    return SlotState(
        job,
        slot,
        rates,
        total_steps=count_steps(job.training_set, recipe),
        epoch_ends=epoch_end_steps(job.training_set, recipe),
        targets_per_block=(blocks.targets != IGNORED).sum(axis=1),
        reach_per_block=blocks.position_ids.max(axis=1, initial=0).astype(np.int64) + 1,
    )


def dropout_rates(recipe: RecipeConfig, shape: Shape) -> tuple[float, float, float]:
    """Return the dropout of embeddings, attention and residuals."""
    if recipe.dropout is None:
        return shape.dropouts
    first, second, third = (recipe.dropout if can else 0.0 for can in shape.can_drop)
    return (first, second, third)


def adapter_rank(recipe: RecipeConfig) -> int:
    """Return the rank of the adapters; 0: all weights are trained."""
    return recipe.lora_rank if recipe.adapter is Adapter.lora else 0


def fill_step(inputs: Inputs, states: list[SlotState], num: int) -> None:
    """Write the settings of each slot's next optimizer step, and of its dropout.

    Args:
        inputs: see `step_inputs`.
        states: the busy slots.
        num: K; slots without a seat are idle.
    """
    arrays = inputs.arrays()
    controls = np.zeros((9, num), np.float32)
    rates = np.zeros((3, num))
    for state in states:
        recipe, num_targets = state.job.recipe, state.num_targets
        state.last_lr = lr_at(state.progress.step, recipe=recipe, total_steps=state.total_steps)
        clip = recipe.max_grad_norm or np.inf
        controls[:, state.slot] = (
            1 / max(1, num_targets), 1.0, num_targets, state.last_lr, clip, recipe.weight_decay,
            recipe.beta1, recipe.beta2, recipe.adam_eps,
        )  # fmt: skip
        rates[:, state.slot] = state.rates
    controls[4][controls[1] == 0] = np.inf
    arrays["controls"][...] = controls
    blocks = arrays["scales"].shape[1] // num
    thresholds, scales = thresholds_and_scales(np.repeat(rates, blocks, axis=1))
    arrays["thresholds"][...] = thresholds.numpy()
    arrays["scales"][...] = scales.numpy()
    inputs.send()


def fill_micro(inputs: Inputs, states: list[SlotState], index: int) -> int:
    """Write micro-batch `index` of each slot's next optimizer step.

    A slot that has no block there, and the end of a block shorter than T, get no targets.

    Args:
        inputs: see `micro_inputs`.
        states: the busy slots.
        index: from 0.

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
        blocks = state.blocks[index * size : (index + 1) * size]
        chosen, used = slice(blocks.start, blocks.stop), slice(0, len(blocks))
        source = state.job.training_set.blocks
        length = source.input_ids.shape[1]
        tokens[0, state.slot, used, :length] = source.input_ids[chosen]
        tokens[1, state.slot, used, :length] = source.targets[chosen]
        tokens[2, state.slot, used, :length] = source.position_ids[chosen]
        tokens[2, state.slot, used, length:] = 0
        reach = max(reach, int(state.reach_per_block[chosen].max(initial=1)))
        seeds[state.slot], steps[state.slot] = (
            state.job.seed,
            state.progress.step,
        )
    if any(any(state.rates) for state in states):
        places = np.tile(np.arange(index * size, (index + 1) * size), num)
        made = site_keys(np.repeat(seeds, size), np.repeat(steps, size), places, len(keys))
        keys[...] = made.numpy()
    inputs.send()
    return reach


def untrainable(job: StackedJob, block_size: int, rank: int) -> str | None:
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
