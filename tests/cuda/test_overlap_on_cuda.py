"""AdamW of half the slots beside the products of the others: the same weights, and no race."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from races import Races
from software_cuda import Stream, installed, state
from stacked_reference import CPU, build_jobs
from test_fused_on_cuda import assert_close, train, with_recipe

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.training.stacked.step import OVERLAP_TOKENS, overlaps


def race(**changes: Any) -> tuple[dict[str, torch.Tensor], Races]:
    """Return what is trained with overlap, and the races: refills, unlike batches, odd slots."""
    with installed(event_lag=2), Races() as races:
        return train(with_recipe(dropout=0.1, max_steps=6), overlap=True, **changes), races


@pytest.mark.parametrize(
    ("slots", "graphs"),
    [
        (4, True),
        (4, False),
        pytest.param(5, True, marks=pytest.mark.slow),
        pytest.param(8, True, marks=pytest.mark.slow),
    ],
)
def test_weights_are_the_same_and_nothing_races(slots: int, graphs: bool) -> None:
    ours, races = race(slots=slots, use_graphs=graphs)
    assert races.found == []
    assert len(races.streams) == 3  # training, AdamW, and the way out
    assert_close(ours, train(with_recipe(dropout=0.1, max_steps=6), slots=slots))


@pytest.mark.parametrize("who", ["AdamW", "training"])
def test_a_wait_that_is_missing_is_found(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the test above can fail."""
    wait = Stream.wait_stream

    def forgets(self: Stream, other: Stream) -> None:
        is_training = self is state.stream
        if is_training != (who == "training"):
            wait(self, other)

    monkeypatch.setattr(Stream, "wait_stream", forgets)
    assert race(slots=4)[1].found


def test_without_overlap_nothing_races_either() -> None:
    with installed(event_lag=2), Races() as races:
        train(build_jobs()[:4], slots=2)
    assert races.found == []
    assert len(races.streams) == 2


def test_it_is_done_where_products_leave_bandwidth() -> None:
    long = RecipeConfig(block_size=1024, global_batch_size=OVERLAP_TOKENS // 1024)
    with installed():
        assert overlaps(long, 0, CPU)
        assert not overlaps(long, 8, CPU)
        assert not overlaps(replace(long, global_batch_size=1), 0, CPU)
    assert not overlaps(long, 0, CPU)
