"""Held-out figures of neighbouring slots at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from huggingtweets.data.blocks import IGNORED, Blocks
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.kernels.rows import choose_row_ops
from huggingtweets.models.forward import micro_batch
from huggingtweets.models.run import target_scores
from huggingtweets.models.stack import Stack
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.runtime.device import by_kind, is_cpu
from huggingtweets.training.extraction import SetScores, read_scores

MAX_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Tokens of a forward pass, by device type: on a GPU 4 TFLOP of a GPT-2 in some 200 launches."""


def score_sets(
    stack: Stack,
    sets: Sequence[HeldoutSet | None],
    *,
    use_fused: bool,
    ops: Ops = PYTORCH,
) -> list[SetScores | None]:
    """Score a set of posts in each slot, documents isolated; None where there is no set.

    Args:
        stack: K slots.
        sets: one per slot, all of one block size.
        use_fused: take PyTorch's kernels for attention.
        ops: what computes between the products.
    """
    # On a CPU one by one: nothing is filled up then.
    together = 1 if is_cpu(stack.rows.device) else len(sets)
    found: list[SetScores | None] = []
    for first in range(0, len(sets), together):
        some = sets[first : first + together]
        if not any(some):
            found += [None] * len(some)
            continue
        blocks = [one.blocks if one else None for one in some]
        scores = score_blocks(
            stack.slots(first, first + together), blocks, use_fused=use_fused, ops=ops
        )
        nats, hits = (part.cpu().numpy() for part in scores)  # sync: once per epoch and job
        found += [
            read_scores(one, nats[k, : len(one.blocks)], hits[k, : len(one.blocks)])
            if one
            else None
            for k, one in enumerate(some)
        ]
    return found


def score_blocks(
    stack: Stack, sets: Sequence[Blocks | None], *, use_fused: bool, ops: Ops = PYTORCH
) -> tuple[Tensor, Tensor]:
    """Return the nats (K, N, T) fp32 of every target, and whether each is the likeliest token.

    N is that of the longest; a shorter one is filled up with nothing. See `score_sets`.
    """
    device, given = stack.rows.device, [blocks for blocks in sets if blocks is not None]
    longest, block_size = max(map(len, given)), given[0].input_ids.shape[1]
    filled = np.zeros((3, len(sets), longest, block_size), np.int32)
    filled[1] = IGNORED
    for slot, blocks in enumerate(sets):
        if blocks is not None:
            arrays = (blocks.input_ids, blocks.targets, blocks.position_ids)
            filled[:, slot, : len(blocks)] = np.stack(arrays)
    parts = torch.from_numpy(filled)
    num = max(1, by_kind(MAX_TOKENS, device) // (len(sets) * block_size))
    rows, found = choose_row_ops(device, num_positions=0, head_width=0), []
    for start in range(0, longest, num):
        input_ids, targets, positions = parts[:, :, start : start + num].to(device, torch.int64)
        batch = micro_batch(
            stack.shape,
            (input_ids, targets, positions),
            isolate=True,
            reach=int(filled[2].max()) + 1,
            use_fused=use_fused,
            ops=ops,
        )
        found.append(target_scores(stack, batch, rows))
    nats, hits = (torch.cat(each, 1) for each in zip(*found, strict=True))
    return nats, hits
