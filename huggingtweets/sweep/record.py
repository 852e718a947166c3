"""Every trial as a run of the tracker, `@<sweep>-0007-trial`, in the group of the sweep."""

import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from huggingtweets.config.results_schema import TrackingKind
from huggingtweets.storage.files import read_json
from huggingtweets.storage.paths import JobPaths
from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.study import counted, trial_folder
from huggingtweets.tracking.base import Phase
from huggingtweets.tracking.build import build_tracker

logger = logging.getLogger(__name__)

MARK = ".tracked"
"""Beside trial.json: the trial has its run."""


class TrialRecorder:
    """Records trials that have ended, those that a killed sweep left over among them."""

    def __init__(self, sweep: Sweep) -> None:
        """Start nothing yet."""
        self._sweep = sweep
        kinds = (TrackingKind.wandb, TrackingKind.tensorboard)
        self._is_on = sweep.config.tracking.kind in kinds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="record-trials")

    def catch_up(self, study: optuna.Study) -> None:
        """Record what ended without a run."""
        for trial in counted(study):
            if trial.state.is_finished():
                self.record(trial.number)

    def record(self, number: int) -> None:
        """Have a trial recorded that has left its trial.json."""
        folder = trial_folder(self._sweep.root, number)
        if self._is_on and not (folder / MARK).exists():
            self._pool.submit(self._record, folder)

    def close(self) -> None:
        """Wait until all are recorded."""
        self._pool.shutdown()

    def _record(self, folder: Path) -> None:
        try:
            trial = read_json(folder / "trial.json")
        except (OSError, ValueError):
            return
        config = replace(self._sweep.config.tracking, per_user=True)
        name = f"{self._sweep.spec.name}-{trial['number']:04d}"
        tracker = build_tracker(config, name, JobPaths(folder))
        tracker.start_phase(Phase.trial, trial["params"] | {"users": list(trial["users"])})
        for step, metrics in sorted(_metrics(trial).items()):
            tracker.log_metrics(metrics, step=step)
        tracker.finish(succeeded=trial["state"] != "fail")
        with suppress(OSError):
            (folder / MARK).touch()


def _metrics(trial: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Return the figures by step; of several users each under its name, and the mean by epoch."""
    users = trial["users"]
    lines: dict[int, dict[str, float]] = defaultdict(dict)
    for slug, user in users.items():
        prefix = f"{slug}/" if len(users) > 1 else ""
        for step, loss, lr in user["history"]:
            lines[step] |= {f"{prefix}train/loss": loss, f"{prefix}train/lr": lr}
        for one in user["evals"]:
            lines[one["step"]] |= {
                f"{prefix}eval/bits_per_byte": one["heldout"],
                f"{prefix}eval/memorisation": one["memorisation"],
                f"{prefix}train/epoch": one["epoch"],
            }
    last = max(lines, default=0)
    for name, value in (trial["objective"] or {}).items():
        lines[last][f"objective/{name}"] = value
    return dict(lines)
