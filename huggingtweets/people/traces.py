"""Where a person is found in an output folder: jobs, and lines and files outside of them."""

import gzip
import html
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingtweets.crowd.record import RECORD as RECORD_OF_CROWD
from huggingtweets.crowd.record import ever_in_crowd
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.handles import Job
from huggingtweets.jobs.ledger import LEDGER_DIR
from huggingtweets.logs import shown
from huggingtweets.people.found_jobs import FoundJob, jobs_below, jobs_of
from huggingtweets.posts.records import read_timelines
from huggingtweets.storage.files import read_jsonl
from huggingtweets.storage.paths import JobPaths

logger = logging.getLogger(__name__)

RECORD = "purged.jsonl"
_LINE_FORMATS = frozenset({".jsonl", ".ndjson", ".txt", ".csv", ".tsv", ".log", ".out", ".err"})
_NO_TEXT = frozenset({".safetensors", ".bin", ".pt", ".pth", ".npy", ".png", ".jpg", ".jpeg"})
"""Weights and pictures; everything else is searched, the files of W&B and TensorBoard too."""
_MAX_TEXT_BYTES = 1 << 30
_NUM_NEEDLES = 200
_MIN_NEEDLE_CHARS = 20


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
    everyone = list(jobs_below(outputs))
    # A crowd goes with every model that began from it, as whatever goes on from a model does.
    crowds = {job.crowd for job in everyone if job.crowd}
    crowds = {folder for folder in crowds if handle in ever_in_crowd(folder)}
    jobs = jobs_of(handle, everyone, crowds)
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
