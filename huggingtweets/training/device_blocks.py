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
        self._num_micro = batch.num_micro
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
        """Return this process's micro-batches of one group, each three (B, T) int64 tensors."""
        parts = [part[index].long() for part in self._parts]
        return [(parts[0][m], parts[1][m], parts[2][m]) for m in range(self._num_micro)]


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
