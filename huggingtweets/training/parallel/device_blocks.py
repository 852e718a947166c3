"""Blocks on the device, cut into the micro-batches of this process."""

import numpy as np
import numpy.typing as npt
import torch

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.runtime.device import is_cpu
from huggingtweets.training.launch import Batch
from huggingtweets.training.parallel.step import MicroBatch


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
        size = batch.size
        self.num_groups = -(-len(blocks) // size)
        self._batch = batch
        # Alone on a CPU no shape has to stay as it is: what only fills the last group is left out.
        self._in_last = batch.num_micro * batch.micro
        if batch.world_size == 1 and is_cpu(device):
            self._in_last = len(blocks) - (self.num_groups - 1) * size
        places = _places(len(blocks), self.num_groups, batch)[:, :, rank]
        self._places = places
        self._parts = tuple(
            torch.from_numpy(np.concatenate([array, fill])[places]).to(device)
            for array, fill in (
                (blocks.input_ids, _row(0, blocks)),
                (blocks.targets, _row(IGNORED, blocks)),
                (blocks.position_ids, _row(np.arange(blocks.position_ids.shape[1]), blocks)),
            )
        )

    def rows(self, index: int) -> list[list[int]]:
        """Return which blocks `group` returns, N for an empty one."""
        cuts = zip(self._places[index], self._cuts(index), strict=False)
        return [places[cut].tolist() for places, cut in cuts]

    def group(self, index: int) -> list[MicroBatch]:
        """Return this process's micro-batches of one group, each three (B, T) int64 tensors.

        Alone on a CPU the last group may have fewer or smaller ones.
        """
        parts = (part[index].long() for part in self._parts)
        return [
            (ids[cut], targets[cut], positions[cut])
            for ids, targets, positions, cut in zip(*parts, self._cuts(index), strict=False)
        ]

    def _cuts(self, index: int) -> list[slice]:
        """Return which blocks of each micro-batch of a group are computed."""
        micro, num = self._batch.micro, self._batch.num_micro * self._batch.micro
        if index == self.num_groups - 1:
            num = self._in_last
        return [slice(num - start) for start in range(0, num, micro)]


def _places(num_blocks: int, num_groups: int, batch: Batch) -> npt.NDArray[np.int64]:
    """Return (groups, A, W, B) indices of blocks; `num_blocks` stands for an empty place."""
    size, room = batch.size, batch.num_places
    places = np.full((num_groups, room), num_blocks, dtype=np.int64)
    places[:, :size] = np.arange(num_groups * size).reshape(num_groups, size)
    cut = (batch.num_micro, batch.world_size, batch.micro)
    return np.minimum(places, num_blocks).reshape(num_groups, *cut)


def _row(value: int | npt.NDArray[np.int64], blocks: Blocks) -> npt.NDArray[np.int32]:
    """Return a (1, T) block of one value, or of one row of values."""
    return np.broadcast_to(value, (1, blocks.input_ids.shape[1])).astype(np.int32)
