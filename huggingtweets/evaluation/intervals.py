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


def ratio_intervals(
    numerators: Sequence[float], denominators: Sequence[Sequence[float]], *, seed: int
) -> list[Interval]:
    """Return the interval of sum(numerators) / sum(of each denominators), one of each per post.

    Posts are the units that are drawn: the tokens of one post are not independent evidence.
    """
    values, num = np.array([numerators, *denominators], float), len(numerators)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, num, num) for _ in range(NUM_RESAMPLES))
    sums = np.array([values[:, drawn].sum(1) for drawn in draws])
    low, high = np.quantile(sums[:, :1] / sums[:, 1:], [0.025, 0.975], axis=0)
    return [Interval(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True)]
