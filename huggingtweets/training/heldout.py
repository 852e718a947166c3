"""Loss on held-out posts, each scored alone."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.training.agree import of_main
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.launch import Batch
from huggingtweets.training.records import HeldoutLoss


def evaluate_heldout(
    accelerator: Accelerator,
    module: nn.Module,
    heldout: HeldoutSet,
    *,
    micro: int,
    beat: Callable[[], None] = lambda: None,
) -> HeldoutLoss:
    """Score a held-out set with a module that isolates documents; every rank calls it.

    Calls `beat` after every micro-batch.
    """
    blocks = DeviceBlocks(
        heldout.blocks,
        Batch(micro, 1, accelerator.num_processes),
        rank=accelerator.process_index,
        device=accelerator.device,
    )
    was_training = module.training
    module.eval()
    nats = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    with torch.no_grad():
        for index in range(blocks.num_groups):
            for micro_batch in blocks.group(index):
                nats += module(*micro_batch)
                beat()
    module.train(was_training)
    total = accelerator.reduce(nats, reduction="sum")
    return HeldoutLoss(
        of_main(float(total)),  # sync: once an epoch; all decide by the same bits
        sum(blocks.targets_per_group),
        heldout.num_bytes,
    )
