"""Early stop, as a function of the evaluations so far."""

import math
from collections.abc import Sequence

import pytest

from huggingtweets.config.schema import Keep, RecipeConfig, Stop
from huggingtweets.training.ending import ending_after, is_to_keep
from huggingtweets.training.records import Ending, HeldoutLoss, LoggedEval

NUM_BYTES = 1000


def scored(bits_per_byte: float) -> HeldoutLoss:
    return HeldoutLoss(bits_per_byte * math.log(2) * NUM_BYTES, 250, NUM_BYTES)


def evaluations(
    heldout: Sequence[float], trained: Sequence[float] | None = None
) -> list[LoggedEval]:
    """One a step, the base's first; bits per byte."""
    return [
        LoggedEval(step, float(step), scored(bits), scored(trained[step]) if trained else None)
        for step, bits in enumerate(heldout)
    ]


@pytest.mark.parametrize(
    ("heldout", "patience", "expected"),
    [
        ([2.0], 1, None),
        ([2.0, 2.5], 1, None),  # worse than the base, but nothing to compare with yet
        ([2.0, 1.9, 1.8], 1, None),
        ([2.0, 1.9, 1.9], 1, Ending.heldout),
        ([2.0, 1.9, 1.95], 1, Ending.heldout),
        ([2.0, 1.9, 1.95], 2, None),
        ([2.0, 1.9, 1.95, 1.92], 2, Ending.heldout),
        ([2.0, 1.9, 1.95, 1.89], 2, None),
    ],
)
def test_training_ends_when_the_best_is_as_old_as_the_patience(
    heldout: list[float], patience: int, expected: Ending | None
) -> None:
    recipe = RecipeConfig(stop=Stop.heldout, patience=patience)
    assert ending_after(recipe, evaluations(heldout)) is expected
    assert ending_after(RecipeConfig(patience=patience), evaluations(heldout)) is None


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ([2.2, 2.1, 1.81], None),  # 0.39 won here, 0.1 there
        ([2.2, 2.1, 1.79], Ending.memorisation),
        (None, None),
    ],
    ids=["below", "above", "unknown"],
)
def test_training_ends_when_too_much_is_learnt_by_heart(
    trained: list[float] | None, expected: Ending | None
) -> None:
    recipe = RecipeConfig(stop=Stop.memorisation, max_gap=0.3)
    found = evaluations([2.0, 1.95, 1.9], trained)
    assert ending_after(recipe, found) is expected
    assert ending_after(RecipeConfig(stop=Stop.heldout, max_gap=0.3), found) is None


def test_stop_for_memorisation_also_stops_for_the_held_out_loss() -> None:
    recipe = RecipeConfig(stop=Stop.memorisation)
    found = evaluations([2.0, 1.9, 1.95], [2.0, 1.9, 1.9])
    assert ending_after(recipe, found) is Ending.heldout


def test_what_training_was_ended_for_is_not_kept() -> None:
    recipe = RecipeConfig(stop=Stop.memorisation, keep=Keep.best, max_gap=0.3)
    found = evaluations([2.0, 1.95, 1.9], [2.0, 1.9, 1.5])
    assert is_to_keep(recipe, found[:2])
    assert not is_to_keep(recipe, found)
    assert is_to_keep(RecipeConfig(keep=Keep.best), found)
    assert not is_to_keep(RecipeConfig(keep=Keep.last), found)
    assert not is_to_keep(recipe, found[:1])
