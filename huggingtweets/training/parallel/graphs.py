"""Forward and backward pass of the single engine as one CUDA graph: a thousand launches in one."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from huggingtweets.runtime.device import is_cuda
from huggingtweets.runtime.graphs import Replay
from huggingtweets.training.parallel.step import MicroBatch


@dataclass(frozen=True)
class _Places:
    """Where a graph finds its inputs and leaves its loss."""

    parts: MicroBatch
    scale: Tensor
    loss: Tensor


class GraphedBackward:
    """Adds gradients of micro-batches, which lie in one place for good; for one process alone.

    Without CUDA the same runs without a graph.
    """

    def __init__(self, module: nn.Module, optimizer: Any, device: torch.device) -> None:
        """Make room for gradients; from now on the optimizer's `zero_grad` keeps it."""
        self._module = module
        self._replay = Replay(enabled=is_cuda(device))
        self._places: dict[torch.Size, _Places] = {}
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.zero_grad = partial(optimizer.zero_grad, set_to_none=False)

    def __call__(self, micro_batch: MicroBatch, scale: float) -> Tensor:
        """Add the gradient of the scaled loss of a micro-batch and return the loss."""
        places = self._places_for(micro_batch)
        for kept, part in zip(places.parts, micro_batch, strict=True):
            kept.copy_(part)
        places.scale.fill_(scale)
        self._replay.run(micro_batch[0].shape, partial(self._compute, places))
        return places.loss.clone()

    def _compute(self, places: _Places) -> None:
        loss = self._module(*places.parts)
        (loss * places.scale).backward()
        places.loss.copy_(loss.detach())

    def _places_for(self, micro_batch: MicroBatch) -> _Places:
        shape = micro_batch[0].shape
        if shape not in self._places:
            ids, targets, positions = (torch.empty_like(part) for part in micro_batch)
            zero = torch.zeros((), device=ids.device)
            self._places[shape] = _Places((ids, targets, positions), zero.clone(), zero)
        return self._places[shape]
