"""Loss on posts that are not being trained on, each scored alone."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn

from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.training.agree import of_main
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.extraction import SetScores, read_scores
from huggingtweets.training.launch import Batch


def evaluate_heldout(
    accelerator: Accelerator,
    module: nn.Module,
    heldout: HeldoutSet,
    *,
    micro: int,
    beat: Callable[[], None] = lambda: None,
) -> SetScores:
    """Score posts with a module that isolates documents; every rank calls it, and gets the same.

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
    size = heldout.blocks.targets.shape
    # One more row: where a rank's last micro-batch is filled up, its blocks are nobody's.
    found = torch.zeros(2, size[0] + 1, size[1], device=accelerator.device)
    with torch.no_grad():
        for index in range(blocks.num_groups):
            for micro_batch, rows in zip(blocks.group(index), blocks.rows(index), strict=True):
                nats, hits = module(*micro_batch, with_hits=True)
                found[0, rows], found[1, rows] = nats.float(), hits.float()
                beat()
    module.train(was_training)
    # sync: once an epoch; all decide by the same bits
    whole = accelerator.reduce(found, reduction="sum")[:, :-1].cpu().numpy()
    scores: SetScores = of_main(read_scores(heldout, whole[0], whole[1] > 0))
    return scores
