"""How the trials under way go: what their users report, who is ended early, what Optuna is told."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, TypeVar

import optuna
from optuna.trial import TrialState

from huggingtweets.attempt import tell_progress
from huggingtweets.config.compose import dump_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.schema import Keep, RecipeConfig
from huggingtweets.errors import HuggingtweetsError, LaunchError
from huggingtweets.storage.files import write_json, write_text
from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.spec import Measure, Objective
from huggingtweets.sweep.study import OpenTrial, Trials

logger = logging.getLogger(__name__)

T = TypeVar("T")
OUTCOME = "outcome"
"""Name under which the study keeps what became of a trial."""


@dataclass(frozen=True)
class Eval:
    """The held-out figures of one user after an epoch."""

    step: int
    epoch: float
    heldout: float
    """Bits per byte."""
    memorisation: float
    """See `Measure.memorisation`."""


@dataclass
class UserProgress:
    """One user in one trial."""

    evals: list[Eval] = field(default_factory=list)
    """After each epoch; the base is not among them."""
    steps: int = 0
    seconds: float = 0.0
    """In training steps."""
    tokens: int = 0
    history: list[tuple[int, float, float]] = field(default_factory=list)
    """Step, training loss and learning rate of each logged line."""
    has_ended: bool = False
    is_cut: bool = False
    """Ended on account of the trial's verdict, before its last step."""

    def kept(self, keep: Keep) -> Eval:
        """Return the figures of the weights that became the model."""
        if keep is Keep.best:
            return min(self.evals, key=lambda one: one.heldout)
        return self.evals[-1]


@dataclass
class TrialProgress:
    """One trial under way."""

    opened: OpenTrial
    recipe: RecipeConfig
    users: dict[str, UserProgress]
    num_judged: int = 0
    """Epochs that the pruner has been asked about."""
    reason: str = ""
    """Why it ends before its time; empty: it does not."""
    is_failed: bool = False
    is_bad: bool = False
    """A figure of it is not a number."""


class TrialProgresses:
    """The trials under way in this process; one thread uses it."""

    def __init__(
        self, study: optuna.Study, objective: Objective, on_end: Callable[[int], None]
    ) -> None:
        """Start with none; `on_end` hears the number of each trial that has ended."""
        self._study = study
        self._on_end = on_end
        self._objective = objective
        self._has_pruner = not isinstance(study.pruner, optuna.pruners.NopPruner)
        self._progresses: dict[int, TrialProgress] = {}

    def begin_next(
        self, sweep: Sweep, trials: Trials, prepare: Callable[[Plan], T]
    ) -> tuple[TrialProgress, list[T]] | None:
        """Begin the next trial that can be trained; None: there are no more.

        Args:
            sweep: whose trials.
            trials: hands them out.
            prepare: called with the plan of each user before the trial begins; what it returns is
                returned.
        """
        while (opened := trials.next()) is not None:
            try:
                config = sweep.trial_config(opened.params, opened.folder)
                prepared = [prepare(make_plan(config, job)) for job in sweep.jobs]
                write_text(opened.folder / "config.yaml", dump_config(config))
            except HuggingtweetsError as err:  # a bad trial never ends a sweep
                self.refused(opened, sweep.config.recipe, str(err))
            else:
                return self.begin(opened, config.recipe, sweep.slugs), prepared
        return None

    def begin(self, opened: OpenTrial, recipe: RecipeConfig, slugs: Sequence[str]) -> TrialProgress:
        """Take up a trial."""
        progress = TrialProgress(opened, recipe, {slug: UserProgress() for slug in slugs})
        self._progresses[opened.number] = progress
        return progress

    def evaluated(self, progress: TrialProgress, slug: str, evals: Sequence[Eval]) -> bool:
        """Take the figures of a user so far; return whether the trial is to be ended.

        The pruner sees the mean over the users, as soon as all of them have trained an epoch. A
        figure that is not a number ends the trial: Optuna takes none, and no later one gets better.
        """
        if not evals:
            return bool(progress.reason)  # a file that could not be read takes no figures back
        finite = [one for one in evals if math.isfinite(one.heldout + one.memorisation)]
        if not progress.reason and len(finite) < len(evals):
            progress.reason, progress.is_bad = "the held-out loss is not finite", True
        progress.users[slug].evals = finite
        progress.users[slug].steps = max(progress.users[slug].steps, evals[-1].step)
        ready = min(len(user.evals) for user in progress.users.values())
        trial = progress.opened.trial
        # All epochs that are new, one by one: pruners compare trials at the same epoch.
        while self._has_pruner and progress.num_judged < ready and not progress.reason:
            index = progress.num_judged
            progress.num_judged += 1
            mean = fmean(user.evals[index].heldout for user in progress.users.values())
            trial.report(mean, progress.num_judged)
            if progress.num_judged < progress.recipe.epochs and trial.should_prune():
                progress.reason = f"pruned after epoch {progress.num_judged}"
        return bool(progress.reason)

    def ended(
        self,
        progress: TrialProgress,
        slug: str,
        *,
        is_cut: bool,
        steps: int = 0,
        seconds: float = 0.0,
        tokens: int = 0,
        history: Sequence[tuple[int, float, float]] = (),
    ) -> None:
        """Take that a user's training is over, whole or cut short by the trial's verdict."""
        user = progress.users[slug]
        user.is_cut = is_cut
        user.steps, user.seconds, user.tokens = steps, seconds, tokens
        user.history = list(history)
        self._end(progress, slug)

    def failed(
        self, progress: TrialProgress, slug: str, reason: str, *, diverged: bool = False
    ) -> None:
        """Take that a user's training failed; one that diverged is a bad trial and no failure."""
        progress.users[slug].is_cut = True
        if not progress.is_failed:
            progress.reason, progress.is_failed = reason, not diverged
        self._end(progress, slug)

    def refused(self, opened: OpenTrial, recipe: RecipeConfig, reason: str) -> None:
        """Take that a trial cannot be trained at all: its values do not go together."""
        progress = self.begin(opened, recipe, ())
        progress.reason, progress.is_failed = reason, True
        self._close(progress)

    def _end(self, progress: TrialProgress, slug: str) -> None:
        progress.users[slug].has_ended = True
        if all(user.has_ended for user in progress.users.values()):
            self._close(progress)

    def _close(self, progress: TrialProgress) -> None:
        """Tell Optuna, and leave trial.json, unless the trial was taken from us."""
        opened = progress.opened
        del self._progresses[opened.number]
        try:
            opened.lock.check()
        except LaunchError as err:
            logger.warning("trial=%d %s", opened.number, err)
            opened.lock.release()
            return
        if not any(user.is_cut for user in progress.users.values()) and not progress.is_failed:
            # The verdict came after the last step of all users: `max_steps` may end a training
            # within an epoch, and users with few posts end before the others.
            progress.reason = progress.reason if progress.is_bad else ""
        if not progress.reason and not all(user.evals for user in progress.users.values()):
            progress.reason, progress.is_failed = "nothing was held out", True
        state, values = TrialState.COMPLETE, None
        if progress.is_failed or progress.reason:
            state = TrialState.FAIL if progress.is_failed else TrialState.PRUNED
        else:
            values = self._objective.values(self._means(progress))
        users = {slug: _outcome(user, progress.recipe) for slug, user in progress.users.items()}
        histories = {slug: {"history": user.history} for slug, user in progress.users.items()}
        trial = {
            "number": opened.number,
            "state": state.name.lower(),
            "params": opened.params,
            "objective": dict(zip(self._objective.names, values, strict=True)) if values else None,
            "reason": progress.reason,
            "users": {slug: users[slug] | histories[slug] for slug in users},
        }
        # Before Optuna hears of it: a trial that has ended always has its trial.json.
        write_json(opened.folder / "trial.json", trial)
        opened.trial.set_user_attr(OUTCOME, {"reason": progress.reason, "users": users})
        self._study.tell(opened.trial, values, state=state)
        opened.lock.release()
        self._on_end(opened.number)
        tell_progress()
        shown = ", ".join(f"{value:.4f}" for value in values or ()) or progress.reason
        logger.info("trial=%d %s: %s", opened.number, state.name.lower(), shown)

    def _means(self, progress: TrialProgress) -> dict[Measure, float]:
        kept = [user.kept(progress.recipe.keep) for user in progress.users.values()]
        return {measure: fmean(getattr(one, measure.value) for one in kept) for measure in Measure}

    def give_up(self) -> None:
        """Let go of the trials under way; the next start takes them up again."""
        for progress in self._progresses.values():
            progress.opened.lock.release()
        self._progresses.clear()


def _outcome(user: UserProgress, recipe: RecipeConfig) -> dict[str, Any]:
    """Return what the study keeps of a user; `summary.UserFigures` reads it."""
    kept = user.kept(recipe.keep) if user.evals else None
    return {
        "heldout": kept.heldout if kept else None,
        "memorisation": kept.memorisation if kept else None,
        "steps": user.steps,
        "planned_steps": _planned_steps(user, recipe),
        "seconds": user.seconds,
        "tokens": user.tokens,
        "evals": [asdict(one) for one in user.evals],
    }


def _planned_steps(user: UserProgress, recipe: RecipeConfig) -> int:
    """Return the steps of the whole training, by those of the epochs so far."""
    whole = [one for one in user.evals if one.epoch > 0]
    if not whole:
        return user.steps
    steps = round(whole[-1].step / whole[-1].epoch * recipe.epochs)
    return max(user.steps, min(steps, recipe.max_steps) if recipe.max_steps else steps)
