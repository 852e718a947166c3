import numpy as np
import pytest
import torch

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.launch import Batch

T = 4


def blocks(num: int) -> Blocks:
    ids = np.arange(num * T, dtype=np.int32).reshape(num, T)
    return Blocks(ids, ids + 1, np.tile(np.arange(T, dtype=np.int32), (num, 1)))


@pytest.mark.parametrize("num", range(1, 14))
def test_alone_on_a_cpu_nothing_but_blocks_is_computed(num: int) -> None:
    made = DeviceBlocks(blocks(num), Batch(2, 3, 1), rank=0, device=torch.device("cpu"))
    micro_batches = [m for index in range(made.num_groups) for m in made.group(index)]
    assert all(len(part) in (1, 2) for m in micro_batches for part in m)
    ids = torch.cat([m[0] for m in micro_batches])
    assert torch.equal(ids, torch.arange(num * T).view(num, T))
    assert sum(made.targets_per_group) == num * T


def test_processes_share_groups_of_one_shape() -> None:
    batch = Batch(2, 2, 2)
    found = []
    for rank in range(2):
        made = DeviceBlocks(blocks(9), batch, rank=rank, device=torch.device("cpu"))
        assert made.num_groups == 2
        for index in range(2):
            group = made.group(index)
            assert [part.shape for m in group for part in m] == [(2, T)] * 6
            found += group
    targets = torch.cat([m[1] for m in found])
    assert int((targets != IGNORED).sum()) == 9 * T
    fill = torch.cat([m[2] for m in found])[(targets == IGNORED).all(1)]
    assert torch.equal(fill, torch.arange(T).expand(len(fill), T))
