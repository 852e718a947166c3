"""Loss on posts that are not being trained on, each scored alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers
from torch import Tensor

from huggingtweets.config.schema import Precision
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.training.collectives import broadcast
from huggingtweets.training.extraction import SetScores, read_scores, scores_of_posts
from huggingtweets.training.launch import Batch
from huggingtweets.training.modules.loss import SummedLoss, settle_attention
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.parallel.step import ParallelModel
from huggingtweets.training.records import PostScore

MAX_TOKENS = 4096
"""Tokens of a forward pass without a backward one: it keeps nothing but their logits."""


def evaluate_heldout(
    model: ParallelModel, heldout: HeldoutSet, *, beat: Callable[[], None]
) -> SetScores:
    """Score posts, documents isolated; every rank calls it, and gets the same.

    Calls `beat` after every micro-batch.
    """
    accelerator, module = model.accelerator, model.module
    num, world_size = _num_blocks(heldout), accelerator.num_processes
    blocks = DeviceBlocks(
        heldout.blocks,
        Batch(num, 1, world_size, num * world_size),
        rank=accelerator.process_index,
        device=accelerator.device,
    )
    was_training = module.training
    module.eval()
    size = heldout.blocks.targets.shape
    # One more row: where a rank's last micro-batch is filled up, its blocks are nobody's.
    found = torch.zeros(2, size[0] + 1, size[1], device=accelerator.device)
    order: list[int] = []
    parts: list[Tensor] = []
    with torch.no_grad():
        for index in range(blocks.num_groups):
            for micro_batch, rows in zip(blocks.group(index), blocks.rows(index), strict=True):
                nats, hits = module(*micro_batch, with_hits=True)
                parts.append(torch.stack([nats.float(), hits.float()]))
                order += rows
                beat()
    found[:, order] = torch.cat(parts, 1)
    module.train(was_training)
    # sync: once per epoch; all decide by the same bits
    whole = accelerator.reduce(found, reduction="sum")[:, :-1].cpu().numpy()
    scores: SetScores = broadcast(read_scores(heldout, whole[0], whole[1] > 0))
    return scores


def score_set(
    model: transformers.PreTrainedModel, posts: HeldoutSet, *, eos_id: int
) -> tuple[PostScore, ...]:
    """Score posts with a model that is not in training, on its device; autocast is the caller's."""
    longest = int(posts.blocks.position_ids.max()) + 1
    module = SummedLoss(model, isolate=True, longest_document=longest).eval()
    settle_attention(module, eos_id)
    nats, hits = module.score(posts.blocks, _num_blocks(posts), model.device)
    return scores_of_posts(posts, nats, hits)


def _num_blocks(posts: HeldoutSet) -> int:
    """Return how many blocks a process scores at once."""
    return max(1, MAX_TOKENS // int(posts.blocks.input_ids.shape[1]))


def products_dtype(precision: Precision) -> torch.dtype:
    """Return what stacked models multiply in; they know no fp16."""
    return torch.bfloat16 if precision is Precision.bf16 else torch.float32


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which products are as the engine's."""
    dtype = torch.float16 if precision is Precision.fp16 else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision is not Precision.fp32)
