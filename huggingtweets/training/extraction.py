"""Whether posts can be extracted from a model by their first words; counted where posts are scored.

Greedy generation repeats the rest of a post exactly when each of its tokens is the likeliest after
the true tokens before it, so one forward pass over the posts answers it: nothing is generated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.training.records import Extraction, HeldoutLoss, PostScore


@dataclass(frozen=True)
class SetScores:
    """What a model makes of a set of posts."""

    loss: HeldoutLoss
    posts: tuple[PostScore, ...]
    extraction: Extraction | None
    """Pieces of long posts each for itself."""


PROMPT_TOKENS = 8
MIN_REST = 8
MAX_REST = 50
"""Tokens of the rest that have to come out; a longer rest is cut there."""

Hits = npt.NDArray[np.bool_]
Counts = tuple[int, int, float]
"""Posts tried, those whose rest came out whole, and the sum of the shares that came out."""


def count_extracted(greedy: Sequence[Sequence[bool]]) -> Counts:
    """Judge posts by whether each of their targets was the likeliest; the last one is the end.

    The end of a post does not count: its text is out without it. Nor do posts with a short rest.
    """
    rests = [list(hits[PROMPT_TOKENS:-1][:MAX_REST]) for hits in greedy]
    rests = [rest for rest in rests if len(rest) >= MIN_REST]
    lengths = [rest.index(False) if False in rest else len(rest) for rest in rests]
    whole = sum(length == len(rest) for length, rest in zip(lengths, rests, strict=True))
    shares = (length / len(rest) for length, rest in zip(lengths, rests, strict=True))
    return len(rests), whole, sum(shares)


def read_scores(posts: HeldoutSet, nats: npt.NDArray[np.floating[Any]], hits: Hits) -> SetScores:
    """Sum up nats (0 where there is no target) and hits of every target, (N, T) each."""
    loss = HeldoutLoss(float(nats.sum(dtype=np.float64)), posts.blocks.num_targets, posts.num_bytes)
    # In the order of the blocks: so the sum of shares is the same to the last bit.
    spans = sorted(zip(posts.pieces.starts.tolist(), posts.pieces.sizes.tolist(), strict=True))
    flat = hits.reshape(-1)
    counts = count_extracted([flat[start : start + size].tolist() for start, size in spans])
    return SetScores(loss, scores_of_posts(posts, nats, hits), as_extraction(counts))


def scores_of_posts(
    posts: HeldoutSet, nats: npt.NDArray[np.floating[Any]], hits: Hits
) -> tuple[PostScore, ...]:
    """Gather what was found of each target, (N, T) each, into what was found of each post.

    A post without ids is left out.
    """
    starts, sizes, owners = posts.pieces.starts, posts.pieces.sizes, posts.pieces.posts
    flat, flat_hits = nats.reshape(-1), hits.reshape(-1)
    found: dict[int, list[slice]] = {}
    for start, size, owner in zip(starts.tolist(), sizes.tolist(), owners.tolist(), strict=True):
        found.setdefault(owner, []).append(slice(start, start + size))
    return tuple(
        PostScore(
            float(sum(flat[part].sum(dtype=np.float64) for part in parts)),
            sum(part.stop - part.start for part in parts),
            posts.post_bytes[owner],
            tuple(hit for part in parts for hit in flat_hits[part].tolist()),
        )
        for owner, parts in found.items()
    )


def as_extraction(counts: Counts) -> Extraction | None:
    """Turn counts into shares; None where no post was tried."""
    num, whole, shares = counts
    return Extraction(int(num), whole / num, shares / num) if num else None
