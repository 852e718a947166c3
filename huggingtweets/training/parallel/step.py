"""One optimizer step, exact for micro-batches and processes of unequal weight."""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from huggingtweets.training.launch import uses_deepspeed

MicroBatch = tuple[Tensor, Tensor, Tensor]
"""input_ids, targets, position_ids: (B, T) each, on the device."""
Backward = Callable[[MicroBatch, float], Tensor]
"""Micro-batch and scale of the loss -> its loss; adds to the gradients."""


@dataclass(frozen=True, eq=False)
class ParallelModel:
    """One model over the processes of a launch."""

    accelerator: Accelerator
    module: nn.Module
    """What `accelerator.prepare` returned; maps a micro-batch to its summed loss."""
    optimizer: Any
    """Likewise."""
    backward: Backward | None = None
    """Adds the gradient of a micro-batch and returns its loss; None: as the launch has it."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device


def dropout_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    """Return a seed that is a function of the position alone, so that a resumed run repeats it."""
    text = f"{seed}/{step}/{micro_step}/{rank}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def train_step(
    model: ParallelModel,
    micro_batches: Sequence[MicroBatch],
    *,
    num_targets: int,
    lr: float,
    max_grad_norm: float,
    seeds: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step over A micro-batches of this process.

    The gradient is that of the mean loss over all targets of the step, those of every micro-batch
    of every process: each summed loss is divided by the number of all targets, not by its own, so
    micro-batches of unequal weight add up exactly. A step whose gradient is not finite changes
    nothing.

    Args:
        model: in training mode.
        micro_batches: of this process.
        num_targets: that count, over all micro-batches and processes.
        lr: of this step.
        max_grad_norm: clip the global norm; 0: never.
        seeds: of dropout, one per micro-batch.

    Returns:
        This process's loss sum and the global gradient norm before clipping, on the device.
    """
    for group in model.optimizer.param_groups:
        group["lr"] = lr  # before backward: under DeepSpeed backward also steps
    # Gradients are averaged over processes (DDP, ZeRO, FSDP2 alike), hence times their number.
    scale = model.accelerator.num_processes / num_targets
    loss_sum = torch.zeros((), device=model.device)
    for index, micro_batch in enumerate(micro_batches):
        torch.manual_seed(seeds[index])
        is_last = index == len(micro_batches) - 1
        loss_sum += add_gradient(model, micro_batch, scale, is_last=is_last)
    return loss_sum, update(model, max_grad_norm)


def add_gradient(
    model: ParallelModel, micro_batch: MicroBatch, scale: float, *, is_last: bool
) -> Tensor:
    """Add the gradient of one micro-batch and return its summed loss."""
    accelerator, module = model.accelerator, model.module
    if model.backward is not None:
        return model.backward(micro_batch, scale)
    if uses_deepspeed(accelerator):
        engine: Any = module
        # Before the forward pass too: ZeRO's hooks read it.
        engine.set_gradient_accumulation_boundary(is_boundary=is_last)
        loss: Tensor = engine(*micro_batch)
        engine.backward(loss * scale, scale_wrt_gas=False)
        return loss.detach()
    # Gradients cross the network once a step, with the last micro-batch.
    with nullcontext() if is_last else accelerator.no_sync(module):
        loss = module(*micro_batch)
        accelerator.backward(loss * scale)
    return loss.detach()


def update(model: ParallelModel, max_grad_norm: float) -> Tensor:
    """Change the weights by the gathered gradient, if it is finite, and return its norm."""
    accelerator, module, optimizer = model.accelerator, model.module, model.optimizer
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
