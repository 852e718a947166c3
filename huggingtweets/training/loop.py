"""The training loop of the single engine: one job, from its blocks to its weights."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from huggingtweets.config.schema import Keep, RecipeConfig
from huggingtweets.data.blocks import TrainingSet
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.errors import TrainingError
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.heldout import evaluate_heldout
from huggingtweets.training.launch import Batch
from huggingtweets.training.meter import peak_memory_gib
from huggingtweets.training.records import HeldoutLoss, LoggedEval, LoggedStep, TrainResult
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.step import dropout_seed, train_step

logger = logging.getLogger(__name__)

Report = Callable[[LoggedStep | LoggedEval], None]
Weights = dict[str, Tensor]


@dataclass
class Progress:
    """What the loop knows beside weights and optimizer state; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    num_bad_steps: int = 0
    history: list[LoggedStep] = field(default_factory=list)
    evals: list[LoggedEval] = field(default_factory=list)
    best: Weights | None = None
    """Weights of the lowest held-out loss so far, on the CPU of the main process."""
    kept_step: int = 0


@dataclass(frozen=True)
class Speed:
    """What turns tokens per second into a model FLOPs utilisation."""

    flops_per_token: float
    peak_flops: float | None

    def mfu(self, tokens_per_s: float, world_size: int) -> float | None:
        """Return the share of the devices' peak, or None where that is not known."""
        if self.peak_flops is None:
            return None
        return tokens_per_s * self.flops_per_token / (self.peak_flops * world_size)


def count_steps(training_set: TrainingSet, recipe: RecipeConfig) -> int:
    """Return the optimizer steps of a whole training: never a matter of the world size."""
    steps = -(-len(training_set.blocks) // recipe.global_batch_size)
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def epoch_end_steps(training_set: TrainingSet, recipe: RecipeConfig) -> list[int]:
    """Return, for each epoch, the number of steps after which all its blocks are trained."""
    blocks = accumulate(training_set.blocks_per_epoch)
    return [-(-count // recipe.global_batch_size) for count in blocks]


def fit(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    training_set: TrainingSet,
    heldout: HeldoutSet | None,
    *,
    recipe: RecipeConfig,
    batch: Batch,
    seed: int,
    log_every: int,
    speed: Speed,
    report: Report,
) -> tuple[TrainResult, Weights]:
    """Train one model; every rank calls it.

    Returns:
        The figures, and on the main process the weights to keep, fp32 on the CPU.

    Raises:
        TrainingError: the loss is not finite.
    """
    blocks = DeviceBlocks(
        training_set.blocks,
        micro=batch.micro,
        num_micro=batch.num_micro,
        rank=accelerator.process_index,
        world_size=batch.world_size,
        device=accelerator.device,
    )
    total_steps = count_steps(training_set, recipe)
    epoch_ends = epoch_end_steps(training_set, recipe)
    progress = Progress()
    interval = _Interval(accelerator, speed)

    module.train()
    if heldout:
        _evaluate(accelerator, module, heldout, progress, 0.0, batch, recipe, report)
    while progress.step < total_steps:
        step = progress.step
        lr = lr_at(step, recipe=recipe, total_steps=total_steps)
        num_targets = blocks.targets_per_group[step]
        loss_sum, grad_norm = train_step(
            accelerator,
            module,
            optimizer,
            blocks.group(step),
            num_targets=num_targets,
            lr=lr,
            max_grad_norm=recipe.max_grad_norm,
            seeds=[
                dropout_seed(seed, step, micro_step, accelerator.process_index)
                for micro_step in range(batch.num_micro)
            ],
        )
        progress.step += 1
        progress.tokens += num_targets
        interval.add(loss_sum, grad_norm, num_targets)
        epoch = _epoch(progress.step, epoch_ends)
        ends_epoch = progress.step in epoch_ends or progress.step == total_steps
        if progress.step % log_every == 0 or ends_epoch:
            line = interval.close(progress, epoch, lr)
            progress.history.append(line)
            report(line)
        if heldout and ends_epoch:
            _evaluate(accelerator, module, heldout, progress, epoch, batch, recipe, report)
            interval.restart_clock()

    if recipe.keep is Keep.last or progress.best is None:
        progress.best, progress.kept_step = _weights(accelerator, module), progress.step
    tokens_per_s = progress.tokens / progress.seconds if progress.seconds else 0.0
    result = TrainResult(
        steps=progress.step,
        epochs=_epoch(progress.step, epoch_ends),
        tokens=progress.tokens,
        seconds=progress.seconds,
        tokens_per_s=tokens_per_s,
        mfu=speed.mfu(tokens_per_s, batch.world_size),
        final_loss=progress.history[-1].loss,
        peak_memory_gib=peak_memory_gib(accelerator.device),
        history=tuple(progress.history),
        evals=tuple(progress.evals),
        kept_step=progress.kept_step,
    )
    return result, progress.best


def _evaluate(
    accelerator: Accelerator,
    module: nn.Module,
    heldout: HeldoutSet,
    progress: Progress,
    epoch: float,
    batch: Batch,
    recipe: RecipeConfig,
    report: Report,
) -> None:
    """Score the held-out posts, and remember the weights where they are the best so far."""
    figures: HeldoutLoss = evaluate_heldout(accelerator, module, heldout, micro=batch.micro)
    if not math.isfinite(figures.nats):
        raise _diverged(progress)
    is_best = progress.step > 0 and all(
        figures.nats < other.heldout.nats for other in progress.evals if other.step > 0
    )
    progress.evals.append(LoggedEval(progress.step, epoch, figures))
    report(progress.evals[-1])
    if recipe.keep is Keep.best and is_best:
        progress.best, progress.kept_step = _weights(accelerator, module), progress.step


def _weights(accelerator: Accelerator, module: nn.Module) -> Weights:
    """Gather the model's weights: copies on the CPU of the main process, nothing elsewhere."""
    state = accelerator.get_state_dict(module)  # sync: once an epoch at most
    if not accelerator.is_main_process:
        return {}
    return {
        name.removeprefix("model."): tensor.detach().to("cpu", torch.float32, copy=True)
        for name, tensor in state.items()
    }


def _epoch(step: int, epoch_ends: list[int]) -> float:
    """Return epochs trained after so many steps, a fraction within an epoch."""
    done, start = 0, 0
    for end in epoch_ends:
        if step < end:
            return done + (step - start) / (end - start)
        done, start = done + 1, end
    return float(done)


def _diverged(progress: Progress) -> TrainingError:
    return TrainingError(
        f"training: the loss is not finite at step {progress.step} "
        f"({progress.num_bad_steps} steps were skipped); expected a finite loss; lower recipe.lr, "
        "raise recipe.warmup_frac or set engine.precision=fp32"
    )


class _Interval:
    """Sums over the steps since the last logged line; stays on the device until it is closed."""

    def __init__(self, accelerator: Accelerator, speed: Speed) -> None:
        self._accelerator = accelerator
        self._speed = speed
        self._reset()

    def _reset(self) -> None:
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self._accelerator.device)
        self._bad = torch.zeros((), device=self._accelerator.device)
        self._grad_norm = self._bad
        self._tokens = 0
        self._good_tokens = self._loss_sum
        self._steps = 0
        self._start = time.perf_counter()

    def restart_clock(self) -> None:
        """Leave what happened since the last line out of the next."""
        self._start = time.perf_counter()

    def add(self, loss_sum: Tensor, grad_norm: Tensor, num_targets: int) -> None:
        """Count one step."""
        is_good = grad_norm.isfinite()
        self._loss_sum = self._loss_sum + torch.where(is_good, loss_sum, 0.0)
        self._good_tokens = self._good_tokens + is_good * num_targets
        self._bad = self._bad + ~is_good
        self._grad_norm = torch.where(is_good, grad_norm, self._grad_norm)
        self._tokens += num_targets
        self._steps += 1

    def close(self, progress: Progress, epoch: float, lr: float) -> LoggedStep:
        """Turn the sums into a line and start anew; the one place where the loop waits.

        Raises:
            TrainingError: no step since the last line had a finite gradient.
        """
        loss = self._accelerator.reduce(self._loss_sum) / self._good_tokens
        num_bad = int(self._bad)  # sync: a logged line
        seconds = time.perf_counter() - self._start
        progress.seconds += seconds
        progress.num_bad_steps += num_bad
        if num_bad:
            logger.warning("skipped=%d steps with a gradient that is not finite", num_bad)
        if num_bad == self._steps:
            raise _diverged(progress)
        tokens_per_s = self._tokens / seconds
        line = LoggedStep(
            step=progress.step,
            epoch=round(epoch, 4),
            loss=float(loss),  # sync: a logged line
            lr=lr,
            grad_norm=float(self._grad_norm),  # sync: a logged line
            tokens_per_s=tokens_per_s,
            mfu=self._speed.mfu(tokens_per_s, self._accelerator.num_processes),
        )
        self._reset()
        return line
