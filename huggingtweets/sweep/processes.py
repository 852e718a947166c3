"""Trials as processes of their own: `train.py` as anybody would run it, several at once.

The process of the sweep only looks on: it reads metrics.jsonl and result.json, and ends a bad
trial by SIGTERM.
"""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingtweets.config.compose import dump_config
from huggingtweets.config.plan import Plan
from huggingtweets.config.results_schema import TrackingConfig, TrackingKind
from huggingtweets.errors import StorageError
from huggingtweets.handles import Job
from huggingtweets.logs import STOPPED
from huggingtweets.storage.files import read_json, replacing_file, write_text
from huggingtweets.storage.paths import JobPaths
from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.study import Trials
from huggingtweets.sweep.trial_progress import Eval, TrialProgress, TrialProgresses
from huggingtweets.training import stopping

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
GRACE_S = 60.0
"""After SIGTERM a training saves and leaves; after this long it is killed."""
BUSY_WAIT_S = 2.0
"""Until a training that an earlier sweep left behind is asked for again."""
# Words of the errors of `storage/lock.py`, of the training and of `causes.py`. Nothing else comes
# out of a process: `accelerate launch` has exit codes of its own.
_BUSY = "got a second start of this job"
_DIVERGED = "training: the loss is not finite"
_NO_DISK = "; expected a disk "
"""Of `causes.as_known`: room has to be made, and every other trial would fail as well."""
_SLURM_STEP = ("SLURM_PROCID", "SLURM_LOCALID", "RANK", "LOCAL_RANK", "WORLD_SIZE",
               "HUGGINGTWEETS_MARK")  # fmt: skip
"""A trial is no rank of whoever started the sweep, nor does its end concern the batch script."""


@dataclass
class _Child:
    """One user of one trial in training."""

    progress: TrialProgress
    job: Job
    paths: JobPaths
    device: str | None
    process: subprocess.Popen[bytes]
    asked_at: float | None = None
    """When it was asked to stop."""
    size_read: int = 0
    """Of metrics.jsonl at the last look."""


def run_process_trials(sweep: Sweep, trials: Trials, progresses: TrialProgresses) -> None:
    """Train trials until there are no more for this process, or a stop is asked for."""
    devices = _devices() or [None]
    limit = len(devices) if sweep.spec.parallel == "auto" else int(sweep.spec.parallel)
    free = deque(devices[index % len(devices)] for index in range(limit))
    trainings = _trainings(sweep, trials, progresses)
    again: deque[tuple[TrialProgress, Job]] = deque()
    running: list[_Child] = []
    try:
        while not stopping.stop_requested():
            while free and (following := again.popleft() if again else next(trainings, None)):
                progress, job = following
                if progress.reason:  # ended on account of another user
                    progresses.ended(progress, job.slug, is_cut=True)
                else:
                    running.append(_start(sweep, progress, job, free.popleft()))
            if not running:
                return
            time.sleep(LOOK_EVERY_S)
            for child in list(running):
                _look(child, progresses)
                if child.process.poll() is None:
                    continue
                running.remove(child)
                free.append(child.device)
                if not _take(child, progresses):
                    time.sleep(BUSY_WAIT_S)
                    again.append((child.progress, child.job))
    finally:
        _end_all(running)


def _trainings(
    sweep: Sweep, trials: Trials, progresses: TrialProgresses
) -> Iterator[tuple[TrialProgress, Job]]:
    """Yield the users of one trial after another, drawn as processes end."""
    while (begun := progresses.begin_next(sweep, trials, _write_config)) is not None:
        progress, jobs = begun
        for job in jobs:
            yield progress, job


def _write_config(plan: Plan) -> Job:
    """Write what train.py is to run for a user; of the trackers the sweep itself takes care."""
    quiet = replace(plan.config, tracking=TrackingConfig(TrackingKind.none))
    write_text(_config_dir(Path(quiet.output_dir), plan.job) / "trial.yaml", dump_config(quiet))
    return plan.job


def _config_dir(folder: Path, job: Job) -> Path:
    return folder / "configs" / job.slug


def _start(sweep: Sweep, progress: TrialProgress, job: Job, device: str | None) -> _Child:
    """Start train.py; the posts lie in its folder already, so no trial asks the source again."""
    paths = JobPaths(progress.opened.folder / job.slug)
    paths.root.mkdir(parents=True, exist_ok=True)
    shared = JobPaths(sweep.posts_dir / job.slug)
    for source, target in ((shared.cleaning, paths.cleaning), (shared.posts, paths.posts)):
        if not target.exists():
            with replacing_file(target) as draft:
                shutil.copyfile(source, draft)
    command = [
        *launcher(sweep.spec.launch),
        "-m",
        "huggingtweets.train",
        f"--config-path={_config_dir(progress.opened.folder, job).resolve()}",
        "--config-name=trial",
    ]
    environment = {key: value for key, value in os.environ.items() if key not in _SLURM_STEP}
    environment[stopping.PARENT] = str(os.getpid())
    if device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = device
    log = progress.opened.folder / f"{job.slug}.log"
    logger.info("trial=%d %s", progress.opened.number, shlex.join(command))
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    return _Child(progress, job, paths, device, process)


def launcher(launch: str | None) -> list[str]:
    """Return what stands before train.py: this Python, or accelerate with a configuration."""
    if launch is None:
        return [sys.executable]
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", launch]


def _devices() -> list[str | None]:
    """Return the GPUs that trials are spread over."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one for one in visible.split(",") if one]
    from huggingtweets.runtime.device import num_gpus  # imports torch

    return [str(index) for index in range(num_gpus())]


def _look(child: _Child, progresses: TrialProgresses) -> None:
    """Take what is new in metrics.jsonl, and end a training that is not worth going on."""
    with suppress(OSError):
        size = child.paths.metrics.stat().st_size
        if size != child.size_read:
            child.size_read = size
            evals = _evals(_rows(child.paths.metrics))
            progresses.evaluated(child.progress, child.job.slug, evals)
    if child.progress.reason and child.process.poll() is None:
        now = time.monotonic()
        if child.asked_at is None:
            child.asked_at = now
            child.process.send_signal(signal.SIGTERM)
        elif now - child.asked_at > GRACE_S:
            child.process.kill()


def _take(child: _Child, progresses: TrialProgresses) -> bool:
    """Count a training whose process has ended; return whether it could be had at all.

    It cannot while the training of a sweep that was killed is still saving and leaving, nor when it
    was asked to stop: Ctrl-C and `scancel` reach it beside us, and maybe before us.

    Raises:
        StorageError: the disk is full or broken; the trial stays under way.
    """
    progress, slug = child.progress, child.job.slug
    rows = _rows(child.paths.metrics)
    progresses.evaluated(progress, slug, _evals(rows))
    history = [(row["step"], row["loss"], row["lr"]) for row in rows if "loss" in row]
    code = child.process.returncode
    if code == 0 or progress.reason:
        figures = {"steps": history[-1][0]} if history else {}
        if code == 0:
            train = read_json(child.paths.result)["train"]
            figures = {key: train[key] for key in ("steps", "seconds", "tokens")}
        progresses.ended(progress, slug, is_cut=code != 0, history=history, **figures)
        # A sweep keeps no weights; of a pruned training nobody goes on with the checkpoints.
        unused = child.paths.model if code == 0 else child.paths.checkpoints
        shutil.rmtree(unused, ignore_errors=True)
        return True
    reason = _reason(progress.opened.folder / f"{slug}.log", code)
    if code == STOPPED:  # somebody stopped the training itself, and means all of them
        stopping.request_stop(f"the stop of trial {progress.opened.number}")
    if stopping.stop_requested() or _BUSY in reason:  # `accelerate launch` has codes of its own
        return False
    if _NO_DISK in reason:
        raise StorageError(reason)
    progresses.failed(progress, slug, reason, diverged=_DIVERGED in reason)
    return True


def _evals(rows: Sequence[Mapping[str, Any]]) -> list[Eval]:
    """Return the evaluations after training steps among the lines of a metrics.jsonl."""
    scored = [row for row in rows if "eval_bits_per_byte" in row]
    return [
        Eval(row["step"], row["epoch"], row["eval_bits_per_byte"], _gap(row, scored[0]))
        for row in scored[1:]
    ]


def _gap(row: Mapping[str, Any], base: Mapping[str, Any]) -> float:
    name = "train_bits_per_byte"
    if f"eval_{name}" not in row or f"eval_{name}" not in base:
        return 0.0
    learnt = base[f"eval_{name}"] - row[f"eval_{name}"]
    gap: float = learnt - (base["eval_bits_per_byte"] - row["eval_bits_per_byte"])
    return gap


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file that is being written; the last may be cut short."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def _reason(log: Path, code: int) -> str:
    """Return the sentence a training ended with."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.startswith("huggingtweets: ")]
    if said:
        return said[-1].removeprefix("huggingtweets: ")
    return f"the training ended with code {code}; {log} tells more"


def _end_all(running: Sequence[_Child]) -> None:
    """Stop all trainings; each saves and leaves."""
    for child in running:
        with suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    for child in running:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        if child.process.returncode not in (0, STOPPED):
            logger.warning(
                "trial=%d ended with code %d",
                child.progress.opened.number,
                child.process.returncode,
            )
