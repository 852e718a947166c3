"""What a tracker is, and what it is told: phases, artifacts, metrics. No tracker is chosen here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from huggingtweets.logs import SECRET_KEY, redact


class Phase(StrEnum):
    """The two recorded parts of a job, a batch, a trial; the name is also W&B's job type."""

    preprocess = "preprocess"
    train = "train"
    batch = "batch"
    """All users in one table: `tracking.per_user=false`."""
    trial = "trial"
    """One trial of a sweep, all its users together."""


class ArtifactKind(StrEnum):
    """The artifact types of the original system."""

    raw_dataset = "raw-dataset"
    train_dataset = "train-dataset"
    pretrained_model = "pretrained-model"
    finetuned_model = "finetuned-model"


@dataclass(frozen=True)
class ArtifactSpec:
    """Something a phase uses or makes. Its files must stay as they are until `Tracker.finish`."""

    name: str
    kind: ArtifactKind
    paths: tuple[Path, ...] = ()
    """Files, and folders whose visible files belong to it."""
    reference: str | None = None
    """Where it comes from when its files are not ours to keep, as a URL."""


def tweets_artifact(slug: str, *paths: Path) -> ArtifactSpec:
    """Describe the posts as received, masked where training masks."""
    return ArtifactSpec(f"tweets-{slug}", ArtifactKind.raw_dataset, paths)


def dataset_artifact(slug: str, *paths: Path) -> ArtifactSpec:
    """Describe what is trained on."""
    return ArtifactSpec(f"dataset-{slug}", ArtifactKind.train_dataset, paths)


def base_artifact(model_path: str | None) -> ArtifactSpec:
    """Describe a base model: a name on the Hub, a local folder, or None for the tiny one."""
    name = model_path or "tiny"
    is_hub_name = model_path is not None and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII)
    if is_hub_name and not Path(name).exists():
        reference = f"https://huggingface.co/{name}"
        safe_name = name.replace("/", "-")
    else:
        reference = None
        safe_name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(name).name).strip("-") or "base"
    # W&B takes names of at most 128 characters.
    return ArtifactSpec(safe_name[:120], ArtifactKind.pretrained_model, reference=reference)


def model_artifact(slug: str, *folders: Path) -> ArtifactSpec:
    """Describe the finished model folder."""
    return ArtifactSpec(slug, ArtifactKind.finetuned_model, folders)


class Tracker:
    """Records one job; this one nothing. No call waits for a network, and no fault ends a job."""

    def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
        """Begin a phase, ending the one before; `config` holds its hyperparameters."""

    def use_artifact(self, artifact: ArtifactSpec) -> None:
        """Record that the phase reads an artifact."""

    def log_artifact(self, artifact: ArtifactSpec) -> None:
        """Record that the phase made an artifact."""

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Record figures such as `train/loss` after an optimizer step; None is left out."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table of texts and numbers."""

    def urls(self) -> dict[Phase, str]:
        """Return the pages known so far where people can look at the phases."""
        return {}

    def finish(self, *, succeeded: bool = True) -> None:
        """End the job and send what can be sent in bounded time, which alone is waited for."""


def run_name(slug: str, phase: Phase) -> str:
    """Name a phase: in lineage.json and as a W&B run."""
    return f"@{slug}-{phase}"


def files_of(artifact: ArtifactSpec) -> list[tuple[str, Path]]:
    """List an artifact's files with their names inside it; no hidden file and no link."""
    files = []
    for path in artifact.paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            is_hidden = any(part.startswith(".") for part in name.split("/"))
            if file.is_file() and not file.is_symlink() and not is_hidden:
                files.append((name, file))
    return files


def without_secrets(value: Any) -> Any:
    """Copy plain values for the record: keys that name a secret dropped, texts redacted."""
    if isinstance(value, Mapping):
        # A revision is a commit: 40 hexadecimal digits, as a key of W&B is.
        return {
            str(key): item if key == "revision" else without_secrets(item)
            for key, item in value.items()
            if not SECRET_KEY.search(str(key))
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))
