"""How sure a figure over posts is: bootstrap intervals, posts drawn with replacement."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """The middle 95 per cent."""

    low: float
    high: float


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int
) -> Interval:
    """Return the interval of sum(numerators) / sum(denominators), one of each per post.

    Posts are the units that are drawn: the tokens of one post are no independent evidence.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(NUM_RESAMPLES):
        drawn = rng.integers(0, len(above), len(above))
        ratios.append(above[drawn].sum() / below[drawn].sum())
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(float(low), float(high))
