"""Whether training posts can be extracted from a finished model by their first words."""

import random
from collections.abc import Sequence

from huggingtweets.training.extraction import as_extraction, count_extracted
from huggingtweets.training.records import Extraction, PostScore

MAX_POSTS = 128


def choose_posts(posts: Sequence[str], *, seed: int, limit: int = MAX_POSTS) -> list[str]:
    """Draw the posts to try."""
    return random.Random(f"extraction/{seed}").sample(list(posts), min(limit, len(posts)))


def measure_extraction(scores: Sequence[PostScore]) -> Extraction | None:
    """Judge scored training posts; None when none has enough tokens."""
    return as_extraction(count_extracted([score.greedy for score in scores]))
