"""Weights & Biases in the background: a thread makes the calls, so the job never waits for them.

Only `finish` waits: as long as the server answers and uploads move, but at most about 15 seconds
over all without an answer. What could not be sent lies in the job's folder for `wandb sync`.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingtweets.config.schema import TrackingConfig
from huggingtweets.tracking.base import ArtifactSpec, Phase
from huggingtweets.tracking.wandb_access import base_url, is_reachable
from huggingtweets.tracking.wandb_names import RunNames
from huggingtweets.tracking.wandb_session import (
    CALL_TIMEOUT_S,
    FINISH_TIMEOUT_S,
    OUTAGE,
    WandbSession,
)

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long, in all, `finish` bears with a server that does not answer."""
GRACE_S = CALL_TIMEOUT_S + FINISH_TIMEOUT_S
"""How long the runs may then take to end."""
MAX_FINISH_S = 900.0
"""The longest upload that is waited for."""


class WandbTracker:
    """Runs `@<slug>-preprocess` and `@<slug>-train`, their files in the job's folder."""

    def __init__(
        self,
        config: TrackingConfig,
        slug: str,
        folder: Path,
        *,
        identity: str = "",
        is_alone: bool = False,
    ) -> None:
        """Start the thread; nothing is imported or sent yet. See `build_tracker`."""
        _set_environment(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        self._slug = slug
        self._session = WandbSession(config, RunNames(slug, folder, identity, is_alone), folder)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
        """Start the run of a phase."""
        self._calls.put(lambda: self._session.open(phase, dict(config)))

    def use_artifact(self, artifact: ArtifactSpec) -> None:
        """Draw an edge into the run."""
        self._calls.put(lambda: self._session.use_artifact(artifact))

    def log_artifact(self, artifact: ArtifactSpec) -> None:
        """Upload an artifact's files."""
        self._calls.put(lambda: self._session.log_artifact(artifact))

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Record figures."""
        known = {name: value for name, value in metrics.items() if value is not None}
        self._calls.put(lambda: self._session.log_metrics(known, step))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""
        self._calls.put(lambda: self._session.log_table(name, columns, rows))

    def urls(self) -> dict[Phase, str]:
        """Return the pages of the runs that are online."""
        return dict(self._session.urls)

    def finish(self, *, succeeded: bool = True) -> list[str]:
        """Finish the runs and wait for what can be sent."""
        self._calls.put(lambda: self._session.close(succeeded=succeeded))
        self._calls.put(None)
        started = time.monotonic()
        silent_s = 0.0
        while silent_s < PATIENCE_S and time.monotonic() - started < MAX_FINISH_S:
            step_started = time.monotonic()
            self._thread.join(1.0)
            if not self._thread.is_alive():
                return list(self.urls().values())
            if self._session.is_online and not is_reachable(base_url(), timeout_s=1.5):
                silent_s += time.monotonic() - step_started
        self._session.give_up.set()
        self._thread.join(GRACE_S)
        if self._thread.is_alive():
            self._session.is_abandoned.set()
            OUTAGE.note()
        logger.warning(
            "job=%s W&B did not take everything in time; the rest lies in the job's folder: "
            "send it with `wandb sync`",
            self._slug,
        )
        return list(self.urls().values())

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _set_environment(output_dir: Path) -> None:
    """Keep W&B's own files beside the jobs and its messages off the terminal.

    The folder with the user's W&B settings stays: it says which server is theirs.
    """
    folder = output_dir.resolve() / ".wandb"
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", "4")
    os.environ.setdefault("WANDB_DATA_DIR", str(folder / "data"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "cache"))
