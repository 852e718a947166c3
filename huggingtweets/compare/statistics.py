"""How sure a difference is: posts, and people, drawn again with replacement, in pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from huggingtweets.evaluation.intervals import NUM_RESAMPLES, Interval


@dataclass(frozen=True)
class PairedScores:
    """The same posts scored by several models."""

    nats: tuple[tuple[float, ...], ...]
    """Model -> post -> negative log-likelihood."""
    num_bytes: tuple[int, ...]
    """Of each post."""

    def bits(self, index: int) -> float:
        """Return the bits per byte of a model."""
        return math.fsum(self.nats[index]) / math.log(2) / sum(self.num_bytes)

    def difference(self, index: int, *, seed: int) -> Interval:
        """Return the interval of a model's bits per byte above those of the first.

        Both are scored on the same drawn posts, so that what makes a post hard for both cancels.
        """
        above = (np.array(self.nats[index]) - np.array(self.nats[0])) / math.log(2)
        sizes = np.array(self.num_bytes, dtype=float)
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, len(sizes), (NUM_RESAMPLES, len(sizes)))
        return _middle(above[drawn].sum(1) / sizes[drawn].sum(1))


def mean_difference(differences: Sequence[float], *, seed: int) -> Interval | None:
    """Return the interval of a mean over people, one difference each; None for fewer than two.

    People are the units that are drawn: their posts say little about other people.
    """
    if len(differences) < 2:
        return None
    values = np.array(differences)
    rng = np.random.default_rng(seed)
    return _middle(values[rng.integers(0, len(values), (NUM_RESAMPLES, len(values)))].mean(1))


def _middle(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
