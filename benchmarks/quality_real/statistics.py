"""How sure a difference is: accounts drawn again, and of each account its held-out posts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from quality_real.plan import Row

NUM_DRAWS = 2000
Posts = Mapping[str, tuple[float, int]]
"""Of one account: a post's digest to its bits and bytes."""


@dataclass(frozen=True)
class Difference:
    """How much better or worse a setting is than another: bits per byte, mean over accounts."""

    mean: float
    low: float
    high: float
    """The middle 95 %."""
    percent: float
    """The mean, of the other's bits per byte."""
    wins: int
    """Accounts with fewer bits."""
    num: int
    """Accounts."""


def posts_of(rows: Sequence[Row]) -> dict[str, Posts]:
    """Return by account what its held-out posts cost, mean over the seeds."""
    by_account: dict[str, list[Row]] = {}
    for row in rows:
        by_account.setdefault(row["run"]["account"], []).append(row)
    found: dict[str, Posts] = {}
    for account, own in by_account.items():
        nats = [{post[0]: post[1] for post in row["posts"]} for row in own]
        size = {post[0]: post[3] for post in own[0]["posts"]}
        shared = set(size).intersection(*nats)
        found[account] = {
            key: (fmean(one[key] for one in nats) / math.log(2), size[key])
            for key in sorted(shared)
        }
    return found


def base_posts_of(rows: Sequence[Row]) -> dict[str, Posts]:
    """Return the same of the base that the runs began from."""
    return {
        row["run"]["account"]: {post[0]: (post[2] / math.log(2), post[3]) for post in row["posts"]}
        for row in rows
    }


def difference(
    other: Mapping[str, Posts], first: Mapping[str, Posts], *, seed: int = 0
) -> Difference | None:
    """Return how much more `other` costs than `first`, over the posts that both have scored.

    None where they share no account. Both are scored on the same drawn posts.
    """
    pairs = []
    for account in sorted(set(other) & set(first)):
        keys = sorted(set(other[account]) & set(first[account]))
        if keys:
            rows = [(other[account][key][0], first[account][key][0], first[account][key][1])
                    for key in keys]  # fmt: skip
            pairs.append(np.array(rows, float))
    if not pairs:
        return None
    above = [_above(pair) for pair in pairs]
    rng = np.random.default_rng(seed)
    draws = np.array([
        fmean(
            _above(pair[rng.integers(0, len(pair), len(pair))])
            for pair in (pairs[index] for index in rng.integers(0, len(pairs), len(pairs)))
        )
        for _ in range(NUM_DRAWS)
    ])  # fmt: skip
    low, high = np.quantile(draws, [0.025, 0.975])
    mean = fmean(above)
    whole = fmean(float(pair[:, 1].sum() / pair[:, 2].sum()) for pair in pairs)
    wins = sum(value < 0 for value in above)
    return Difference(mean, float(low), float(high), 100 * mean / whole, wins, len(pairs))


def _above(pair: npt.NDArray[np.float64]) -> float:
    return float((pair[:, 0] - pair[:, 1]).sum() / pair[:, 2].sum())
