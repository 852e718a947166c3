"""What a user is warned of on the way of a job, each with what to do about it."""

import logging

from huggingtweets.config.plan import Plan
from huggingtweets.data.prepare import Prepared
from huggingtweets.generation.samples import Samples

logger = logging.getLogger(__name__)


def tell_of_posts(plan: Plan, prepared: Prepared, max_positions: int) -> None:
    """Say so where no post is held out, and where blocks are too short for the posts.

    A post that is cut in two is learnt as two; where posts are joined anyway, that is no matter. Of
    fewer than a hundredth of the posts nothing is said.

    Args:
        plan: of the job.
        prepared: its posts.
        max_positions: of the base.
    """
    recipe, longest = plan.config.recipe, prepared.long_tokens
    if prepared.heldout is None and recipe.heldout_frac > 0:
        logger.warning(
            "job=%s nothing is held out: the posts are too few, or say nearly the same; no figure "
            "will tell how well the model predicts new posts",
            plan.job.slug,
        )
    if recipe.isolate_documents and recipe.block_size < min(longest, max_positions):
        better = min(2 ** (longest - 1).bit_length(), max_positions)
        logger.warning(
            "job=%s posts of up to %d tokens are cut, as recipe.block_size=%d; with "
            "recipe.block_size=%d %s",
            plan.job.slug,
            longest,
            recipe.block_size,
            better,
            "they stay whole" if longest <= better else "fewer are; the base takes no longer ones",
        )


def tell_refused(plan: Plan, samples: Samples) -> None:
    """Say so where the guards left fewer samples than were asked for."""
    asked = len(plan.sampling.prompts) * plan.sampling.num
    if len(samples.predictions) < asked:
        logger.warning(
            "job=%s samples=%d of %d: for the others all that was drawn was refused (%s); "
            "sampling.block_copies=0 lets copies of training posts pass",
            plan.job.slug,
            len(samples.predictions),
            asked,
            samples.refusals,
        )
