"""Trials side by side in the fused engine: a slot that a trial leaves takes the next at once."""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from huggingtweets.bases.model import Base, open_base
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.data.prepare import Prepared
from huggingtweets.errors import OutOfMemoryError, TrainingError
from huggingtweets.handles import Job
from huggingtweets.pipeline.stacking import choose_settings, speed_of, tuning_of
from huggingtweets.pipeline.stages import prepare_job
from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.spec import PrunerKind, SweepSpec
from huggingtweets.sweep.study import Trials
from huggingtweets.sweep.trial_progress import Eval, TrialProgress, TrialProgresses
from huggingtweets.training.meter import peak_flops
from huggingtweets.training.progress import TrainingJob, training_job
from huggingtweets.training.records import Ending, LoggedEval
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.pool import train_stacks
from huggingtweets.training.stopping import stop_requested

logger = logging.getLogger(__name__)

WAVES_OF_PRUNED = 5
"""A pruner judges a trial by those that were trained before it: they come in this many waves."""
MAX_PREPARED = 64
"""Sets of blocks kept in memory: trials of equal data share them."""


def run_fused_trials(
    sweep: Sweep, trials: Trials, progresses: TrialProgresses, base: Base, device: torch.device
) -> None:
    """Train trials until there are no more for this process, or a stop is asked for."""
    recipe = sweep.config.recipe
    opened = open_base(base, replace(recipe, dropout=None))  # each slot has its own
    plan = make_plan(sweep.config, sweep.jobs[0])
    num_jobs = _num_at_once(sweep.spec) * len(sweep.jobs)
    smallest, largest = _ends(sweep, "global_batch_size")
    _, rank = _ends(sweep, "lora_rank")
    largest_recipe = replace(recipe, global_batch_size=largest, lora_rank=rank)
    largest_plan = replace(plan, config=replace(plan.config, recipe=largest_recipe))
    tuning = tuning_of(opened, base, largest_recipe, device)
    settings = choose_settings(tuning, largest_plan, device, num_jobs)
    # A slot computes nothing in vain: later micro-steps are for the larger batches alone.
    settings = replace(settings, micro_batch_size=min(settings.micro_batch_size, smallest))
    logger.info("engine=fused slots=%d engines=%d", settings.slots, settings.engines)
    supply = _Supply(sweep, trials, progresses, base)
    results = train_stacks(
        tuning,
        supply.jobs(),
        settings=settings,
        device=device,
        speed=speed_of(opened, tuning, recipe, peak_flops(device, plan.config.engine.peak_tflops)),
        is_stopped=stop_requested,
    )
    for result in results:
        supply.take(result)


def _num_at_once(spec: SweepSpec) -> int:
    """Return how many trials may be under way; a pruner learns from those that came before."""
    if spec.parallel != "auto":
        return min(spec.total, int(spec.parallel))
    if spec.pruner.kind is PrunerKind.none:
        return spec.total
    return max(2, spec.total // WAVES_OF_PRUNED)


def _ends(sweep: Sweep, field: str) -> tuple[int, int]:
    """Return the smallest and the largest value of a whole-numbered field of all trials' recipes.

    The default is a trial too, and need not lie within what is searched.
    """
    dimension = sweep.spec.space.get(f"recipe.{field}")
    ends = dimension.ends() if dimension else ()
    values = [int(value) for value in ends if isinstance(value, int | float)]
    values += [getattr(config.recipe, field) for config in (sweep.config, sweep.default)]
    return min(values), max(values)


class _Supply:
    """Turns trials into jobs of the engines, and their results into figures; threads may call."""

    def __init__(
        self, sweep: Sweep, trials: Trials, progresses: TrialProgresses, base: Base
    ) -> None:
        self._sweep = sweep
        self._trials = trials
        self._progresses = progresses
        self._base = base
        self._open: dict[str, tuple[TrialProgress, str]] = {}
        # Each engine draws jobs, has them judged and hands in results by a thread of its own.
        self._lock = threading.RLock()
        self._blocks_of = lru_cache(MAX_PREPARED)(self._make_blocks)

    def jobs(self) -> Iterator[TrainingJob]:
        """Yield a job for each user of one trial after another, drawn as slots fall free."""
        while True:
            with self._lock:
                begun = self._progresses.begin_next(self._sweep, self._trials, self._prepare)
                if begun is None:
                    return
                progress, prepared = begun
                jobs = [self._job(progress, plan, one) for plan, one in prepared]
            yield from jobs

    def _prepare(self, plan: Plan) -> tuple[Plan, Prepared]:
        return plan, self._blocks_of(plan.job, plan.config.seed, plan.config.recipe.epochs)

    def _job(self, progress: TrialProgress, plan: Plan, prepared: Prepared) -> TrainingJob:
        slug = plan.job.slug
        name = f"{progress.opened.number}/{slug}"
        self._open[name] = (progress, slug)
        return training_job(
            plan, prepared, slug=name, judge=lambda evals: self._judge(progress, slug, evals)
        )

    def _make_blocks(self, job: Job, seed: int, epochs: int) -> Prepared:
        """Cut the posts of a user into blocks; all else that decides them is searched nowhere."""
        config = self._sweep.config
        recipe = replace(config.recipe, epochs=epochs)
        shared = replace(config, seed=seed, recipe=recipe, output_dir=str(self._sweep.posts_dir))
        return prepare_job(make_plan(shared, job), self._base)

    def _judge(
        self, progress: TrialProgress, slug: str, evals: Sequence[LoggedEval]
    ) -> Ending | None:
        with self._lock:
            is_over = self._progresses.evaluated(progress, slug, as_evals(evals))
        return Ending.pruned if is_over else None

    def take(self, result: StackedResult) -> None:
        """Count a job that has ended."""
        with self._lock:
            progress, slug = self._open.pop(result.slug)
            trained = result.trained
            if trained is None:
                # Of the kinds of a failed training only lack of memory says nothing of the values.
                is_diverged = isinstance(result.error, TrainingError) and not isinstance(
                    result.error, OutOfMemoryError
                )
                self._progresses.failed(progress, slug, str(result.error), diverged=is_diverged)
                return
            self._progresses.evaluated(progress, slug, as_evals(trained.evals))
            self._progresses.ended(
                progress,
                slug,
                is_cut=trained.ended_by is Ending.pruned,
                steps=trained.steps,
                seconds=trained.seconds,
                tokens=trained.tokens,
                history=[(line.step, line.loss, line.lr) for line in trained.history],
            )


def as_evals(lines: Sequence[LoggedEval]) -> list[Eval]:
    """Return the evaluations after training steps, with what was memorised since the base."""
    return [
        Eval(line.step, line.epoch, line.heldout.bits_per_byte, line.gap_since(lines[0]) or 0.0)
        for line in lines[1:]
    ]
