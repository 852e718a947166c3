"""What one model makes of posts, each alone: likelihood, and whether it has memorised them.

Posts are packed into blocks and never all logits are held: by the pass of `models/` where the
family has one, else by transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
import transformers
from torch import Tensor

from huggingtweets.config.schema import Precision
from huggingtweets.data.prepare import HeldoutSet, pack_set
from huggingtweets.data.tokens import Codec
from huggingtweets.models.families import stack_of
from huggingtweets.models.forward import begin, micro_batch
from huggingtweets.models.run import hidden_states, score_rows
from huggingtweets.models.stack import Stack
from huggingtweets.ops.attention import WINDOW
from huggingtweets.ops.kernels import choose_ops
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.rows import choose_row_ops
from huggingtweets.runtime.device import by_kind, is_cuda
from huggingtweets.training.extraction import (
    MAX_REST,
    MIN_REST,
    PROMPT_TOKENS,
    Counts,
    count_extracted,
)
from huggingtweets.training.parallel.heldout import autocast, products_dtype, score_set
from huggingtweets.training.records import PostScore
from huggingtweets.training.stacked.heldout import MAX_TOKENS, score_sets

FIRST_TRIED = 4
"""Targets of a post that are tried at first, then twice as many: nearly all posts miss in these."""
MIN_BLOCK = 128

Posts = tuple[PostScore, ...]
"""What a model makes of each of some posts, in their order."""


class _Ways(TypedDict):
    width: int
    use_fused: bool
    ops: Ops


def score_posts(
    model: transformers.PreTrainedModel, codec: Codec, posts: Sequence[str], *, max_positions: int
) -> Posts:
    """Score posts in evaluation mode, fp32; one that the tokenizer leaves nothing of is left out.

    Args:
        model: any causal LM, on any device.
        codec: of the model.
        posts: cleaned texts.
        max_positions: of the model; a longer post is cut into pieces, each scored alone.
    """
    longest = max(map(len, codec.encode(posts)), default=0) + 1
    packed = pack_set(posts, codec, min(max_positions, max(MIN_BLOCK, longest)))
    return score_model(model, packed, Precision.fp32, eos_id=codec.eos_id) if packed else ()


def score_model(
    model: transformers.PreTrainedModel, posts: HeldoutSet, precision: Precision, *, eos_id: int
) -> Posts:
    """Score packed posts with a model of transformers, on its device."""
    if stack := stack_of(model, products_dtype(precision)):
        return score_stack(stack, posts)
    with autocast(model.device, precision):
        return score_set(model, posts, eos_id=eos_id)


def try_model(
    model: transformers.PreTrainedModel, posts: HeldoutSet, precision: Precision, *, eos_id: int
) -> Counts:
    """Do what `try_stack` does with a model of transformers, on its device."""
    if stack := stack_of(model, products_dtype(precision)):
        return try_stack(stack, posts)
    with autocast(model.device, precision):
        return count_extracted([one.greedy for one in score_set(model, posts, eos_id=eos_id)])


def score_stack(stack: Stack, posts: HeldoutSet) -> Posts:
    """Score packed posts with the only model of a stack."""
    [found] = score_sets(stack, [posts], **_ways(stack, posts))
    assert found is not None
    return found.posts


@torch.no_grad()
def try_stack(stack: Stack, posts: HeldoutSet) -> Counts:
    """Count the posts whose rest the only model of a stack knows, as `count_extracted` does.

    No logits are computed after a post's first miss. The output embedding is nearly all of a small
    model with a large vocabulary: 94 % of 2 layers of 128 with GPT-2's 50,257 words.
    """
    rests = list(_rests(posts))
    hidden = torch.cat(list(_hidden(stack, posts)), 1)
    targets = torch.from_numpy(posts.blocks.targets.reshape(1, -1)).to(hidden.device, torch.int64)
    rows = choose_row_ops(hidden.device, num_positions=0, head_width=0)
    lengths = np.zeros(len(rests), dtype=np.int64)
    alive, start, stop = list(range(len(rests))), 0, FIRST_TRIED
    while alive:
        parts = [rests[index][start:stop] for index in alive]
        chosen = torch.from_numpy(np.concatenate(parts)).to(hidden.device)
        _, hits = score_rows(stack, hidden[:, chosen], targets[:, chosen], rows)
        found = np.split(hits[0].cpu().numpy(), np.cumsum([len(part) for part in parts])[:-1])
        going_on = []
        for index, part in zip(alive, found, strict=True):
            lengths[index] += len(part) if part.all() else part.argmin()
            if part.all() and len(rests[index]) > stop:
                going_on.append(index)
        alive, start, stop = going_on, stop, stop + 2 * (stop - start)
    sizes = np.array([len(rest) for rest in rests], dtype=np.int64)
    return len(rests), int((lengths == sizes).sum()), float((lengths / sizes).sum())


def _rests(posts: HeldoutSet) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Yield where the targets of each post lie that have to come out; short posts are passed by."""
    assert posts.pieces is not None
    pieces = posts.pieces
    owned: dict[int, list[np.ndarray[tuple[int], np.dtype[np.int64]]]] = {}
    for start, size, owner in zip(pieces.starts, pieces.sizes, pieces.posts.tolist(), strict=True):
        owned.setdefault(owner, []).append(np.arange(start, start + size))
    for parts in owned.values():
        rest = np.concatenate(parts)[PROMPT_TOKENS:-1][:MAX_REST]
        if len(rest) >= MIN_REST:
            yield rest


def _hidden(stack: Stack, posts: HeldoutSet) -> Iterator[Tensor]:
    """Yield what the output embedding reads at each token, (1, R, C)."""
    blocks, device = posts.blocks, stack.rows.device
    ways = _ways(stack, posts)
    parts = [
        torch.from_numpy(part).unsqueeze(0)
        for part in (blocks.input_ids, blocks.targets, blocks.position_ids)
    ]
    num = max(1, by_kind(MAX_TOKENS, device, 16384) // blocks.input_ids.shape[1])
    for start in range(0, len(blocks), num):
        ids, targets, positions = (
            part[:, start : start + num].to(device, torch.int64) for part in parts
        )
        batch = micro_batch(
            stack.shape,
            (ids, targets, positions),
            isolate=True,
            reach=int(blocks.position_ids.max()) + 1,
            **ways,
        )
        yield hidden_states(begin(stack, batch))


def _ways(stack: Stack, posts: HeldoutSet) -> _Ways:
    """Return how the passes of `models/` compute on the device of a stack."""
    device = stack.rows.device
    return {
        "width": by_kind(WINDOW, device, 128),
        "use_fused": is_cuda(device),
        "ops": choose_ops(device, stack.shape.width, posts.blocks.input_ids.shape[1]),
    }
