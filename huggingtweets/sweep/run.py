"""Run a sweep: posts once, trials until there are enough, then what was found."""

import gc
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import optuna
from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from huggingtweets.bases.model import Base
from huggingtweets.config.checks import AUTO
from huggingtweets.config.compose import dump_config
from huggingtweets.config.plan import make_plan, user_of
from huggingtweets.config.schema import EngineKind, TrainConfig
from huggingtweets.errors import ConfigError, DataError, JobBusyError
from huggingtweets.handles import Job
from huggingtweets.jobs.runner import check_base, choose_engine
from huggingtweets.logs import JOB_FAILED
from huggingtweets.pipeline.notices import tell_of_posts
from huggingtweets.pipeline.stages import begin_job, lock_job, prepare_job
from huggingtweets.storage.files import write_text
from huggingtweets.storage.paths import expanded
from huggingtweets.sweep.fused import run_fused_trials
from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.processes import run_process_trials
from huggingtweets.sweep.record import TrialRecorder
from huggingtweets.sweep.report import render_sweep_report
from huggingtweets.sweep.space import is_fusable, wrong
from huggingtweets.sweep.spec import Way
from huggingtweets.sweep.study import Trials, open_study, storage_errors, study_path
from huggingtweets.sweep.summary import SweepSummary, TrialRow, summarise_sweep
from huggingtweets.sweep.trial_progress import TrialProgresses
from huggingtweets.training.launch import build_accelerator, settle_precision
from huggingtweets.training.stopping import raise_if_stopped, stop_requested

logger = logging.getLogger(__name__)

POSTS_WAIT_S = 1.0
BEST, REPORT, USERS = "best.yaml", "report.html", "users.txt"


def run_sweep(sweep: Sweep) -> int:
    """Train trials until their total is reached, and write down what was found.

    Returns:
        The exit code: 1 where some trial failed.

    Raises:
        HuggingtweetsError: the sweep cannot be run; a StoppedError when a stop was asked for.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if sweep.config.recipe.warm_start not in (None, AUTO):
        got = f"{sweep.config.recipe.warm_start!r} in a sweep, whose trials begin from the base"
        raise wrong("recipe.warm_start", got, "none; drop it")
    config = settle_precision(sweep.config)
    sweep = replace(sweep, config=config)
    engine = sweep.config.engine
    accelerator = build_accelerator(engine.precision, tf32=engine.tf32)
    try:
        base = check_base(sweep.config)
        is_fused = choose_way(sweep, base, accelerator) is Way.fused
        _check_root(sweep.root)
        study = open_study(sweep.root, sweep.spec, sweep.identity(), max_epochs=sweep.max_epochs)
        for job in sweep.jobs:
            _check_posts(sweep, job, base)
        write_text(sweep.root / "sweep.json", json.dumps(_description(sweep), indent=2))
        trials = Trials(sweep.root, sweep.spec, study)
        recorder = TrialRecorder(sweep)
        recorder.catch_up(study)
        progresses = TrialProgresses(study, sweep.spec.objective, recorder.record)
        try:
            with storage_errors(study_path(sweep.root) or sweep.root):
                while True:
                    if is_fused:
                        run_fused_trials(sweep, trials, progresses, base, accelerator.device)
                    else:
                        run_process_trials(sweep, trials, progresses)
                    if stop_requested() or not trials.take_over():
                        break
        finally:
            progresses.give_up()
            recorder.close()
    finally:
        accelerator.free_memory()
        gc.collect()
        accelerator.end_training()
    summary = write_findings(sweep, study)
    raise_if_stopped("sweep")
    return _exit_code(summary)


def _check_root(root: Path) -> None:
    """Refuse a folder in which a new sweep would write over somebody else's files.

    Raises:
        ConfigError: the first of them.
    """
    names = ("sweep.json", BEST, REPORT, USERS, "compare.html")
    found = [path for name in names if (path := root / name).exists()]
    # After a purge, or where the study was deleted, its trials and posts still tell whose it is.
    is_ours = (
        study_path(root) is not None or any(root.glob("trial-*")) or any(root.glob("posts/*/.lock"))
    )
    if found and not is_ours:
        raise ConfigError(
            f"{found[0]}: got a file in the place of one that a sweep writes; expected a folder "
            "without; choose another output_dir, or move the file away"
        )


def choose_way(sweep: Sweep, base: Base, accelerator: Accelerator) -> Way:
    """Return how trials are trained.

    Raises:
        ConfigError: they cannot be trained as asked for.
    """
    spec = sweep.spec
    if spec.way is Way.processes:
        return Way.processes
    can_fuse = is_fusable(spec.space) and spec.launch is None
    if can_fuse and choose_engine(sweep.config, base, accelerator, 2) is EngineKind.fused:
        return Way.fused
    if spec.way is Way.fused:
        got = "fused, which this base, engine or launch file does not allow"
        raise wrong("way", got, "processes; use way: auto")
    return Way.processes


def _check_posts(sweep: Sweep, job: Job, base: Base) -> None:
    """Get the posts of a user, once for all trials and tasks, and see that they can be trained on.

    Raises:
        SourceError, TooFewPostsError, DataError: they cannot.
    """
    # Of the default where it can be trained: a value of the space that cannot is a bad trial.
    config = sweep.default if sweep.spec.default else sweep.config
    plan = make_plan(replace(config, output_dir=str(sweep.posts_dir)), job)
    while not plan.paths.posts.exists():
        try:
            with lock_job(plan):
                begin_job(plan)
        except JobBusyError:  # another task is at it
            time.sleep(POSTS_WAIT_S)
    prepared = prepare_job(plan, base)
    if prepared.heldout is None:
        raise DataError(
            f"job {job.slug}: got no post that can be held out; expected some to score the trials "
            "by; give more posts, or a larger recipe.heldout_frac"
        )
    tell_of_posts(plan, prepared, base.max_positions)


def _description(sweep: Sweep) -> dict[str, object]:
    """Return what status and report need beside the study."""
    return {
        "name": sweep.spec.name,
        "trials": sweep.spec.total,
        "objective": list(sweep.spec.objective.names),
        "sampler": sweep.spec.sampler.value,
        "pruner": sweep.spec.pruner.kind.value,
        "users": list(sweep.slugs),
        "config": list(sweep.spec.config),
        "tracking": sweep.config.tracking.kind.value,
    }


def write_findings(sweep: Sweep, study: optuna.Study) -> SweepSummary:
    """Write the best configuration and the report; again, when another task ended meanwhile."""
    while True:
        summary = summarise_sweep(study, sweep.spec.objective.names)
        if summary.best:
            best = summary.row(summary.best[0])
            write_text(sweep.root / BEST, dump_config(_best_config(sweep, best)))
        write_text(sweep.root / REPORT, render_sweep_report(sweep, summary))
        again = summarise_sweep(study, sweep.spec.objective.names)
        if again.counts == summary.counts:
            return summary


def _best_config(sweep: Sweep, best: TrialRow) -> TrainConfig:
    """Return the configuration of a trial as one would train it in full, from any folder."""
    folder = sweep.root.resolve() / "best"
    trial = sweep.trial_config(best.params, folder)
    user: object = user_of(sweep.jobs[0])
    if len(sweep.jobs) > 1:
        path = sweep.root / USERS
        write_text(path, "".join(" ".join(job.handles) + "\n" for job in sweep.jobs))
        user = f"file:{path.resolve()}"
    return replace(
        trial,
        user=user,
        shard=None,
        job_index=None,
        source=replace(trial.source, path=_anywhere(trial.source.path)),
        model=replace(trial.model, path=_anywhere(trial.model.path)),
        optout_file=_anywhere(trial.optout_file),
        sampling=sweep.config.sampling,
        publish=sweep.config.publish,
    )


def _anywhere(path: str | None) -> str | None:
    """Return a path that holds from any folder; a name on the Hub stays as it is."""
    if path is None or not expanded(path).exists():
        return path
    return str(expanded(path).resolve())


def _exit_code(summary: SweepSummary) -> int:
    failed = [row for row in summary.rows if row.state == "fail"]
    for row in failed[:3]:
        logger.error("trial=%d failed: %s", row.number, row.reason)
    return JOB_FAILED if failed else 0
