"""The training loop of the single engine: one job, from its blocks to its weights."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from accelerate import Accelerator
from torch import nn

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import TrainingSet
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.training.checkpoint_session import CheckpointSession
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.ending import ending_after, is_to_keep
from huggingtweets.training.heldout import evaluate_heldout
from huggingtweets.training.launch import Batch
from huggingtweets.training.memory import StepLostError, fitting, halved, try_step
from huggingtweets.training.meter import peak_memory_gib
from huggingtweets.training.progress import Interval, Progress, Speed, Weights, diverged
from huggingtweets.training.records import Ending, LoggedEval, LoggedStep, TrainResult
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.shards import full_weights
from huggingtweets.training.step import Backward, dropout_seed

Report = Callable[[LoggedStep | LoggedEval], None]


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
    probe: HeldoutSet | None,
    session: CheckpointSession,
    *,
    recipe: RecipeConfig,
    batch: Batch,
    seed: int,
    log_every: int,
    speed: Speed,
    report: Report,
    since: float,
    backward: Backward | None = None,
) -> tuple[TrainResult, Weights]:
    """Train one model, from its last checkpoint if there is one; every rank calls it.

    Args:
        accelerator: the processes that share the training.
        module: what `accelerator.prepare` returned.
        optimizer: likewise.
        training_set: the blocks to train on.
        heldout: the blocks to score.
        probe: blocks of training posts to score beside them.
        session: of this training.
        recipe: how it is trained.
        batch: how the global batch is cut.
        seed: of dropout.
        log_every: steps between logged lines.
        speed: turns tokens per second into an MFU.
        report: takes the logged lines.
        since: when the user's wait for the first step began, by `time.monotonic`.
        backward: how gradients are computed; see `train_step`.

    Returns:
        The figures, and on the main process the weights to keep, fp32 on the CPU.

    Raises:
        TrainingError: the loss is not finite.
        OutOfMemoryError: micro-batches of one block do not fit.
        StoppedError: a stop was asked for; all is saved.
        CheckpointError: a checkpoint is of another training, or cannot be written.
    """
    rank = accelerator.process_index

    def cut(batch: Batch) -> DeviceBlocks:
        return DeviceBlocks(training_set.blocks, batch, rank=rank, device=accelerator.device)

    def evaluate(epoch: float) -> None:
        if heldout:
            score = partial(
                evaluate_heldout, accelerator, module, micro=batch.micro, beat=session.beat
            )
            found = score(heldout)
            of_probe = score(probe) if probe else None
            known = (of_probe.loss, of_probe.extraction) if of_probe else (None, None)
            line = LoggedEval(progress.step, epoch, found.loss, *known)
            report(_checked(line, progress))
            progress.evals.append(line)
            if is_to_keep(recipe, progress.evals):
                progress.best, progress.kept_step = full_weights(accelerator, module), progress.step
            progress.keep_scores(found.posts, of_probe.posts if of_probe else ())
        interval.restart_clock()

    total_steps = count_steps(training_set, recipe)
    epoch_ends = epoch_end_steps(training_set, recipe)
    module.train()
    batch, blocks = fitting(accelerator, module, batch, cut)
    interval = Interval(accelerator, speed)
    progress = session.resume(interval)
    for line in progress.lines():
        report(line)
    if not progress.step:
        evaluate(0.0)

    ending = ending_after(recipe, progress.evals)
    first_step_s: float | None = None
    while progress.step < total_steps and ending is None:
        step = progress.step
        lr = lr_at(step, recipe=recipe, total_steps=total_steps)
        num_targets = blocks.targets_per_group[step]
        with interval.waiting():
            micro_batches = blocks.group(step)
        try:
            outcome = try_step(
                accelerator,
                module,
                optimizer,
                micro_batches,
                num_targets=num_targets,
                lr=lr,
                max_grad_norm=recipe.max_grad_norm,
                seeds=[dropout_seed(seed, step, micro, rank) for micro in range(batch.num_micro)],
                backward=backward,
            )
        except StepLostError:
            session.start_over(halved(batch))
        verdict = session.agree(ran_out=outcome is None)
        if outcome is None or verdict.ran_out:
            batch = halved(batch)
            blocks = cut(batch)
            continue
        if first_step_s is None:
            float(outcome[0])  # sync: the first step, to tell when it ended
            first_step_s = time.monotonic() - since
        progress.step += 1
        progress.tokens += num_targets
        interval.add(*outcome, num_targets)
        epoch = epochs_at(progress.step, epoch_ends)
        ends_epoch = progress.step in epoch_ends or progress.step == total_steps
        if progress.step % log_every == 0 or ends_epoch:
            line = interval.close(progress, epoch, lr)
            progress.history.append(line)
            report(line)
        if ends_epoch:
            evaluate(epoch)
            ending = ending_after(recipe, progress.evals)
        session.settle(verdict, progress, interval)

    if progress.step == total_steps or ending is None:
        ending = Ending.full
    if progress.best is None:
        progress.best, progress.kept_step = full_weights(accelerator, module), progress.step
    result = replace(
        _result(accelerator, progress, epoch_ends, speed, ending),
        first_step_s=first_step_s,
        startup_frac=first_step_s and first_step_s / (time.monotonic() - since),
    )
    return result, progress.best


def _checked(line: LoggedEval, progress: Progress) -> LoggedEval:
    """Return a line of finite figures.

    Raises:
        TrainingError: it has others.
    """
    if not math.isfinite(line.heldout.nats):
        raise diverged(progress)
    return line


def _result(
    accelerator: Accelerator,
    progress: Progress,
    epoch_ends: list[int],
    speed: Speed,
    ending: Ending,
) -> TrainResult:
    tokens_per_s = progress.tokens / progress.seconds if progress.seconds else 0.0
    return TrainResult(
        steps=progress.step,
        epochs=epochs_at(progress.step, epoch_ends),
        tokens=progress.tokens,
        seconds=progress.seconds,
        tokens_per_s=tokens_per_s,
        mfu=speed.mfu(tokens_per_s, accelerator.num_processes),
        final_loss=progress.history[-1].loss,
        peak_memory_gib=peak_memory_gib(accelerator.device),
        history=tuple(progress.history),
        evals=tuple(progress.evals),
        kept_step=progress.kept_step,
        scores=progress.scores,
        ended_by=ending,
        data_wait_s=sum(line.data_wait_s for line in progress.history),
    )


def epochs_at(step: int, epoch_ends: list[int]) -> float:
    """Return epochs trained after this many steps, a fraction within an epoch."""
    done, start = 0, 0
    for end in epoch_ends:
        if step < end:
            return done + (step - start) / (end - start)
        done, start = done + 1, end
    return float(done)
