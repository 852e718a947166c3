"""How sure a difference is: posts, and people, drawn again with replacement, in pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.evaluation.intervals import Interval, ratio_intervals


@dataclass(frozen=True)
class PairedScores:
    """The same posts scored by several models."""

    nats: tuple[tuple[float, ...], ...]
    """Model -> post -> negative log-likelihood."""
    num_bytes: tuple[int, ...]
    """Of each post."""

    def difference(self, index: int, *, seed: int) -> Interval:
        """Return the interval of a model's bits per byte above those of the first.

        Both are scored on the same drawn posts, so that what makes a post hard for both cancels.
        """
        pairs = zip(self.nats[index], self.nats[0], strict=True)
        above = [(own - first) / math.log(2) for own, first in pairs]
        return ratio_intervals(above, [self.num_bytes], seed=seed)[0]


def mean_difference(differences: Sequence[float], *, seed: int) -> Interval | None:
    """Return the interval of a mean over people, one difference each; None for fewer than two.

    People are the units that are drawn: their posts say little about other people.
    """
    if len(differences) < 2:
        return None
    return ratio_intervals(differences, [[1.0] * len(differences)], seed=seed)[0]
