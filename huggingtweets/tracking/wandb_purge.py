"""Delete from W&B what jobs have put there: runs, and the artifacts of posts and models."""

from collections.abc import Sequence
from typing import Any

from huggingtweets.errors import TrackingError
from huggingtweets.logs import redact
from huggingtweets.tracking.base import (
    Phase,
    dataset_artifact,
    model_artifact,
    run_name,
    tweets_artifact,
)

_TIMEOUT_S = 30


def delete_online(jobs: Sequence[tuple[str | None, str, str]]) -> int:
    """Delete runs and artifacts of jobs; return how many there were.

    Args:
        jobs: entity (None: the default one), project and slug of each.

    Raises:
        TrackingError: W&B refuses or does not answer; some may be deleted.
    """
    import wandb

    try:
        api = wandb.Api(timeout=_TIMEOUT_S)
        return sum(
            _delete_job(api, f"{entity or api.default_entity}/{project}", slug)
            for entity, project, slug in jobs
        )
    except (wandb.Error, OSError, ValueError) as err:
        said = " ".join(redact(str(err)).split())[:200]
        raise TrackingError(
            f"purge --wandb: W&B did not delete everything ({said}); expected it to; check "
            "WANDB_API_KEY, or run the command again"
        ) from err


def _delete_job(api: Any, project: str, slug: str) -> int:
    names = [run_name(slug, phase) for phase in Phase]
    runs = list(api.runs(project, filters={"display_name": {"$in": names}}))
    artifacts = (tweets_artifact(slug), dataset_artifact(slug), model_artifact(slug))
    collections = [
        (one.kind.value, f"{project}/{one.name}")
        for one in artifacts
        if api.artifact_collection_exists(f"{project}/{one.name}", one.kind.value)
    ]
    for kind, name in collections:
        api.artifact_collection(kind, name).delete()
    for run in runs:
        run.delete(delete_artifacts=True)
    return len(collections) + len(runs)
