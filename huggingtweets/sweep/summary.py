"""How a sweep stands, read from its study: for status, the report and the best configuration."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import fsum
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from huggingtweets.sweep.space import Scalar
from huggingtweets.sweep.study import DEFAULT, counted
from huggingtweets.sweep.trial_progress import OUTCOME

MIN_TRIALS = 8
"""Whole trials below which nothing is said about importances."""


@dataclass(frozen=True)
class UserFigures:
    """One user in one trial."""

    heldout: float | None
    """Bits per byte; None: the trial ended before its first epoch did."""
    memorisation: float | None
    steps: int
    planned_steps: int
    seconds: float
    curve: tuple[tuple[float, float], ...]
    """Epochs and held-out bits per byte."""
    tokens: int = 0
    """Trained."""


@dataclass(frozen=True)
class TrialRow:
    """One trial."""

    number: int
    state: str
    """complete, pruned, fail or running."""
    params: Mapping[str, Scalar]
    values: tuple[float, ...]
    """Empty unless complete."""
    users: Mapping[str, UserFigures]
    reason: str
    started: datetime | None
    ended: datetime | None
    is_default: bool = False
    """The searched keys as they stand without a search."""

    @property
    def steps(self) -> int:
        """Optimizer steps taken, all users together."""
        return sum(user.steps for user in self.users.values())

    @property
    def planned_steps(self) -> int:
        """Those of the whole training."""
        return sum(user.planned_steps for user in self.users.values())

    @property
    def seconds(self) -> float:
        """In training steps, all users together; of side-by-side trials each counts the whole."""
        return sum(user.seconds for user in self.users.values())


@dataclass(frozen=True)
class SweepSummary:
    """How a sweep stands."""

    rows: tuple[TrialRow, ...]
    names: tuple[str, ...]
    """Of the values."""
    best: tuple[int, ...]
    """Numbers of the best trials, first the one to take; of several objectives a whole front."""
    importances: Mapping[str, float]
    """Share of each key in how the trials differ, by the first value; empty for few trials."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Trials by state."""
        return Counter(row.state for row in self.rows)

    @property
    def saved_frac(self) -> float:
        """Share of the planned steps that pruning spared."""
        planned = sum(row.planned_steps for row in self.rows)
        return 1 - sum(row.steps for row in self.rows) / planned if planned else 0.0

    @property
    def default(self) -> TrialRow | None:
        """The trial of the settings as they stand without a search; None: there is none."""
        return next((row for row in self.rows if row.is_default), None)

    def row(self, number: int) -> TrialRow:
        """Return a trial by its number."""
        return next(row for row in self.rows if row.number == number)


def summarise_sweep(study: optuna.Study, names: Sequence[str]) -> SweepSummary:
    """Read all trials of a study."""
    trials = counted(study)
    rows = tuple(_row(trial) for trial in trials)
    return SweepSummary(rows, tuple(names), _best(rows), _importances(study, trials))


def _row(trial: FrozenTrial) -> TrialRow:
    outcome: Mapping[str, Any] = trial.user_attrs.get(OUTCOME) or {"reason": "", "users": {}}
    users = {slug: _figures(user) for slug, user in outcome["users"].items()}
    is_complete = trial.state is TrialState.COMPLETE
    default = trial.user_attrs.get(DEFAULT)
    return TrialRow(
        number=trial.number,
        state=trial.state.name.lower(),
        params=dict(default or trial.params),
        values=tuple(trial.values or ()) if is_complete else (),
        users=users,
        reason=outcome["reason"],
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        is_default=default is not None,
    )


def _figures(user: Mapping[str, Any]) -> UserFigures:
    curve = tuple((one["epoch"], one["heldout"]) for one in user["evals"])
    plain = {key: value for key, value in user.items() if key != "evals"}
    return UserFigures(curve=curve, **plain)


def _best(rows: Sequence[TrialRow]) -> tuple[int, ...]:
    """Return the trials that no other beats in all values, the most balanced first."""
    done = [row for row in rows if row.values]
    front = [row for row in done if not any(_beats(other.values, row.values) for other in done)]
    if not front:
        return ()
    lows = [min(values) for values in zip(*(row.values for row in front), strict=True)]
    highs = [max(values) for values in zip(*(row.values for row in front), strict=True)]

    def distance(row: TrialRow) -> float:
        """From the best of each value, in shares of what the front spans."""
        spans = zip(row.values, lows, highs, strict=True)
        return fsum(((value - low) / ((high - low) or 1.0)) ** 2 for value, low, high in spans)

    ordered = sorted(front, key=lambda row: (distance(row), row.number))
    return tuple(row.number for row in ordered)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _importances(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Mapping[str, float]:
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    values = [trial.values[0] for trial in done]
    if len(done) < MIN_TRIALS or min(values) == max(values):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that low is good, which we mean
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(),
            # By name: a default from beyond the space has none of them in Optuna's eyes.
            params=sorted({key for trial in done for key in trial.params}),
            target=lambda trial: trial.values[0],
        )
