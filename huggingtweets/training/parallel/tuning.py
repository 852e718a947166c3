"""`engine.micro_batch_size=auto`: what measures fastest on this machine, measured once.

The global batch and the order of the blocks are the same in any case; only how many of them a
process computes at once is chosen.
"""

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from huggingtweets.data.blocks import Blocks
from huggingtweets.runtime.device import device_name, is_cuda, lacks_memory, synchronize
from huggingtweets.training.collectives import all_gather, broadcast
from huggingtweets.training.findings import recall, remember
from huggingtweets.training.launch import Batch
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.parallel.shards import is_sharded
from huggingtweets.training.parallel.step import ParallelModel, add_gradient

logger = logging.getLogger(__name__)

MIN_STEPS = 200
"""Shorter trainings take what is known, or as many blocks as the global batch gives."""
MAX_CANDIDATES = 3
"""The largest micro-batches alone: each is measured while the user waits for the first step."""
_REPEATS = 2
"""Of which the better one counts: the first may be slowed by whatever else the machine does."""
_FILE = "micro_batches.json"


def fastest(
    model: ParallelModel, blocks: Blocks, batch: Batch, *, num_steps: int, key: dict[str, Any]
) -> Batch:
    """Return the cut of the global batch that computes gradients fastest; every rank calls it.

    Measured on the first blocks, before training and leaving no trace but in the cache, unless the
    same was measured before. Nothing is measured where processes hold shares of the model, or
    where training is too short to make up for it.

    Args:
        model: in training mode.
        blocks: of the training.
        batch: the largest micro-batch to consider.
        num_steps: of the training.
        key: all that the speed depends on beside this machine.
    """
    accelerator, candidates = model.accelerator, _candidates(batch)
    if len(candidates) == 1 or is_sharded(accelerator):
        return batch
    device = accelerator.device
    machine = {
        "device": device_name(device) if is_cuda(device) else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "torch": torch.__version__,
    }
    name = "; ".join(f"{name}={value}" for name, value in (key | machine).items())
    known = broadcast(recall(_FILE).get(name))
    chosen = next((one for one in candidates if one.micro == known), None)
    if chosen is None:
        if num_steps < MIN_STEPS:
            return batch
        chosen = pick(candidates, lambda one: _seconds(model, blocks, one))
        if accelerator.is_main_process:
            remember(_FILE, name, chosen.micro)
    logger.info("micro_batch_size=%d of %d measured fastest", chosen.micro, batch.micro)
    return chosen


def pick(candidates: Sequence[Batch], seconds: Callable[[Batch], float]) -> Batch:
    """Return the candidate that takes least, over all processes; they are measured alternately."""
    totals = [float("inf")] * len(candidates)
    for _ in range(_REPEATS):
        for index, candidate in enumerate(candidates):
            slowest = max(map(float, all_gather(seconds(candidate))))
            totals[index] = min(totals[index], slowest)
    return candidates[totals.index(min(totals))]


def _candidates(batch: Batch) -> list[Batch]:
    """Return the batch itself and cuts into smaller micro-batches, the largest first."""
    per_process = batch.micro * batch.num_micro
    sizes = [size for size in range(batch.micro, 0, -1) if per_process % size == 0]
    found = [replace(batch, micro=size, num_micro=per_process // size) for size in sizes]
    return found[:MAX_CANDIDATES]


def _seconds(model: ParallelModel, blocks: Blocks, batch: Batch) -> float:
    """Return the time of a process's share of a step's gradients; endless if they do not fit."""
    accelerator, module, device = model.accelerator, model.module, model.device
    first = Blocks(*(array[: batch.size] for array in vars(blocks).values()))
    group = DeviceBlocks(first, batch, rank=accelerator.process_index, device=device).group(0)
    try:
        for micro_batches in (group[:1], group):  # the first time to warm up
            start = time.perf_counter()
            for micro_batch in micro_batches:
                add_gradient(model, micro_batch, 0.0, is_last=False)
            synchronize(device)  # sync: before training, to measure
        return time.perf_counter() - start
    except RuntimeError as err:
        if not lacks_memory(err):
            raise
        return float("inf")
    finally:
        module.zero_grad()
