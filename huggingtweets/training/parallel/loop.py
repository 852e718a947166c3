"""The loop of the single engine: one job over all processes, from its blocks to its weights."""

import time
from dataclasses import replace

from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.runtime.device import lacks_memory
from huggingtweets.training.extraction import SetScores
from huggingtweets.training.launch import Batch
from huggingtweets.training.meter import peak_memory_gib
from huggingtweets.training.parallel.checkpoint_session import CheckpointSession
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.parallel.heldout import evaluate_heldout
from huggingtweets.training.parallel.memory import fitting, halved, take_back
from huggingtweets.training.parallel.shards import full_weights
from huggingtweets.training.parallel.step import (
    ParallelModel,
    dropout_seed,
    train_step,
)
from huggingtweets.training.progress import LOSS, Speed, Training, Weights, add_step, new_totals
from huggingtweets.training.records import TrainResult


def fit(
    training: Training,
    model: ParallelModel,
    session: CheckpointSession,
    batch: Batch,
    *,
    speed: Speed,
    log_every: int,
    since: float,
) -> tuple[TrainResult, Weights]:
    """Train one model, from its last checkpoint if there is one; every rank calls it.

    Args:
        training: of the job.
        model: in training.
        session: of this training.
        batch: how the global batch is cut.
        speed: turns tokens per second into an MFU.
        log_every: steps between logged lines.
        since: when the user's wait for the first step began, by `time.monotonic`.

    Returns:
        The figures, and on the main process the weights to keep, fp32 on the CPU.

    Raises:
        TrainingError: the loss is not finite.
        OutOfMemoryError: micro-batches of one block do not fit.
        StoppedError: a stop was asked for; all is saved.
        CheckpointError: a checkpoint is of another training, or cannot be written.
    """
    job, accelerator, module = training.job, model.accelerator, model.module
    rank = accelerator.process_index

    def cut(batch: Batch) -> DeviceBlocks:
        return DeviceBlocks(job.training_set.blocks, batch, rank=rank, device=model.device)

    def score(posts: HeldoutSet) -> SetScores:
        return evaluate_heldout(model, posts, beat=session.beat)

    def evaluate() -> None:
        if job.heldout:
            is_best = training.add_eval(score(job.heldout), score(job.probe) if job.probe else None)
            if is_best:
                training.best = full_weights(accelerator, module)
        training.line_start = time.perf_counter()  # its time is no step's

    module.train()
    batch, blocks = fitting(model, batch, cut)
    totals = new_totals(1, model.device)
    training.line_start = time.perf_counter()
    session.resume(training, totals)
    if not training.step:
        evaluate()
    first_step_s: float | None = None
    while (ending := training.ending) is None:
        step = training.step
        with training.waiting():
            micro_batches = blocks.group(step)
        seeds = [dropout_seed(job.seed, step, micro, rank) for micro in range(batch.num_micro)]
        num_targets = training.num_targets
        try:
            outcome = train_step(
                model,
                micro_batches,
                num_targets=num_targets,
                lr=training.lr,
                max_grad_norm=job.recipe.max_grad_norm,
                seeds=seeds,
            )
        except RuntimeError as err:
            if not lacks_memory(err):
                raise
            outcome = None
        if outcome is None and not take_back(model, micro_batches[-1]):
            session.start_over(batch)
        verdict = session.agree(ran_out=outcome is None)
        if outcome is None or verdict.ran_out:
            batch = halved(batch)
            blocks = cut(batch)
            continue
        loss_sum, norm = outcome
        if first_step_s is None:
            float(loss_sum)  # sync: the first step, to tell when it ended
            first_step_s = time.monotonic() - since
        add_step(totals, loss_sum, norm, taken=norm.isfinite().float(), num_targets=num_targets)
        training.count_step()
        if training.is_due(log_every):
            # sync: a logged line, the one place where the loop waits. Each process has losses of
            # its own; all else is alike.
            totals[:, LOSS] = accelerator.reduce(totals[:, LOSS])
            found = totals[0].tolist()
            line = training.end_line(time.perf_counter())
            training.log(line, found, speed.mfu(line.tokens / line.seconds))
            totals.zero_()
        if training.ends_epoch:
            evaluate()
        start = time.perf_counter()
        session.settle(verdict, training, totals)
        training.line_start += time.perf_counter() - start  # nor is that of saving

    training.ended_by = ending
    if training.best is None:
        training.best, training.kept_step = full_weights(accelerator, module), training.step
    result = replace(
        training.result(speed.mfu(training.tokens_per_s), peak_memory_gib(model.device)),
        first_step_s=first_step_s,
        startup_frac=first_step_s and first_step_s / (time.monotonic() - since),
    )
    return result, training.best
