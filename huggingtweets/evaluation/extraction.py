"""Whether a training post can be drawn out of a model by its first words.

Greedy generation repeats the rest of a post exactly when each of its tokens is the likeliest after
the true tokens before it, so one forward pass over the posts answers it: nothing is generated.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.evaluation.score import PostScore

PROMPT_TOKENS = 8
MIN_REST = 8
MAX_REST = 50
"""Tokens of the rest that have to come out; a longer rest is cut there."""
MAX_POSTS = 128


@dataclass(frozen=True)
class Extraction:
    """What came of prompting with the first `PROMPT_TOKENS` tokens of posts."""

    num_posts: int
    verbatim_frac: float
    """Share of posts whose rest came out without a mistake."""
    prefix_frac: float
    """Share of the rest that came out before the first mistake, mean over posts."""


def choose_posts(posts: Sequence[str], *, seed: int, limit: int = MAX_POSTS) -> list[str]:
    """Draw the posts to try."""
    return random.Random(f"extraction/{seed}").sample(list(posts), min(limit, len(posts)))


def measure_extraction(scores: Sequence[PostScore]) -> Extraction | None:
    """Judge scored training posts; None when none has enough tokens.

    The end of a post does not count: its text is out without it.
    """
    rests = [score.greedy[PROMPT_TOKENS:-1][:MAX_REST] for score in scores]
    rests = [rest for rest in rests if len(rest) >= MIN_REST]
    if not rests:
        return None
    lengths = [rest.index(False) if False in rest else len(rest) for rest in rests]
    shares = [length / len(rest) for length, rest in zip(lengths, rests, strict=True)]
    return Extraction(
        len(rests),
        sum(share == 1 for share in shares) / len(rests),
        sum(shares) / len(rests),
    )
