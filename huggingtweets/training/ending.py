"""Whether a training ends after an evaluation, and whose weights are kept; for both engines.

Pure functions of the evaluations so far: the same on every process, and after a resume.
"""

from collections.abc import Callable, Sequence

from huggingtweets.config.schema import Keep, RecipeConfig, Stop
from huggingtweets.training.records import Ending, LoggedEval

Judge = Callable[[Sequence[LoggedEval]], Ending | None]
"""Asked with all evaluations of a job after each but the first, which is the base's."""


def ending_after(recipe: RecipeConfig, evals: Sequence[LoggedEval]) -> Ending | None:
    """Return why a training ends after these evaluations, or None: it goes on."""
    if recipe.stop is Stop.never or len(evals) < 2:
        return None
    base, *later = evals
    gap = later[-1].gap_since(base)
    if recipe.stop is Stop.memorisation and gap is not None and gap > recipe.max_gap:
        return Ending.memorisation
    nats = [one.heldout.nats for one in later]
    age = len(nats) - 1 - nats.index(min(nats))
    return Ending.heldout if age >= recipe.patience else None


def is_to_keep(recipe: RecipeConfig, evals: Sequence[LoggedEval]) -> bool:
    """Whether the weights last evaluated are the best so far, and such are asked for.

    Where a training is ended for memorisation, what it was ended for is not kept unless there is
    nothing else.
    """
    if recipe.keep is not Keep.best or len(evals) < 2:
        return False
    earlier = [one.heldout.nats for one in evals[1:-1]]
    is_lowest = evals[-1].heldout.nats < min(earlier, default=float("inf"))
    return is_lowest and ending_after(recipe, evals) is not Ending.memorisation
