"""Delete from W&B what jobs have put there: runs, and the artifacts of posts and models."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

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
_PAGE = re.compile(r"/([^/]+/[^/]+)/runs/([^/?#]+)")


def delete_online(jobs: Sequence[tuple[str | None, str, str, Sequence[str]]]) -> int:
    """Delete runs and artifacts of jobs; return how many there were.

    Args:
        jobs: entity (None: the default one), project and slug of each, and the recorded pages of
            its runs, which tell better where and what they are: the environment may have had
            another project and other names.

    Raises:
        TrackingError: W&B refuses or does not answer; some may be deleted.
    """
    import wandb

    try:
        api = wandb.Api(timeout=_TIMEOUT_S)
        deleted = 0
        for entity, project, slug, pages in jobs:
            places = _runs_of(pages) or {f"{entity or api.default_entity}/{project}": []}
            for place, run_ids in places.items():
                deleted += _delete_job(api, place, slug, run_ids)
        return deleted
    except (wandb.Error, OSError, ValueError) as err:
        said = " ".join(redact(str(err)).split())[:200]
        raise TrackingError(
            f"purge --wandb: W&B did not delete everything ({said}); expected it to; check "
            "WANDB_API_KEY, or run the command again"
        ) from err


def _runs_of(pages: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the ids of the runs of some pages, by entity and project."""
    found: dict[str, list[str]] = {}
    for page in filter(None, map(_PAGE.search, pages)):
        found.setdefault(unquote(page[1]), []).append(unquote(page[2]))
    return found


def _delete_job(api: Any, project: str, slug: str, run_ids: Sequence[str]) -> int:
    names = [run_name(slug, phase) for phase in Phase]
    is_one = [{"display_name": {"$in": names}}, {"name": {"$in": run_ids}}]  # its name is its id
    runs = list(api.runs(project, filters={"$or": is_one}))
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
