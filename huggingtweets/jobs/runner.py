"""Run the selected jobs, record what became of each, and turn that into an exit code."""

import gc
import logging
from collections.abc import Sequence

from accelerate import Accelerator
from rich.console import Console
from transformers.utils import logging as transformers_logging

from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.handles import Job
from huggingtweets.logs import STOPPED, exit_code_of
from huggingtweets.pipeline import is_done, run_job
from huggingtweets.publishing.summary import show_summary
from huggingtweets.training.launch import build_accelerator, on_main
from huggingtweets.training.model import Base, check_block_size, find_base

logger = logging.getLogger(__name__)


def run_jobs(config: TrainConfig, jobs: Sequence[Job]) -> int:
    """Run every job, one after another, and return the exit code.

    Raises:
        ConfigError: the base model cannot be had, or does not fit the recipe.
        LaunchError: the processes are not as asked for.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    plans = [make_plan(config, job) for job in jobs]
    accelerator = build_accelerator(config.engine.precision)
    try:
        # One process makes or downloads the base, the others find it in the cache.
        on_main(accelerator, lambda: check_base(config))
        base = check_base(config)
        codes = []
        for plan in plans:
            codes.append(_run_one(plan, accelerator, base))
            if codes[-1] == STOPPED:
                break
    finally:
        # Without the collection, gloo of torch 2.13 aborts at exit now and then.
        accelerator.free_memory()
        gc.collect()
        accelerator.end_training()
    return max(codes)


def check_base(config: TrainConfig) -> Base:
    """Find the base model and hold the recipe against it.

    Raises:
        ConfigError: the base cannot be had, or blocks are longer than it has positions.
    """
    base = find_base(config.model)
    check_block_size(base, config.recipe.block_size)
    return base


def _run_one(plan: Plan, accelerator: Accelerator, base: Base) -> int:
    slug = plan.job.slug
    try:
        if is_done(plan):
            logger.info("job=%s is done already: %s", slug, plan.paths.root)
            return 0
        facts = run_job(plan, accelerator, base)
    except HuggingtweetsError as err:
        return exit_code_of(err)
    logger.info("job=%s done: %s", slug, plan.paths.root)
    if facts:
        show_summary(facts, plan.paths, Console())
    return 0
