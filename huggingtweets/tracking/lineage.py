"""lineage.json: which phase used and made what. Written for every job, whatever the tracker."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingtweets.storage.files import read_json, write_json
from huggingtweets.tracking.base import ArtifactSpec, Phase, Tracker, files_of, run_name

logger = logging.getLogger(__name__)

MAX_HASHED_BYTES = 16 * 2**20
"""Larger files are recorded by size alone: hashing weights would cost seconds per job."""


class LineageTracker(Tracker):
    """Passes everything on to another tracker and keeps the edges in a file of the job.

    What an earlier attempt at the same job recorded stays, each edge once.
    """

    def __init__(self, inner: Tracker, path: Path, slug: str) -> None:
        """Read the file of an earlier attempt, if there is one."""
        self._inner = inner
        self._path = path
        self._slug = slug
        self._run = ""
        self._edges: list[dict[str, str]] = []
        self._artifacts: dict[str, dict[str, Any]] = {}
        self._pages: dict[str, str] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            old = read_json(path)
            self._artifacts, self._pages = dict(old["artifacts"]), dict(old["pages"])
            self._edges = [dict(edge) for edge in old["edges"]]

    def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
        """Begin a phase, and save what is known."""
        self._run = run_name(self._slug, phase)
        self._inner.start_phase(phase, config)
        self._save()

    def use_artifact(self, artifact: ArtifactSpec) -> None:
        """Record an edge into the phase."""
        self._add("input", artifact)
        self._inner.use_artifact(artifact)

    def log_artifact(self, artifact: ArtifactSpec) -> None:
        """Record an edge out of the phase."""
        self._add("output", artifact)
        self._inner.log_artifact(artifact)

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Pass on."""
        self._inner.log_metrics(metrics, step=step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Pass on."""
        self._inner.log_table(name, columns, rows)

    def urls(self) -> dict[Phase, str]:
        """Pass on."""
        return self._inner.urls()

    def finish(self, *, succeeded: bool = True) -> None:
        """Save, with the pages of the phases."""
        self._inner.finish(succeeded=succeeded)
        self._save()

    def _add(self, direction: str, artifact: ArtifactSpec) -> None:
        edge = {"run": self._run, "direction": direction, "artifact": artifact.name}
        if edge not in self._edges:
            self._edges.append(edge)
        if direction == "output" or artifact.name not in self._artifacts:
            with suppress(OSError):  # a disk that fails ends no job here
                self._artifacts[artifact.name] = _describe(artifact)

    def _save(self) -> None:
        known = {run_name(self._slug, phase): url for phase, url in self.urls().items()}
        saved = {"edges": self._edges, "artifacts": self._artifacts, "pages": self._pages | known}
        try:
            write_json(self._path, saved)
        except (OSError, ValueError) as err:
            logger.warning("job=%s lineage not saved: %s", self._slug, err)


def _describe(artifact: ArtifactSpec) -> dict[str, Any]:
    return {
        "type": artifact.kind.value,
        "reference": artifact.reference,
        "files": {name: _fingerprint(path) for name, path in files_of(artifact)},
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MAX_HASHED_BYTES:
        return {"bytes": size}
    return {"bytes": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
