"""Loss on posts that are not being trained on, each scored alone."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.training.agree import of_main
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.extraction import as_extraction, count_extracted, hits_of_documents
from huggingtweets.training.launch import Batch
from huggingtweets.training.records import Extraction, HeldoutLoss


def evaluate_heldout(
    accelerator: Accelerator,
    module: nn.Module,
    heldout: HeldoutSet,
    *,
    micro: int,
    with_hits: bool = False,
    beat: Callable[[], None] = lambda: None,
) -> tuple[HeldoutLoss, Extraction | None]:
    """Score posts with a module that isolates documents; every rank calls it, and gets the same.

    With hits, also say how far the posts can be drawn out by their beginnings. Calls `beat` after
    every micro-batch.
    """
    blocks = DeviceBlocks(
        heldout.blocks,
        Batch(micro, 1, accelerator.num_processes),
        rank=accelerator.process_index,
        device=accelerator.device,
    )
    was_training = module.training
    module.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=accelerator.device)
    with torch.no_grad():
        for index in range(blocks.num_groups):
            for micro_batch in blocks.group(index):
                if with_hits:
                    nats, hits = module(*micro_batch, with_hits=True)
                    parts = (part.cpu().numpy() for part in (*micro_batch[1:], hits))  # sync
                    counts = count_extracted(hits_of_documents(*parts))
                    sums[1:] += sums.new_tensor(counts)
                else:
                    nats = module(*micro_batch)
                sums[0] += nats
                beat()
    module.train(was_training)
    # sync: once an epoch; all decide by the same bits
    nats, num, whole, shares = of_main(accelerator.reduce(sums, reduction="sum").tolist())
    loss = HeldoutLoss(nats, sum(blocks.targets_per_group), heldout.num_bytes)
    return loss, as_extraction((num, whole, shares))
