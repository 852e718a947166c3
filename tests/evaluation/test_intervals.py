import numpy as np
import pytest

from huggingtweets.evaluation.intervals import ratio_interval


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        tokens = rng.integers(5, 60, 200)
        nats = tokens * rng.normal(3.0, 0.5, 200)
        interval = ratio_interval(nats.tolist(), tokens.tolist(), seed=trial)
        covered += interval.low <= 3.0 <= interval.high
    assert 50 <= covered <= 60


def test_interval_of_one_post_is_a_point() -> None:
    interval = ratio_interval([6.0], [2], seed=0)
    assert (interval.low, interval.high) == (pytest.approx(3), pytest.approx(3))


def test_interval_depends_on_the_seed_alone() -> None:
    nats, tokens = [1.0, 5.0, 9.0], [2, 3, 4]
    assert ratio_interval(nats, tokens, seed=1) == ratio_interval(nats, tokens, seed=1)
