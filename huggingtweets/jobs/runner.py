"""Run the selected jobs, record what became of each, and turn that into an exit code."""

import gc
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from rich.console import Console
from transformers.utils import logging as transformers_logging

from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.errors import HuggingtweetsError, TrainingError
from huggingtweets.handles import Job
from huggingtweets.jobs.ledger import open_ledger, read_ledger
from huggingtweets.jobs.selection import is_batch
from huggingtweets.jobs.tally import Tally
from huggingtweets.pipeline import is_done, run_job
from huggingtweets.publishing.facts import ModelFacts
from huggingtweets.publishing.summary import show_summary
from huggingtweets.training.agree import of_main
from huggingtweets.training.launch import build_accelerator, on_main
from huggingtweets.training.model import Base, check_block_size, find_base

logger = logging.getLogger(__name__)


def run_jobs(config: TrainConfig, jobs: Sequence[Job]) -> int:
    """Run every job that is not done yet and return the exit code.

    Raises:
        ConfigError: the base model cannot be had, or does not fit the recipe.
        LaunchError: the processes or the output folder are not as asked for.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    plans = [make_plan(config, job) for job in jobs]
    accelerator = build_accelerator(config.engine.precision)
    try:
        # One process makes or downloads the base, the others find it in the cache.
        on_main(accelerator, lambda: check_base(config))
        base = check_base(config)
        with ExitStack() as stack:
            tally = _open_tally(config, accelerator, stack)
            _run_in_turn(plans, accelerator, base, tally, retry_failed=config.retry_failed)
            if is_batch(config.user):
                tally.show(Path(config.output_dir))
    finally:
        # Without the collection, gloo of torch 2.13 aborts at exit now and then.
        accelerator.free_memory()
        gc.collect()
        accelerator.end_training()
    return tally.exit_code


def check_base(config: TrainConfig) -> Base:
    """Find the base model and hold the recipe against it.

    Raises:
        ConfigError: the base cannot be had, or blocks are longer than it has positions.
    """
    base = find_base(config.model)
    check_block_size(base, config.recipe.block_size)
    return base


def _open_tally(config: TrainConfig, accelerator: Accelerator, stack: ExitStack) -> Tally:
    """Read the ledger of a batch on every rank; the main one alone writes it."""
    if not is_batch(config.user):
        return Tally(None, {})
    output_dir = Path(config.output_dir)
    before = read_ledger(output_dir)
    ledger = on_main(
        accelerator, lambda: stack.enter_context(open_ledger(output_dir, shard=config.shard))
    )
    return Tally(ledger, before)


def _run_in_turn(
    plans: Sequence[Plan],
    accelerator: Accelerator,
    base: Base,
    tally: Tally,
    *,
    retry_failed: bool,
) -> None:
    """Run jobs one after another, each over all processes; a failed one never stops the others."""
    todo = [plan for plan in plans if _is_wanted(plan, accelerator, tally, retry_failed)]
    for plan in todo:
        tally.queued(plan)
    for plan in todo:
        try:
            tally.running(plan)
            facts = _guarded(plan, accelerator, base)
        except HuggingtweetsError as err:
            tally.failed(plan, err)
            if tally.is_stopped:
                return
            continue
        tally.done(plan)
        if facts and len(plans) == 1:
            show_summary(facts, plan.paths, Console())


def _is_wanted(plan: Plan, accelerator: Accelerator, tally: Tally, retry_failed: bool) -> bool:
    """Whether a job is still to be run; one that is not is counted. Every rank decides the same."""
    try:
        if of_main(on_main(accelerator, partial(is_done, plan))):
            tally.done(plan, before=True)
            return False
    except HuggingtweetsError as err:
        tally.failed(plan, err)
        return False
    return retry_failed or not tally.failed_for_good(plan)


def _guarded(plan: Plan, accelerator: Accelerator, base: Base) -> ModelFacts | None:
    """Run one job; whatever it raises becomes a failure of this job alone.

    With several processes an unforeseen error ends the run: the others would wait for ever.
    """
    try:
        return run_job(plan, accelerator, base)
    except HuggingtweetsError:
        raise
    except Exception as err:
        if accelerator.num_processes > 1:
            raise
        logger.exception("job=%s unforeseen error", plan.job.slug)
        raise TrainingError(
            f"job {plan.job.slug}: {type(err).__name__}: {str(err)[:200]}; this is a bug of ours; "
            "please report it with the log"
        ) from err
