"""What ran whole is whole, whatever the pruner would have said; a bad trial is told and closed."""

from pathlib import Path

import pytest

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.sweep.space import Choices
from huggingtweets.sweep.spec import Objective, Pruner, PrunerKind, StorageKind, SweepSpec
from huggingtweets.sweep.study import Trials, open_study
from huggingtweets.sweep.summary import SweepSummary, summarise_sweep
from huggingtweets.sweep.trial_progress import Eval, TrialProgress, TrialProgresses

SLUGS = ("ann", "bob")
RECIPE = RecipeConfig(epochs=8, max_steps=12)


class Sweeping:
    """Trials with a median pruner, trained by hand."""

    def __init__(self, root: Path) -> None:
        spec = SweepSpec(
            "s",
            {"recipe.lr": Choices((1e-4, 2e-4, 3e-4, 4e-4))},
            pruner=Pruner(PrunerKind.median),
            storage=StorageKind.journal,
            trials=4,
        )
        self.study = open_study(root, spec, {}, max_epochs=8)
        self.trials = Trials(root, spec, self.study)
        self.progresses = TrialProgresses(self.study, Objective(), lambda number: None)

    def begin(self) -> TrialProgress:
        opened = self.trials.next()
        assert opened
        return self.progresses.begin(opened, RECIPE, SLUGS)

    def train(
        self, progress: TrialProgress, slug: str, *values: float, is_cut: bool = False
    ) -> bool:
        """Report figures one by one, as an engine would; return whether the verdict is an end."""
        evals = [Eval(4 * at, 1.0 * at, value, 0.0) for at, value in enumerate(values, start=1)]
        is_over = False
        for count in range(1, len(evals) + 1):
            is_over = self.progresses.evaluated(progress, slug, evals[:count])
        self.progresses.ended(
            progress, slug, steps=4 * len(evals), seconds=1.0, tokens=1, history=(), is_cut=is_cut
        )
        return is_over

    @property
    def summary(self) -> SweepSummary:
        return summarise_sweep(self.study, ["heldout"])


@pytest.fixture
def sweeping(tmp_path: Path) -> Sweeping:
    found = Sweeping(tmp_path)
    first = found.begin()
    for slug in SLUGS:
        found.train(first, slug, 3.0, 2.5, 2.0)
    return found


def test_a_trial_that_ran_whole_is_never_pruned(sweeping: Sweeping) -> None:
    worse = sweeping.begin()
    sweeping.train(worse, "ann", 4.0, 3.9, 1.0)  # ended by max_steps, far below `epochs`
    assert sweeping.train(worse, "bob", 4.0, 3.9, 1.0)
    rows = sweeping.summary.rows
    assert [row.state for row in rows] == ["complete", "complete"]
    assert rows[1].reason == ""
    assert sweeping.summary.best == (1,)


def test_a_trial_of_which_one_user_was_cut_is_pruned(sweeping: Sweeping) -> None:
    worse = sweeping.begin()
    sweeping.train(worse, "ann", 4.0, 3.9, 3.8)
    assert sweeping.train(worse, "bob", 4.0, is_cut=True)
    assert sweeping.summary.rows[1].state == "pruned"
    assert sweeping.summary.rows[1].reason == "pruned after epoch 1"
    assert sweeping.summary.best == (0,)


def test_a_loss_that_is_no_number_is_a_bad_trial(sweeping: Sweeping) -> None:
    worse = sweeping.begin()
    assert sweeping.train(worse, "ann", 4.0, float("nan"))
    sweeping.train(worse, "bob", 2.0, 1.0)
    row = sweeping.summary.rows[1]
    assert (row.state, row.reason) == ("pruned", "the held-out loss is not finite")


def test_a_gap_that_is_no_number_is_a_bad_trial(sweeping: Sweeping) -> None:
    worse = sweeping.begin()
    gap = [Eval(4, 1.0, 4.0, 0.0), Eval(8, 2.0, 3.0, float("inf"))]
    assert sweeping.progresses.evaluated(worse, "ann", gap)
    sweeping.progresses.ended(worse, "ann", is_cut=True)
    sweeping.train(worse, "bob", 2.0, 1.0)
    assert sweeping.summary.rows[1].state == "pruned"


def test_a_trial_that_cannot_begin_fails_alone(sweeping: Sweeping) -> None:
    opened = sweeping.trials.next()
    assert opened
    sweeping.progresses.refused(opened, RECIPE, "recipe.block_size: got 512; expected 64")
    row = sweeping.summary.rows[1]
    assert (row.state, row.reason) == ("fail", "recipe.block_size: got 512; expected 64")
    following = sweeping.trials.next()
    assert following
    assert following.number == 2
