"""Weights & Biases in the background: another process makes the calls, for which no job waits.

Only `finish` waits: as long as that process says that it lives, as it does while uploads move, and
then it is killed. What could not be sent lies in the job's folder for `wandb sync`.
"""

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingtweets.config.results_schema import TrackingConfig
from huggingtweets.tracking.base import ArtifactSpec, Phase, Tracker
from huggingtweets.tracking.wandb_names import RunNames
from huggingtweets.tracking.wandb_process import WandbProcess

logger = logging.getLogger(__name__)

HUNG_S = 30.0
"""A process that says nothing for so long hangs: each call there is bounded by a few seconds."""
MAX_FINISH_S = 900.0
"""The longest upload that is waited for."""

_idle: queue.SimpleQueue[WandbProcess] = queue.SimpleQueue()
"""Processes that have finished a job well, for the next one."""


@atexit.register
def _end_idle() -> None:
    """Leave no process behind."""
    with suppress(queue.Empty):
        while True:
            _idle.get_nowait().kill()


class WandbTracker(Tracker):
    """Runs `@<slug>-preprocess` and `@<slug>-train`, their files in the job's folder."""

    _pause_until = 0.0
    """On the monotonic clock: how long the server is left alone, the same for all jobs."""

    def __init__(self, config: TrackingConfig, names: RunNames) -> None:
        """Start the thread; nothing is started or sent yet."""
        names.folder.mkdir(parents=True, exist_ok=True)
        self._slug = names.slug
        self._urls: dict[Phase, str] = {}
        self._process: WandbProcess | None = None
        self._environment = _environment(names.folder.parent)
        self._is_stuck = False
        self._heard_at = time.monotonic()
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._calls.put(("begin", (config, names)))
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
        """Start the run of a phase."""
        self._calls.put(("open", (phase, dict(config))))

    def use_artifact(self, artifact: ArtifactSpec) -> None:
        """Draw an edge into the run."""
        self._calls.put(("use_artifact", (artifact,)))

    def log_artifact(self, artifact: ArtifactSpec) -> None:
        """Upload an artifact's files."""
        self._calls.put(("log_artifact", (artifact,)))

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Record figures."""
        known = {name: value for name, value in metrics.items() if value is not None}
        self._calls.put(("log_metrics", (known, step)))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""
        self._calls.put(("log_table", (name, columns, rows)))

    def urls(self) -> dict[Phase, str]:
        """Return the pages of the runs that are online."""
        return dict(self._urls)

    def finish(self, *, succeeded: bool = True) -> None:
        """Finish the runs and wait for what can be sent."""
        self._calls.put(("close", (0 if succeeded else 1,)))
        self._calls.put(None)
        started = self._heard_at = time.monotonic()
        while self._thread.is_alive():
            self._thread.join(0.5)
            now = time.monotonic()
            if now - self._heard_at > HUNG_S or now - started > MAX_FINISH_S:
                self._is_stuck = True
                if self._process is not None:
                    self._process.kill()
                break
        if self._is_stuck:
            logger.warning(
                "job=%s W&B did not take everything in time; the rest lies in the job's folder: "
                "send it with `wandb sync`",
                self._slug,
            )

    def _work(self) -> None:
        """Make the calls, until one is lost with its process."""
        try:
            while (call := self._calls.get()) is not None:
                name, arguments = call
                if self._process is None:
                    self._process = self._take()
                if name == "begin":
                    arguments = (*arguments, max(0.0, self._pause_until - time.monotonic()))
                self._process.call(name, arguments, self._note)
                self._heard_at = time.monotonic()
        except (EOFError, OSError) as err:
            if not self._is_stuck:
                logger.warning(
                    "job=%s the process that talks to W&B is gone (%s); what is not recorded yet "
                    "is recorded in the job's folder alone",
                    self._slug,
                    err or "killed",
                )
            return
        if self._process is not None:
            if self._is_stuck:
                self._process.kill()
            else:
                _idle.put(self._process)

    def _take(self) -> WandbProcess:
        try:
            return _idle.get_nowait()
        except queue.Empty:
            return WandbProcess(self._environment)

    def _note(self, kind: str, value: Any) -> None:
        """Take what the process tells; see `WandbSession`."""
        self._heard_at = time.monotonic()
        match kind:
            case "log":
                logger.log(*value)
            case "url":
                self._urls.update([value])
            case "outage":
                WandbTracker._pause_until = time.monotonic() + value
            case "stuck":
                self._is_stuck = True


def _environment(output_dir: Path) -> dict[str, str]:
    """Keep W&B's own files beside the jobs and its messages off the terminal.

    The folder with the user's W&B settings stays: it says which server is theirs.
    """
    folder = output_dir.resolve() / ".wandb"
    wanted = {
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_HTTP_TIMEOUT": "4",
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_CACHE_DIR": str(folder / "cache"),
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}
