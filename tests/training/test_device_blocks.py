import numpy as np
import pytest
import torch

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.training.launch import Batch, split_batch
from huggingtweets.training.parallel.device_blocks import DeviceBlocks

T = 4


def blocks(num: int) -> Blocks:
    ids = np.arange(num * T, dtype=np.int32).reshape(num, T)
    return Blocks(ids, ids + 1, np.tile(np.arange(T, dtype=np.int32), (num, 1)))


@pytest.mark.parametrize("num", range(1, 14))
def test_alone_on_a_cpu_nothing_but_blocks_is_computed(num: int) -> None:
    made = DeviceBlocks(blocks(num), Batch(2, 3, 1, 6), rank=0, device=torch.device("cpu"))
    micro_batches = [m for index in range(made.num_groups) for m in made.group(index)]
    assert all(len(part) in (1, 2) for m in micro_batches for part in m)
    ids = torch.cat([m[0] for m in micro_batches])
    assert torch.equal(ids, torch.arange(num * T).view(num, T))


def test_processes_share_groups_of_one_shape() -> None:
    batch = Batch(2, 2, 2, 8)
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


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_a_step_has_the_same_blocks_however_many_processes_there_are(size: int, world: int) -> None:
    num, device = 13, torch.device("cpu")
    batch = split_batch(
        global_batch_size=size, block_size=T, micro_batch_size="auto", world_size=world
    )
    ranks = [DeviceBlocks(blocks(num), batch, rank=rank, device=device) for rank in range(world)]
    assert {made.num_groups for made in ranks} == {-(-num // size)}
    for step in range(ranks[0].num_groups):
        parts = [micro_batch for made in ranks for micro_batch in made.group(step)]
        targets = torch.cat([part[1] for part in parts])
        own = torch.cat([part[0] for part in parts])[(targets != IGNORED).any(1)]
        first = step * size
        wanted = torch.arange(num * T).view(num, T)[first : first + size]
        assert sorted(own.tolist()) == wanted.tolist()
        assert int((targets != IGNORED).sum()) == len(wanted) * T
