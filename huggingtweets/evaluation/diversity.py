"""How varied posts are, and how like in length to a person's: samples beside human posts."""

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from huggingtweets.data.duplicates import normalise
from huggingtweets.data.words import split_words

MAX_BLEU_POSTS = 500
"""Self-BLEU holds every run of words of all posts in memory."""


@dataclass(frozen=True)
class Diversity:
    """How varied some posts are. All figures depend on how many there are."""

    num_posts: int
    distinct: tuple[float, float, float]
    """Different words, pairs and triples of words, as shares of all."""
    self_bleu: float
    """Mean BLEU of each post against all others, 0 to 1: high where posts are alike."""
    duplicate_frac: float
    """Share of posts that say the same as an earlier one."""


@dataclass(frozen=True)
class DiversityComparison:
    """Samples beside as many posts of the people themselves."""

    samples: Diversity
    humans: Diversity
    length_distance: float
    """Wasserstein distance of the lengths of samples and of human posts, in characters."""
    human_length_distance: float | None
    """The same between two draws of human posts: what chance alone gives; None: there are too few
    posts for a second one."""


def compare_diversity(
    samples: Sequence[str], continuations: Sequence[str], posts: Sequence[str], *, seed: int
) -> DiversityComparison:
    """Compare samples with posts drawn from the people's own.

    Args:
        samples: whole; their lengths count.
        continuations: the samples without the prompts, which they share; their words count.
        posts: of the people, at least one.
        seed: of the draw.
    """
    shuffled = random.Random(f"diversity/{seed}").sample(list(posts), len(posts))
    size = min(len(samples), len(posts))
    humans, others = shuffled[:size], shuffled[size : 2 * size]
    return DiversityComparison(
        measure_diversity(continuations),
        measure_diversity(humans),
        wasserstein(list(map(len, samples)), list(map(len, posts))),
        wasserstein(list(map(len, humans)), list(map(len, others))) if others else None,
    )


def measure_diversity(texts: Sequence[str]) -> Diversity:
    """Measure how varied texts are."""
    words = [split_words(text).words for text in texts]
    return Diversity(
        num_posts=len(texts),
        distinct=(distinct(words, 1), distinct(words, 2), distinct(words, 3)),
        self_bleu=self_bleu(words[:MAX_BLEU_POSTS]),
        duplicate_frac=1 - len({normalise(text) for text in texts}) / max(1, len(texts)),
    )


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return the share of runs of n words that are different."""
    runs = [run for words in texts for run in _runs(words, n)]
    return len(set(runs)) / max(1, len(runs))


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Return the mean BLEU-4 of each text, all others being its references.

    Counts of runs of 2 to 4 words are raised by one, above and below, so that a short text without
    any does not count for nothing. Texts without words are left out.
    """
    texts = [words for words in texts if words]
    if len(texts) < 2:
        return 0.0
    precisions = [_precisions(texts, n) for n in (1, 2, 3, 4)]
    lengths = sorted(len(words) for words in texts)
    scores = []
    for words, *parts in zip(texts, *precisions, strict=True):
        logs = [math.log(part) if part else -math.inf for part in parts]
        # BLEU's brevity penalty, as a logarithm: a text shorter than the others loses.
        penalty = min(0.0, 1 - _closest_other(lengths, len(words)) / len(words))
        scores.append(math.exp(sum(logs) / 4 + penalty))
    return sum(scores) / len(scores)


def _runs(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)


def _precisions(texts: Sequence[Sequence[str]], n: int) -> list[float]:
    """Return each text's clipped n-gram precision against all other texts."""
    counts = [Counter(_runs(words, n)) for words in texts]
    # The most that any one text has of an n-gram, whose text that is, and the most of the others.
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for index, counter in enumerate(counts):
        for ngram, count in counter.items():
            first, owner, second = most.get(ngram, (0, -1, 0))
            if count > first:
                most[ngram] = (count, index, first)
            elif count > second:
                most[ngram] = (first, owner, count)
    smooth = int(n > 1)
    precisions = []
    for index, counter in enumerate(counts):
        clipped = 0
        for ngram, count in counter.items():
            first, owner, second = most[ngram]
            clipped += min(count, second if owner == index else first)
        precisions.append((clipped + smooth) / max(1, counter.total() + smooth))
    return precisions


def _closest_other(lengths: Sequence[int], length: int) -> int:
    """Return the length nearest to one of `lengths`, that one itself left out; ties: the shorter.

    Args:
        lengths: ascending.
        length: one of them.
    """
    index = bisect_left(lengths, length)
    around = [lengths[i] for i in (index - 1, index + 1) if 0 <= i < len(lengths)]
    return min(around, key=lambda other: (abs(other - length), other))


def wasserstein(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the area between two distribution functions, in the unit of the values."""
    if not left or not right:
        return 0.0
    # In one dimension: between two neighbouring values both functions are level.
    a, b = np.sort(np.asarray(left, float)), np.sort(np.asarray(right, float))
    points = np.sort(np.concatenate([a, b]))
    below_a = np.searchsorted(a, points[:-1], side="right") / len(a)
    below_b = np.searchsorted(b, points[:-1], side="right") / len(b)
    return float(np.sum(np.abs(below_a - below_b) * np.diff(points)))
