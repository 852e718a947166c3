"""One optimizer step, exact for micro-batches and processes of unequal weight."""

import hashlib
import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

MicroBatch = tuple[Tensor, Tensor, Tensor]
"""input_ids, targets, position_ids: (B, T) each, on the device."""


def dropout_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    """Return a seed that is a function of the position alone, so that a resumed run repeats it."""
    text = f"{seed}/{step}/{micro_step}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def train_step(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[MicroBatch],
    *,
    num_targets: int,
    lr: float,
    max_grad_norm: float,
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step over A micro-batches and return its loss sum and gradient norm.

    The gradient is that of the mean loss over all `num_targets` targets of the step, those of
    every micro-batch of every process. A step whose gradient is not finite changes nothing.

    Args:
        accelerator: the processes that share the step.
        module: maps a micro-batch to its summed loss; what `accelerator.prepare` returned.
        optimizer: likewise.
        micro_batches: those of this process.
        num_targets: targets that count, over all micro-batches and processes.
        lr: learning rate of this step.
        max_grad_norm: clip the global norm; 0: never.
        seeds: one a micro-batch, for dropout.

    Returns:
        This process's loss sum and the global gradient norm before clipping, on the device.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr  # before backward: under DeepSpeed backward also steps
    # DDP averages gradients over processes, DeepSpeed also divides by its accumulation steps.
    scale = accelerator.num_processes * accelerator.gradient_accumulation_steps / num_targets
    loss_sum = torch.zeros((), device=accelerator.device)
    for index, micro_batch in enumerate(micro_batches):
        is_last = index == len(micro_batches) - 1
        torch.manual_seed(seeds[index])
        with nullcontext() if is_last else accelerator.no_sync(module):
            loss = module(*micro_batch)
            accelerator.backward(loss * scale)
        loss_sum += loss.detach()
    grad_norm = accelerator.clip_grad_norm_(module.parameters(), max_grad_norm or math.inf)
    if accelerator.scaler is None:
        # A fused AdamW reads this on the device: no synchronisation to find a bad step.
        fused = getattr(optimizer, "optimizer", optimizer)
        setattr(fused, "found_inf", (~grad_norm.isfinite()).float())  # noqa: B010
    optimizer.step()
    optimizer.zero_grad()
    return loss_sum, grad_norm
