"""The calls to W&B, one after another in a process of their own. They may take their time."""

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal, TypeVar

from huggingtweets.config.results_schema import TrackingConfig, WandbMode
from huggingtweets.errors import first_line
from huggingtweets.storage.paths import expanded
from huggingtweets.tracking.base import (
    ArtifactKind,
    ArtifactSpec,
    Phase,
    files_of,
    without_secrets,
)
from huggingtweets.tracking.wandb_access import base_url, choose_mode, has_credentials
from huggingtweets.tracking.wandb_names import RunNames
from huggingtweets.web import answers

logger = logging.getLogger(__name__)

T = TypeVar("T")
Told = Callable[[str, Any], None]
"""Takes what is told while a call is made: a kind and a value."""

# Together they keep a server that hangs from costing a job more than 20 s (docs/tracking.md).
PROBE_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 4.0
INIT_TIMEOUT_S = 10.0
FINISH_TIMEOUT_S = 3.0
"""For the small rest; uploads are waited for separately, as long as the server answers."""
MAX_FAILURES = 2
"""After this many failures in a row a kind of call is not made again for this job."""
PAUSE_AFTER_OUTAGE_S = 300.0
_NO_HOST = "-"
"""Stands for the name of the machine, which concerns nobody else."""
_MADE_OF_POSTS = (ArtifactKind.raw_dataset, ArtifactKind.train_dataset)


class WandbSession:
    """The W&B runs of one job. Every failure is a warning and never more."""

    def __init__(self, tell: Told, config: TrackingConfig, names: RunNames, pause_s: float) -> None:
        """Start nothing yet.

        Args:
            tell: takes `url` (a phase and its page), `outage` (seconds to leave the server
                alone), `alive`, and `stuck`: a call has not come back.
            config: where to.
            names: of the runs, and where they are kept.
            pause_s: how long to leave the server alone, which did not answer.
        """
        self._config = config
        self._pause_until = time.monotonic() + pause_s
        self._tell = tell
        self._names = names
        self._slug = names.slug
        # Under a sweep's agent W&B gives every run the id of the agent's: of many jobs one is left.
        if not names.is_alone and os.environ.pop("WANDB_SWEEP_ID", ""):
            logger.warning(
                "W&B: this batch has a run per job, and a sweep's agent expects one run; they are "
                "recorded apart, and the sweep sees none; train one job per trial, as user=NAME"
            )
        asked = os.environ.get("WANDB_DIR", "").strip()
        self._folder = expanded(asked) if asked else names.folder
        self._failures: Counter[str] = Counter()
        self._run: Any = None
        self._uploads: list[Any] = []
        self._has_restarted = False
        self._is_online = False
        """Whether calls go to the server just now, and not only to the disk."""

    def open(self, phase: Phase, config: Mapping[str, Any]) -> None:
        """Start the run of a phase: online if that is asked for and possible, else offline."""
        self.close()
        if phase is Phase.preprocess and os.environ.get("WANDB_SWEEP_ID"):
            return  # the agent of a W&B sweep has named one run, and that is the training's
        self._is_online = self._is_online_wanted()
        if self._is_online and self._answers():
            self._run = self._try("online run", lambda: self._init(phase, config, "online"))
            if self._run is not None:
                self._tell("url", (phase, self._run.url))
                return
            self._note_outage()
        self._is_online = False
        self._run = self._try("offline run", lambda: self._init(phase, config, "offline"))

    def close(self, exit_code: int = 0) -> None:
        """Finish the run of the phase, if there is one, when its uploads are through."""
        run, self._run = self._run, None
        if run is None:
            return
        for upload in self._uploads:
            self._await_upload(upload)
        self._uploads.clear()
        self._beside("finish", lambda: run.finish(exit_code=exit_code), FINISH_TIMEOUT_S + 1)
        if not self._is_online:
            folder = Path(run.dir).parent
            self._try("clean-up", lambda: _remove_earlier(folder, run.id))
            logger.info("job=%s recorded offline; send it: wandb sync %s", self._slug, folder)

    def use_artifact(self, artifact: ArtifactSpec) -> None:
        """Draw the edge into the run. Offline W&B refuses that: lineage.json has it."""
        if self._is_online and (run := self._ready_run()):
            built = self._try("artifact", lambda: self._build(artifact))
            self._beside("use_artifact", lambda: built and run.use_artifact(built))

    def log_artifact(self, artifact: ArtifactSpec) -> None:
        """Begin to upload files, or to record them offline by their place."""
        if run := self._ready_run():
            built = self._try("artifact", lambda: self._build(artifact))
            upload = self._beside("log_artifact", lambda: built and run.log_artifact(built))
            if upload is not None and self._is_online:
                self._uploads.append(upload)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record figures."""
        if self._run is not None:
            self._try("log", lambda: self._run.log(metrics, step=step))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""
        if run := self._ready_run():
            self._beside("log_table", lambda: run.log({name: _table(columns, rows)}))

    def _ready_run(self) -> Any:
        """Return the run to write to; None without one, or where its server does not answer."""
        return self._run if not self._is_online or self._answers() else None

    def _is_online_wanted(self) -> bool:
        if choose_mode(self._config.mode) is not WandbMode.online:
            return False
        if not has_credentials():  # W&B would ask for a key on the terminal
            logger.warning(
                "job=%s tracking.mode: got online without a W&B key; recorded offline; "
                "set WANDB_API_KEY or run `wandb login`",
                self._slug,
            )
            return False
        return True

    def _answers(self) -> bool:
        """Whether the server is up. Asked before calls that would try for a minute on their own."""
        if time.monotonic() < self._pause_until:
            return False
        if answers(f"{base_url()}/graphql", timeout_s=PROBE_TIMEOUT_S):
            return True
        self._note_outage()
        logger.warning(
            "job=%s W&B does not answer at %s; what is not sent stays on disk",
            self._slug,
            base_url(),
        )
        return False

    def _note_outage(self) -> None:
        """Leave the server alone for a while, and have the other jobs do so."""
        self._pause_until = time.monotonic() + PAUSE_AFTER_OUTAGE_S
        self._tell("outage", PAUSE_AFTER_OUTAGE_S)

    def _init(
        self, phase: Phase, config: Mapping[str, Any], mode: Literal["online", "offline"]
    ) -> Any:
        import wandb  # heavy

        self._tell("alive", None)
        wanted: dict[str, Any] = {
            "init_timeout": INIT_TIMEOUT_S,
            "finish_timeout": FINISH_TIMEOUT_S,
            "console": "off",
            "silent": True,
            "symlink": False,
            "save_code": False,
            "disable_code": True,
            "disable_git": True,
            "disable_job_creation": True,
            # No argv, host name or list of packages leaves the machine.
            "host": os.environ.get("WANDB_HOST", _NO_HOST),
            "x_disable_meta": True,
            "x_disable_machine_info": True,
            "x_save_requirements": False,
            "x_disable_stats": True,
            # A kill loses at most a second.
            "x_transaction_log_flush_interval": 1.0,
        }
        # Those that begin with x_ are W&B's own, and may go with any version of it.
        known = wandb.Settings.model_fields
        settings = {key: value for key, value in wanted.items() if key in known}
        run_id = self._names.run_id(phase)
        return wandb.init(
            project=self._project(),
            entity=self._config.entity,
            id=run_id,
            resume="allow" if run_id else None,
            name=self._names.name(phase),
            job_type=phase.value,
            group=self._names.group,
            config=without_secrets(config),
            dir=str(self._folder),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )

    def _project(self) -> str:
        """Return the project: as configured, else as the environment says."""
        asked = os.environ.get("WANDB_PROJECT", "").strip()
        is_default = self._config.project == TrackingConfig().project
        return asked if asked and is_default else self._config.project

    def _build(self, artifact: ArtifactSpec) -> Any:
        """Make the W&B artifact of a description; files are not copied, neither now nor after."""
        import wandb

        built = wandb.Artifact(artifact.name, artifact.kind.value)
        if self._config.upload_posts or artifact.kind not in _MADE_OF_POSTS:
            for name, path in files_of(artifact):
                built.add_file(str(path), name=name, policy="immutable", skip_cache=True)
        if artifact.reference is not None:
            built.add_reference(artifact.reference, checksum=False)
        return built

    def _await_upload(self, upload: Any) -> None:
        """Wait as long as the server answers. W&B can be asked to wait only once, and for good."""
        thread = self._start("upload", upload.wait, [])
        while thread.is_alive() and self._answers():
            self._tell("alive", None)
            thread.join(1.0)
        if thread.is_alive():
            self._tell("stuck", None)

    def _try(self, what: str, call: Callable[[], T]) -> T | None:
        """Make a call unless its kind keeps failing. None: it failed."""
        if self._failures[what] >= MAX_FAILURES:
            return None
        try:
            result = call()
        except Exception as err:  # W&B raises a dozen unrelated types, and none may end a job
            self._failures[what] += 1
            logger.warning(
                "job=%s W&B: %s failed%s (%s)",
                self._slug,
                what,
                " and is not tried again" if self._failures[what] == MAX_FAILURES else "",
                f"{type(err).__name__}: {first_line(err)}",
            )
            # As W&B says it when its own process is gone (0.31).
            if isinstance(err, ConnectionError) or type(err).__name__ == "MailboxClosedError":
                self._restart_service()
            return None
        self._failures[what] = 0
        return result

    def _beside(
        self, what: str, call: Callable[[], T], limit_s: float = CALL_TIMEOUT_S
    ) -> T | None:
        """Make a call that may never come back, and go on without it after a while.

        W&B's own time-outs do not hold in every state; the call is left to its thread.
        """
        results: list[T | None] = []
        thread = self._start(what, call, results)
        thread.join(limit_s if self._is_online else None)
        if thread.is_alive():
            self._tell("stuck", None)
        return results[0] if results else None

    def _start(self, what: str, call: Callable[[], T], results: list[T | None]) -> Thread:
        thread = Thread(
            target=lambda: results.append(self._try(what, call)), name="wandb-call", daemon=True
        )
        thread.start()
        return thread

    def _restart_service(self) -> None:
        """Drop W&B's helper process when it has died, so that the next run starts another."""
        if not self._has_restarted:
            import wandb

            self._has_restarted = True
            with suppress(Exception):  # it says that the process is gone, which is why we ask
                wandb.teardown()


def _remove_earlier(folder: Path, run_id: str) -> None:
    """Remove what earlier starts recorded offline of a run: the last one holds all of it."""
    for old in folder.parent.glob("offline-run-*"):
        # offline-run-DATE_TIME-ID, so that an id which only ends alike makes a longer name.
        is_same = old.name.endswith(f"-{run_id}") and len(old.name) == len(folder.name)
        if is_same and old.name < folder.name and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])
