"""Held-out loss of neighbouring slots at once."""

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


def heldout_nats(
    stack: Stack,
    sets: Sequence[Blocks | None],
    *,
    width: int,
    use_fused: bool,
    hits: Sequence[list[Tensor]] | None = None,
    each: Sequence[list[Tensor]] | None = None,
    ops: Ops = PYTORCH,
) -> Tensor:
    """Return (K,) fp64 losses, summed over each slot's own held-out blocks, documents isolated.

    Args:
        stack: K slots.
        sets: one per slot, all of one block size; a shorter one is filled up with nothing. None
            scores 0, not all may be.
        width: queries per window of attention.
        use_fused: take PyTorch's kernels for attention.
        hits: one list for each slot; receives (n, T) booleans, parts of the slot's (N, T) one after
            another: whether each target is the likeliest token.
        each: likewise; receives the nats of each target, fp32, 0 where there is none.
        ops: what computes between the products.
    """
    device = stack.rows.device
    if is_cpu(device) and len(sets) > 1:  # one by one nothing is filled up
        return torch.cat(
            [
                heldout_nats(
                    stack.slots(k, k + 1),
                    [one],
                    width=width,
                    use_fused=use_fused,
                    hits=hits[k : k + 1] if hits else None,
                    each=each[k : k + 1] if each else None,
                    ops=ops,
                )
                if one
                else torch.zeros(1, dtype=torch.float64)
                for k, one in enumerate(sets)
            ]
        )
    given = [blocks for blocks in sets if blocks is not None]
    block_size = given[0].input_ids.shape[1]
    reach = max(int(blocks.position_ids.max(initial=0)) + 1 for blocks in given)
    longest = max(map(len, given))
    none = np.empty((0, block_size), np.int32)
    parts = [
        torch.from_numpy(_filled([getattr(b, name, none) for b in sets], longest, fill))
        for name, fill in (("input_ids", 0), ("targets", IGNORED), ("position_ids", 0))
    ]
    num = max(1, by_kind(MAX_TOKENS, device, 16384) // (len(sets) * block_size))
    nats = torch.zeros(len(sets), dtype=torch.float64, device=device)
    rows = choose_row_ops(device, num_positions=0, head_width=0)
    for start in range(0, longest, num):
        input_ids, targets, position_ids = (
            part[:, start : start + num].to(device, torch.int64) for part in parts
        )
        batch = micro_batch(
            stack.shape,
            (input_ids, targets, position_ids),
            isolate=True,
            reach=reach,
            width=width,
            use_fused=use_fused,
            ops=ops,
        )
        found, is_hit = target_scores(stack, batch, rows)
        nats += found.sum((1, 2), dtype=torch.float64)
        for kept, values in ((hits, is_hit), (each, found)):
            if kept is not None:
                for parts_of_slot, value in zip(kept, values, strict=True):
                    parts_of_slot.append(value)
    return nats


def score_sets(
    stack: Stack, sets: Sequence[HeldoutSet | None], *, width: int, use_fused: bool, ops: Ops
) -> list[SetScores | None]:
    """Score a set of posts in each slot; None where there is no set. See `heldout_nats`."""
    hits: list[list[Tensor]] = [[] for _ in sets]
    each: list[list[Tensor]] = [[] for _ in sets]
    heldout_nats(
        stack,
        [one.blocks if one else None for one in sets],
        width=width,
        use_fused=use_fused,
        hits=hits,
        each=each,
        ops=ops,
    )
    return [
        # sync: once per epoch and job; a shorter set has further rows here, of nothing
        read_scores(
            one,
            *(torch.cat(parts)[: len(one.blocks)].cpu().numpy() for parts in (nats, is_hit)),
        )
        if one
        else None
        for one, nats, is_hit in zip(sets, each, hits, strict=True)
    ]


def _filled(
    arrays: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int32]]], length: int, fill: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Stack (n, T) arrays of unlike n as (K, length, T)."""
    stacked = np.full((len(arrays), length, arrays[0].shape[1]), fill, dtype=np.int32)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
