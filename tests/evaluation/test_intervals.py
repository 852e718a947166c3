import numpy as np
import pytest

from huggingtweets.evaluation.intervals import ratio_intervals


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        tokens = rng.integers(5, 60, 200)
        nats = tokens * rng.normal(3.0, 0.5, 200)
        [interval] = ratio_intervals(nats.tolist(), [tokens.tolist()], seed=trial)
        covered += interval.low <= 3.0 <= interval.high
    assert 50 <= covered <= 60


def test_interval_of_one_post_is_a_point() -> None:
    first, second = ratio_intervals([6.0], [[2], [3]], seed=0)
    assert (first.low, first.high) == (pytest.approx(3), pytest.approx(3))
    assert (second.low, second.high) == (pytest.approx(2), pytest.approx(2))


def test_interval_depends_on_the_seed_alone() -> None:
    nats, tokens = [1.0, 5.0, 9.0], [2, 3, 4]
    once = ratio_intervals(nats, [tokens], seed=1)
    assert once == ratio_intervals(nats, [tokens, tokens], seed=1)[:1]
