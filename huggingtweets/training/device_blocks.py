"""Blocks on the device, cut into the micro-batches of this process."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.training.launch import Batch
from huggingtweets.training.step import MicroBatch


class DeviceBlocks:
    """Holds N blocks as int32 tensors on one device and hands out slices of them.

    A user's blocks are a few hundred kilobytes, so they are sent once and never again. The last
    group is filled with blocks that have no targets.
    """

    def __init__(
        self,
        blocks: Blocks,
        batch: Batch,
        *,
        rank: int,
        device: torch.device,
    ) -> None:
        """Send the blocks this process needs for groups of one global batch each."""
        cut = (batch.num_micro, batch.world_size, batch.micro)
        group = math.prod(cut)
        self.num_groups = -(-len(blocks) // group)
        self._batch = batch
        # Alone on a CPU no shape has to stay as it is: what only fills the last group is left out.
        self._in_last = batch.num_micro * batch.micro
        if batch.world_size == 1 and device.type == "cpu":
            self._in_last = len(blocks) - (self.num_groups - 1) * group
        missing = self.num_groups * group - len(blocks)
        self._parts = tuple(
            _own_part(array, fill, missing, cut, rank).to(device)
            for array, fill in (
                (blocks.input_ids, 0),
                (blocks.targets, IGNORED),
                (blocks.position_ids, np.arange(blocks.position_ids.shape[1])),
            )
        )
        counts = np.pad((blocks.targets != IGNORED).sum(axis=1), (0, missing))
        self.targets_per_group: list[int] = counts.reshape(self.num_groups, group).sum(1).tolist()

    def group(self, index: int) -> list[MicroBatch]:
        """Return this process's micro-batches of one group, each three (B, T) int64 tensors.

        Alone on a CPU the last group may have fewer or smaller ones.
        """
        ids, targets, positions = (part[index].long() for part in self._parts)
        if index < self.num_groups - 1 or self._in_last == len(ids) * self._batch.micro:
            return list(zip(ids, targets, positions, strict=True))
        micro, found = self._batch.micro, []
        for m, start in enumerate(range(0, self._in_last, micro)):
            rows = slice(0, self._in_last - start)
            found.append((ids[m, rows], targets[m, rows], positions[m, rows]))
        return found


def _own_part(
    array: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
    fill: int | npt.NDArray[np.int64],
    missing: int,
    cut: tuple[int, int, int],
    rank: int,
) -> Tensor:
    """Return this rank's (groups, A, B, T) of an (N, T) array filled up to whole groups."""
    padded = np.pad(array, ((0, missing), (0, 0)))
    padded[len(array) :] = fill
    return torch.from_numpy(padded.reshape(-1, *cut, array.shape[1])[:, :, rank].copy())
