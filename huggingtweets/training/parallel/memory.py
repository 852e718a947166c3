"""When a device runs out of memory: smaller micro-batches, on all processes together."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from huggingtweets.errors import OutOfMemoryError
from huggingtweets.runtime.device import lacks_memory, release_memory
from huggingtweets.storage.files import read_json, write_json
from huggingtweets.training.collectives import any_rank
from huggingtweets.training.launch import Batch
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.parallel.shards import is_sharded
from huggingtweets.training.parallel.step import MicroBatch, ParallelModel, update

logger = logging.getLogger(__name__)

Cut = Callable[[Batch], DeviceBlocks]

_FILE = "batch.json"
"""Beside the checkpoints."""


def halved(batch: Batch) -> Batch:
    """Return the same global batch in micro-batches of half the size, or a bit less.

    Raises:
        OutOfMemoryError: they hold a single block.
    """
    if batch.micro == 1:
        raise OutOfMemoryError(
            "training: out of memory with a micro-batch of one block; expected room for it; set a "
            "smaller recipe.block_size, engine.activation_checkpointing=true, or take a launch "
            "file that shares the model out (launch/zero2.yaml)"
        )
    blocks = batch.micro * batch.num_micro
    micro = max(size for size in range(1, batch.micro // 2 + 1) if blocks % size == 0)
    logger.warning("out of memory: micro_batch_size=%d instead of %d", micro, batch.micro)
    return replace(batch, micro=micro, num_micro=blocks // micro)


def fitting(model: ParallelModel, batch: Batch, cut: Cut) -> tuple[Batch, DeviceBlocks]:
    """Find micro-batches for which memory suffices, before processes wait for each other.

    Under DDP a process that fails within its last backward pass cannot take back what it has sent
    to the others; so each tries a micro-batch without sending anything. One process alone needs
    no rehearsal, and shares of a model cannot have one.
    """
    blocks = cut(batch)
    if model.accelerator.num_processes == 1 or is_sharded(model.accelerator):
        return batch, blocks
    while any_rank(not _fits(model, blocks.group(0)[0]))[0]:
        batch = halved(batch)
        blocks = cut(batch)
    return batch, blocks


def _fits(model: ParallelModel, micro_batch: MicroBatch) -> bool:
    accelerator, module = model.accelerator, model.module
    fits = True
    try:
        with accelerator.no_sync(module):
            accelerator.backward(module(*micro_batch) * 0.0)
    except RuntimeError as err:
        if not lacks_memory(err):
            raise
        fits = False
    module.zero_grad()
    if not fits:
        release_memory()
    return fits


def take_back(model: ParallelModel, micro_batch: MicroBatch) -> bool:
    """Undo a step for which memory did not suffice, so that no process has changed anything.

    Call it where nothing holds the error any more: its traceback holds tensors.

    Returns:
        Whether it could be undone; else a process cannot tell the others, which go on.
    """
    if is_sharded(model.accelerator):
        return False
    model.optimizer.zero_grad()
    release_memory()
    if model.accelerator.num_processes > 1:
        # The waiting processes get a gradient that is not a number, so that all skip the step.
        try:
            loss = model.module(*(part[:1, :8] for part in micro_batch))
            model.accelerator.backward(loss * float("nan"))
        except RuntimeError:  # it failed in the last backward pass: some gradients are sent
            return False
        update(model, max_grad_norm=0.0)
        model.optimizer.zero_grad()
        release_memory()
    return True


def remember(folder: Path, batch: Batch) -> OutOfMemoryError:
    """Write down the batch that the next start is to begin with, and return what to tell."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _FILE, asdict(batch))
    return OutOfMemoryError(
        f"training: out of memory with micro-batches of more than {batch.micro} blocks, and the "
        "step cannot be taken back; expected room for them; run the same command again: it goes "
        f"on from the last checkpoint with engine.micro_batch_size={batch.micro}"
    )


def remembered(folder: Path, batch: Batch) -> Batch:
    """Return the smaller batch that an earlier start found to be needed, if it did."""
    with suppress(OSError, ValueError, TypeError):
        smaller = Batch(**read_json(folder / _FILE))
        same = (batch.num_places, batch.world_size, batch.size)
        if (smaller.num_places, smaller.world_size, smaller.size) == same:
            return min(batch, smaller, key=lambda one: one.micro)
    return batch
