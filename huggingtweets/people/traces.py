"""Where a person is found in an output folder: jobs, and lines and files outside of them."""

import filecmp
import gzip
import html
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from huggingtweets.crowd.record import FOLDER, crowd_folder, ever_in_crowd
from huggingtweets.crowd.record import RECORD as RECORD_OF_CROWD
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.handles import Job, parse_handle
from huggingtweets.jobs.ledger import LEDGER_DIR
from huggingtweets.logs import shown
from huggingtweets.posts.records import read_timelines
from huggingtweets.standing import read_result
from huggingtweets.storage.files import read_json, read_jsonl
from huggingtweets.storage.paths import JobPaths

logger = logging.getLogger(__name__)

RECORD = "purged.jsonl"
_LINE_FORMATS = frozenset({".jsonl", ".ndjson", ".txt", ".csv", ".tsv", ".log", ".out", ".err"})
_NO_TEXT = frozenset({".safetensors", ".bin", ".pt", ".pth", ".npy", ".png", ".jpg", ".jpeg"})
"""Weights and pictures; everything else is searched, the files of W&B and TensorBoard too."""
_MAX_TEXT_BYTES = 1 << 30
_TRIAL = re.compile(r"trial-[0-9]{4,}")
_NUM_NEEDLES = 200
_MIN_NEEDLE_CHARS = 20


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


@dataclass(frozen=True)
class Traces:
    """All that is to go."""

    handle: str
    outputs: Path
    jobs: tuple[FoundJob, ...]
    files: tuple[Path, ...]
    """To be deleted; folders among them with all that is in them."""
    lines: tuple[tuple[Path, int], ...]
    """Files to be rewritten, and how many lines each loses."""
    links: tuple[Path, ...] = ()
    """Folders elsewhere that are linked from here; they stay as they are."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not (self.jobs or self.files or self.lines)


def find_traces(handle: str, outputs: Path) -> Traces:
    """Look through an output folder. Changes nothing.

    Jobs of other people are left alone, what their posts say about the person included.

    Args:
        handle: canonical.
        outputs: the folder, batches and sweeps below it included.
    """
    everyone = list(_jobs_below(outputs))
    # A crowd goes with every model that began from it, as whatever goes on from a model does.
    crowds = {job.crowd for job in everyone if job.crowd}
    crowds = {folder for folder in crowds if handle in ever_in_crowd(folder)}
    jobs = _of_person(handle, everyone, crowds)
    roots = {job.root for job in jobs}
    others = {job.root for job in everyone} - roots
    finder = Finder(handle, jobs, needles_of(handle, jobs))
    files = [folder for folder in sorted(crowds) if folder.is_dir()]
    lines: list[tuple[Path, int]] = []
    for path in _outside(outputs, roots | others, finder):
        if any(folder in path.parents for folder in files):
            continue
        if path.name == RECORD_OF_CROWD and handle in ever_in_crowd(path.parent):
            files.append(path.parent)
        elif finder.names(path):
            files.append(path)
        elif num_lines := finder.count(path):
            if is_made_of_lines(path):
                lines.append((path, num_lines))
            else:
                files.append(path)
    links = tuple(_links_elsewhere(outputs, roots | others))
    return Traces(handle, outputs, tuple(jobs), tuple(files), tuple(lines), links)


# --- Jobs


def is_job(folder: Path) -> bool:
    """Whether a folder is that of a job."""
    return _read_job(folder) is not None


def _jobs_below(outputs: Path) -> Iterator[FoundJob]:
    """Yield every job folder below a folder; what lies inside of one is its own.

    A job's folder may be a link to another disk, under the job's own name; no other link is
    followed.
    """
    for place, names, _ in os.walk(outputs):
        for name in sorted(names):
            path = Path(place) / name
            if path.is_symlink() and not _is_moved_job(path):
                continue
            if name not in (LEDGER_DIR, FOLDER) and (job := _read_job(path)):
                yield job
                names.remove(name)


def _read_job(root: Path) -> FoundJob | None:
    """Read what a folder says about itself, however damaged; None: it is not a job."""
    paths = JobPaths(root)
    marks = (paths.result, paths.config, paths.posts, paths.cleaning, root / ".lock")
    if _is_trial(root) or not any(mark.exists() for mark in marks):
        return None
    config = _config(paths.config)
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
    model, tracking, hub, recipe = (
        _part(config, key) for key in ("model", "tracking", "hub", "recipe")
    )
    warm_start = recipe.get("warm_start")
    base, org = model.get("path"), hub.get("org")
    entity, project = tracking.get("entity"), tracking.get("project")
    return FoundJob(
        root=root,
        slug=root.name,
        handles=frozenset(handles),
        base=base if isinstance(base, str) else None,
        tracking=(entity, project if isinstance(project, str) else "huggingtweets"),
        org=org if isinstance(org, str) else None,
        crowd=_crowd_of(warm_start, root) if isinstance(warm_start, str) else None,
    )


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


def _is_trial(root: Path) -> bool:
    """Whether a folder is that of a sweep's trial, which may hold the jobs of several people."""
    studies = (root.parent / "study.db", root.parent / "study.journal")
    return bool(_TRIAL.fullmatch(root.name)) and any(study.exists() for study in studies)


def _config(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, yaml.YAMLError):
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
    return {}


def _part(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _handles(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            with suppress(HuggingtweetsError):
                yield parse_handle(value)


def _of_person(
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
    published = (other for other in others if other.org in (None, org))
    is_on_hub = bool(org) and "/" not in org and not any(place.exists() for place in places)
    return is_on_hub and any(other.slug == name for other in published)


def _base_places(job: FoundJob) -> list[Path]:
    """Where the base may be: a relative path was typed in some folder above the job's."""
    base = Path(job.base or "").expanduser()
    if base.is_absolute():
        return [base]
    return [Path.cwd() / base, *(above / base for above in job.root.absolute().parents)]


def _is_copy(folder: Path, model: Path) -> bool:
    with suppress(OSError):
        for weights in model.glob("*.safetensors"):
            if filecmp.cmp(weights, folder / weights.name, shallow=False):
                return True
    return False


# --- What lies outside of jobs


def _outside(outputs: Path, roots: set[Path], finder: "Finder") -> Iterator[Path]:
    """Yield files in no job's folder, and links and folders without jobs that bear the name."""
    for place, names, files in os.walk(outputs):
        for name in sorted(names):
            path = Path(place) / name
            has_jobs = path in roots or any(path in root.parents for root in roots)
            if not has_jobs and finder.names(path):
                yield path
                names.remove(name)
            elif path in roots or path.is_symlink():
                names.remove(name)
        for path in (Path(place) / name for name in sorted(files)):
            is_record = path == outputs / RECORD
            if not is_record and (finder.names(path) or not path.is_symlink()):
                yield path


def _links_elsewhere(outputs: Path, roots: set[Path]) -> Iterator[Path]:
    """Yield links to folders that are not looked into."""
    top = outputs.resolve()
    for place, names, _ in os.walk(outputs):
        for name in names:
            path = Path(place) / name
            if path.is_symlink() and path not in roots and top not in path.resolve().parents:
                yield path
        names[:] = [name for name in names if Path(place) / name not in roots]


def is_made_of_lines(path: Path) -> bool:
    """Whether single lines can be taken out of a file."""
    return Path(path.name.removesuffix(".gz")).suffix.lower() in _LINE_FORMATS


def read_text_bytes(path: Path) -> bytes:
    """Return a file's content, unpacked; empty for weights, pictures, the huge and the damaged."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".parquet":
        return _read_table(path)
    if suffix in _NO_TEXT or path.stat().st_size > _MAX_TEXT_BYTES:
        return b""
    if path.suffix != ".gz":
        return path.read_bytes()
    with suppress(OSError, EOFError, zlib.error), gzip.open(path) as file:
        return file.read(_MAX_TEXT_BYTES)
    return b""


def _read_table(path: Path) -> bytes:
    """Return the rows of a Parquet file, which packs them, as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with suppress(OSError, pa.ArrowException):
        return json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
    return b""


class Finder:
    """Tells whether a file, or a line of one, is about the person."""

    def __init__(self, handle: str, jobs: Sequence[FoundJob], needles: Sequence[bytes]) -> None:
        """Prepare to look for a handle, the slugs of jobs, and posts."""
        own = (job.slug for job in jobs if handle in job.handles)
        slugs = {Job.of([handle]).slug, *own}
        words = b"|".join(re.escape(word.encode()) for word in sorted({handle, *slugs}))
        self._word = re.compile(rb"(?<![A-Za-z0-9_])(?:" + words + rb")(?![A-Za-z0-9_])", re.I)
        self._handle = handle.encode()
        self._needles = tuple(needles)

    def names(self, path: Path) -> bool:
        """Whether the person stands in the name of a file or folder."""
        return bool(self._word.search(os.fsencode(path.name)))

    def is_about(self, text: bytes, path: Path) -> bool:
        """Whether the person, or one of the posts, stands in a text of this file."""
        if path.parent.name == LEDGER_DIR:  # only what is said there, not the words of its form
            with suppress(ValueError, AttributeError):
                row = json.loads(text)
                text = f"{row.get('slug')} {row.get('reason')}".encode()
        if self._word.search(text):
            return True
        return any(needle in text for needle in self._needles)

    def count(self, path: Path) -> int:
        """Return how many lines of a file, or whether (1) a file, are about the person."""
        try:
            data = read_text_bytes(path)
        except OSError as err:
            logger.warning("%s cannot be looked into (%s)", path, err.strerror)
            return 0
        # In records of W&B and TensorBoard a length, which may be a letter, stands before a text.
        is_named = self._handle in data.lower() if b"\0" in data else self._word.search(data)
        if not (is_named or any(needle in data for needle in self._needles)):
            return 0
        if not is_made_of_lines(path):
            return 1
        return sum(self.is_about(line, path) for line in data.split(b"\n"))


def needles_of(handle: str, jobs: Sequence[FoundJob]) -> list[bytes]:
    """Return the person's longest posts, and samples of their models, as bytes, JSON and HTML."""
    texts: set[str] = set()
    for job in jobs:
        if handle in job.handles:
            texts.update(_samples(JobPaths(job.root).predictions))
        with suppress(HuggingtweetsError):
            for timeline in read_timelines(JobPaths(job.root).posts):
                if timeline.handle == handle:
                    texts.update(post.text for post in timeline.posts)
    longest = sorted((text for text in texts if len(text) >= _MIN_NEEDLE_CHARS), key=len)
    forms: list[str] = []
    for text in longest[-_NUM_NEEDLES:]:
        forms += [text, json.dumps(text)[1:-1], html.escape(text), html.escape(text, quote=False)]
    return [form.encode("utf-8", "replace") for form in dict.fromkeys(forms)]


def _samples(path: Path) -> Iterator[str]:
    """Yield the texts that a model has written."""
    with suppress(OSError, ValueError):
        for row in read_jsonl(path):
            if isinstance(row, dict) and isinstance(row.get("prediction"), str):
                yield row["prediction"]


def traces_lines(traces: Traces) -> list[str]:
    """Return what to show before anything is deleted."""
    lines = [
        f"  job     {job.root}"
        + (f" (with {len(job.handles) - 1} other people)" if len(job.handles) > 1 else "")
        + ("" if traces.handle in job.handles else " (made from a model of this person)")
        for job in traces.jobs
    ]
    lines += [f"  file    {path}" for path in traces.files]
    lines += [f"  lines   {num} of {path}" for path, num in traces.lines]
    lines += [
        f"  link    {path} leads to {path.resolve()}, which is not looked into; purge there too"
        for path in traces.links
    ]
    return [shown(line) for line in lines]
