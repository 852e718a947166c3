"""What one model makes of posts, each alone: likelihood, and whether it has memorised them.

Posts are packed into blocks and never all logits are held: by the pass of `models/` where the
family has one, else by transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
import transformers

from huggingtweets.config.schema import Precision
from huggingtweets.data.prepare import HeldoutSet, pack_set
from huggingtweets.data.spans import Indices
from huggingtweets.data.tokens import Codec
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.kernels.rows import choose_row_ops
from huggingtweets.models.families import stack_of
from huggingtweets.models.forward import begin, micro_batch
from huggingtweets.models.run import hidden_states, score_rows
from huggingtweets.models.stack import Stack
from huggingtweets.ops.reference import Ops
from huggingtweets.runtime.device import by_kind, is_cuda, lacks_memory, release_memory
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

logger = logging.getLogger(__name__)

FIRST_TRIED = 4
"""Targets of a post that are tried at first, then twice as many: nearly all posts miss in these."""
MIN_BLOCK = 128
"""Tokens: a shorter block holds too few posts to fill a pass."""

Posts = tuple[PostScore, ...]
"""What a model makes of each of some posts, in their order."""


class _Ways(TypedDict):
    use_fused: bool
    ops: Ops


def score_posts(
    model: transformers.PreTrainedModel, codec: Codec, posts: Sequence[str], *, max_positions: int
) -> Posts:
    """Score posts in evaluation mode, fp32; one that the tokenizer leaves nothing of is left out.

    Args:
        model: any causal LM, on any device; is on the CPU afterwards if memory was lacking there.
        codec: of the model.
        posts: cleaned texts.
        max_positions: of the model; a longer post is cut into pieces, each scored alone.
    """
    longest = max(map(len, codec.encode(posts)), default=0) + 1
    packed = pack_set(posts, codec, min(max_positions, max(MIN_BLOCK, longest)))
    if packed is None:
        return ()
    try:
        return score_model(model, packed, Precision.fp32, eos_id=codec.eos_id)
    except RuntimeError as err:
        if not lacks_memory(err):
            raise
        logger.warning("posts are scored on the CPU: %s has no memory left", model.device)
    release_memory()  # only now, when the error and the frames in it are gone
    return score_model(model.to("cpu"), packed, Precision.fp32, eos_id=codec.eos_id)


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

    A post is read a few tokens further at a time, until its first miss. Nearly all miss at once, so
    neither the layers nor the output embedding see most of their tokens.
    """
    texts = list(_tried(posts))
    sizes = np.array([len(text) - PROMPT_TOKENS for text in texts], dtype=np.int64)
    lengths = np.zeros_like(sizes)
    alive, start, stop = np.arange(len(texts)), 0, FIRST_TRIED
    while len(alive):
        parts = [texts[index][: PROMPT_TOKENS + stop] for index in alive]
        hits = np.concatenate(list(_hits(stack, posts, parts, PROMPT_TOKENS + start)))
        found = np.where(hits.all(1), hits.shape[1], hits.argmin(1))
        lengths[alive] = np.minimum(start + found, sizes[alive])
        alive = alive[hits.all(1) & (sizes[alive] > stop)]
        start, stop = stop, stop + 2 * (stop - start)
    return len(texts), int((lengths == sizes).sum()), float((lengths / sizes).sum())


def _tried(posts: HeldoutSet) -> Iterator[Indices]:
    """Yield where the prompt and the rest of each post lie; a short rest does not count."""
    pieces = posts.pieces
    owned: dict[int, list[Indices]] = {}
    for start, size, owner in zip(pieces.starts, pieces.sizes, pieces.posts.tolist(), strict=True):
        owned.setdefault(owner, []).append(np.arange(start, start + size))
    for parts in owned.values():
        # Without the last target, the end of the post: its text is out without it.
        text = np.concatenate(parts)[:-1][: PROMPT_TOKENS + MAX_REST]
        if len(text) >= PROMPT_TOKENS + MIN_REST:
            yield text


def _hits(
    stack: Stack, posts: HeldoutSet, parts: Sequence[Indices], start: int
) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield whether each target from `start` on is the likeliest, (N, T - start).

    Args:
        stack: of one model.
        posts: in blocks.
        parts: where the tokens of each text lie in these; what follows a shorter one counts as hit.
        start: the first target that is asked for.
    """
    device, ways = stack.rows.device, _ways(stack, posts)
    rows = choose_row_ops(device, num_positions=0, head_width=0)
    blocks = (posts.blocks.input_ids, posts.blocks.targets, posts.blocks.position_ids)
    sizes = np.array([len(part) for part in parts])[:, None]
    steps = np.arange(sizes.max())[None]
    num = max(1, by_kind(MAX_TOKENS, device) // steps.size)
    for first in range(0, len(parts), num):
        size = sizes[first : first + num]
        # A shorter text is filled up with its own tokens, so that every place is one of a block.
        places = np.array([np.resize(part, steps.size) for part in parts[first : first + num]])
        tokens = np.stack([part.reshape(-1)[places] for part in blocks])
        behind = steps >= size  # padding, a document of its own as in any block
        tokens[2] = np.where(behind, steps - size, tokens[2])
        reach = int(tokens[2].max()) + 1
        ids, targets, positions = torch.from_numpy(tokens).unsqueeze(1).to(device, torch.int64)
        batch = micro_batch(
            stack.shape, (ids, targets, positions), isolate=True, reach=reach, **ways
        )
        hidden = hidden_states(begin(stack, batch)).view(1, *places.shape, -1)
        _, hits = score_rows(
            stack, hidden[:, :, start:].flatten(1, 2), targets[:, :, start:].flatten(1), rows
        )
        yield hits[0].view(len(places), -1).cpu().numpy() | behind[:, start:]


def _ways(stack: Stack, posts: HeldoutSet) -> _Ways:
    """Return how the passes of `models/` compute on the device of a stack."""
    device = stack.rows.device
    return {
        "use_fused": is_cuda(device),
        "ops": choose_ops(device, stack.shape.width, posts.blocks.input_ids.shape[1]),
    }
