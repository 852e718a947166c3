"""One optimizer step, exact for micro-batches and processes of unequal weight."""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from huggingtweets.training.launch import uses_deepspeed

MicroBatch = tuple[Tensor, Tensor, Tensor]
"""input_ids, targets, position_ids: (B, T) each, on the device."""
Backward = Callable[[MicroBatch, float], Tensor]
"""Micro-batch and scale of the loss -> its loss; adds to the gradients."""


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
    backward: Backward | None = None,
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
        seeds: one per micro-batch, for dropout.
        backward: adds the gradient of a micro-batch and returns its loss; None: as the launch
            has it.

    Returns:
        This process's loss sum and the global gradient norm before clipping, on the device.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    scale = accelerator.num_processes / num_targets  # gradients are averaged over processes
    loss_sum = torch.zeros((), device=accelerator.device)
    for index, micro_batch in enumerate(micro_batches):
        torch.manual_seed(seeds[index])
        is_last = index == len(micro_batches) - 1
        if backward is None:
            loss_sum += _backward(accelerator, module, micro_batch, scale, is_last=is_last)
        else:
            loss_sum += backward(micro_batch, scale)
    return loss_sum, update(accelerator, module, optimizer, max_grad_norm=max_grad_norm)


def _backward(
    accelerator: Accelerator,
    module: nn.Module,
    micro_batch: MicroBatch,
    scale: float,
    *,
    is_last: bool,
) -> Tensor:
    """Add the gradient of one micro-batch and return its summed loss."""
    if uses_deepspeed(accelerator):
        engine: Any = module
        # Before the forward pass too: ZeRO's hooks read it.
        engine.set_gradient_accumulation_boundary(is_boundary=is_last)
        loss: Tensor = engine(*micro_batch)
        engine.backward(loss * scale, scale_wrt_gas=False)
        return loss.detach()
    with nullcontext() if is_last else accelerator.no_sync(module):
        loss = module(*micro_batch)
        accelerator.backward(loss * scale)
    return loss.detach()


def update(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    max_grad_norm: float,
) -> Tensor:
    """Change the weights by the gathered gradient, if it is finite, and return its norm."""
    if uses_deepspeed(accelerator):
        engine: Any = module
        engine.step()  # clips, and skips a step that is not finite
        known = float(engine.get_global_grad_norm())  # sync: DeepSpeed has it on the host already
        return torch.tensor(known, device=accelerator.device)
    # A fused AdamW reads both on the device: no synchronisation to find a bad step, and no pass
    # over all gradients to clip them.
    fused: Any = getattr(optimizer, "optimizer", optimizer)
    grads = [each.grad for each in module.parameters() if each.grad is not None]
    if accelerator.scaler is None and all(type(grad) is Tensor for grad in grads):
        grad_norm = torch.nn.utils.get_total_norm(grads)
        limit = max_grad_norm or math.inf
        fused.grad_scale = ((grad_norm + 1e-6) / limit).clamp(min=1.0)  # as clip_grad_norm_
        fused.found_inf = (~grad_norm.isfinite()).float()
    else:
        norm: Any = accelerator.clip_grad_norm_(module.parameters(), max_grad_norm or math.inf)
        grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if accelerator.scaler is None:
            fused.found_inf = (~grad_norm.isfinite()).float()
    optimizer.step()
    optimizer.zero_grad()
    return grad_norm
