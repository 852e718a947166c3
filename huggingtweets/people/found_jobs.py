"""The jobs in an output folder that a person is part of, and what went on from these."""

import filecmp
import os
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingtweets.config.schema import CROWD_FOLDER
from huggingtweets.crowd.record import crowd_folder, ever_in_crowd
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.export.hub import RECORD as PUBLISHED
from huggingtweets.handles import Job, parse_handle
from huggingtweets.jobs.ledger import LEDGER_DIR
from huggingtweets.posts.records import read_timelines
from huggingtweets.standing import read_result
from huggingtweets.storage.files import read_flat_yaml, read_json, read_jsonl
from huggingtweets.storage.paths import STUDY_FILES, JobPaths, expanded

_TRIAL = re.compile(r"trial-[0-9]{4,}")


@dataclass(frozen=True)
class FoundJob:
    """A job that the person is part of, or that began from a model of such a job or of a crowd."""

    root: Path
    slug: str
    handles: frozenset[str]
    base: str | None
    """`model.path`."""
    tracking: tuple[str | None, str] = (None, "huggingtweets")
    """Entity and project at W&B."""
    org: str | None = None
    """At the Hub; None: the token's owner."""
    crowd: Path | None = None
    """Folder of the crowd that it began from."""


def is_job(folder: Path) -> bool:
    """Whether a folder is that of a job."""
    return _read_job(folder) is not None


def jobs_below(outputs: Path, note: Callable[[OSError], None]) -> Iterator[FoundJob]:
    """Yield every job folder below a folder; what lies inside of one is its own.

    A job's folder may be a link to another disk, under the job's own name; no other link is
    followed. What cannot be listed is told to `note`.
    """
    for place, names, _ in os.walk(outputs, onerror=note):
        for name in sorted(names):
            path = Path(place) / name
            if path.is_symlink() and not _is_moved_job(path):
                continue
            if name not in (LEDGER_DIR, CROWD_FOLDER) and (job := _read_job(path)):
                yield job
                names.remove(name)
            elif name == "wandb":  # runs, whose files/config.yaml is that of no job
                names.remove(name)


def _read_job(root: Path) -> FoundJob | None:
    """Read what a folder says about itself, however damaged; None: it is not a job."""
    paths = JobPaths(root)
    # Whatever a job writes first or last: a killed one may have left any of these alone.
    marks = (paths.result, paths.config, paths.posts, paths.cleaning, root / ".lock")
    try:
        if is_trial(root) or not any(mark.exists() for mark in marks):
            return None
    except OSError:  # whoever lists the folder next will be told why
        return None
    config = read_flat_yaml(paths.config)
    user = config.get("user")
    handles = set(_handles(user if isinstance(user, list) else [user]))
    with suppress(ValueError, TypeError):
        handles.update(_handles((read_result(paths) or {}).get("handles", ())))
    with suppress(OSError, ValueError, AttributeError):
        handles.update(_handles(read_json(paths.cleaning).keys()))
    if not handles:
        with suppress(HuggingtweetsError):
            handles.update(timeline.handle for timeline in read_timelines(paths.posts))
    if not handles:  # nothing but a name is left
        handles.update(_handles([root.name, *root.name.split("-")]))
    texts = {key: value for key, value in config.items() if isinstance(value, str)}
    warm_start = texts.get("recipe.warm_start")
    return FoundJob(
        root=root,
        slug=root.name,
        handles=frozenset(handles),
        base=texts.get("model.path"),
        tracking=(texts.get("tracking.entity"), texts.get("tracking.project", "huggingtweets")),
        org=texts.get("hub.org"),
        crowd=_crowd_of(warm_start, root) if warm_start else None,
    )


def repositories_of(job: FoundJob) -> set[tuple[str | None, str]]:
    """Return where a job may lie on the Hub, organisation and name: as configured, as recorded.

    `export hub` takes the organisation from its command line and records the address beside the
    job, or in its folder.
    """
    found = {(job.org, job.slug)}
    for record in (job.root.parent / PUBLISHED, job.root / PUBLISHED):
        with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
            for row in read_jsonl(record):
                if row["slug"] == job.slug:
                    org, name = row["url"].rstrip("/").split("/")[-2:]
                    found.add((org, name))
    return found


def pages_of(job: FoundJob) -> list[str]:
    """Return the pages of a job's runs at W&B, as recorded."""
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        return [str(page) for page in read_json(JobPaths(job.root).lineage)["pages"].values()]
    return []


def _crowd_of(warm_start: str, root: Path) -> Path:
    """Return where a job's crowd lies; a relative path was typed in some folder above the job's."""
    folder = crowd_folder(warm_start, root.parent)
    above = [folder, *(parent / folder for parent in root.absolute().parents)]
    return next((place for place in above if ever_in_crowd(place)), folder)


def _is_moved_job(link: Path) -> bool:
    """Whether a link stands in the place of a job's folder that was moved elsewhere."""
    job = _read_job(link) if link.is_dir() else None
    if job is None:
        return False
    with suppress(HuggingtweetsError):
        return Job.of(job.handles).slug == link.name
    return False


def is_trial(root: Path) -> bool:
    """Whether a folder is that of a sweep's trial, which may hold the jobs of several people."""
    # The name first: `purge` asks this of every file that it meets.
    is_named = _TRIAL.fullmatch(root.name) is not None
    return is_named and any((root.parent / name).exists() for name in STUDY_FILES)


def _handles(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            with suppress(HuggingtweetsError):
                yield parse_handle(value)


def jobs_of(
    handle: str, jobs: Sequence[FoundJob], crowds: AbstractSet[Path | None]
) -> list[FoundJob]:
    """Choose the person's jobs, and those that went on from one of these, whoever they are of.

    `crowds` are those with posts of the person.
    """
    chosen = [job for job in jobs if handle in job.handles or job.crowd in crowds]
    while True:
        more = [job for job in jobs if job not in chosen and _is_made_from(job, chosen)]
        if not more:
            return chosen
        chosen += more


def _is_made_from(job: FoundJob, others: Sequence[FoundJob]) -> bool:
    """Whether the base of a job is the model of one of the others: itself, a copy, or published."""
    if not job.base or not others:
        return False
    models = [JobPaths(other.root).model for other in others]
    places = _base_places(job)
    if {place.resolve() for place in places} & {model.resolve() for model in models}:
        return True
    if any(_is_copy(place, model) for place in places for model in models):
        return True
    org, _, name = job.base.rpartition("/")
    is_on_hub = bool(org) and "/" not in org and not any(place.exists() for place in places)
    return is_on_hub and any(
        not {(None, name), (org, name)}.isdisjoint(repositories_of(other)) for other in others
    )


def _base_places(job: FoundJob) -> list[Path]:
    """Where the base may be: a relative path was typed in some folder above the job's."""
    base = expanded(job.base or "")
    if base.is_absolute():
        return [base]
    return [Path.cwd() / base, *(above / base for above in job.root.absolute().parents)]


def _is_copy(folder: Path, model: Path) -> bool:
    with suppress(OSError):
        for weights in model.glob("*.safetensors"):
            if filecmp.cmp(weights, folder / weights.name, shallow=False):
                return True
    return False
