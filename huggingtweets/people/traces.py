"""Where a person is found in an output folder: jobs, and lines and files outside of them."""

import errno
import gzip
import html
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingtweets.config.compose import dump_config
from huggingtweets.config.schema import CROWD_FOLDER, TrainConfig
from huggingtweets.crowd.record import RECORD as RECORD_OF_CROWD
from huggingtweets.crowd.record import ever_in_crowd
from huggingtweets.errors import HuggingtweetsError
from huggingtweets.export.hub import RECORD as PUBLISHED
from huggingtweets.handles import Job
from huggingtweets.jobs.ledger import LEDGER_DIR
from huggingtweets.logs import shown
from huggingtweets.people.found_jobs import FoundJob, is_trial, jobs_below, jobs_of
from huggingtweets.posts.records import read_timelines
from huggingtweets.storage.files import read_jsonl
from huggingtweets.storage.paths import STUDY_FILES, JobPaths

RECORD = "purged.jsonl"
INDEX_FILES = frozenset({"index.html", "results.csv", "results.parquet"})
"""Of all jobs of a folder together."""
LOGS = frozenset({".log", ".out", ".err"})
_LINE_FORMATS = LOGS | {".jsonl", ".ndjson", ".txt", ".csv", ".tsv"}
_NO_TEXT = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".npy", ".png", ".jpg", ".jpeg", ".prom"}
)
"""Weights, pictures and gauges; everything else is searched, files of W&B and TensorBoard too."""
_OF_SWEEPS = frozenset(
    {*STUDY_FILES, "sweep.json", "trial.json", "trial.yaml", "config.yaml", "best.yaml"}
)
"""Whose people are users, parts of a path or name, keys of objects, or words of a text that is not
there by default; else a word is the name or the value of a setting."""
_CHOICES = re.compile(rb'"choices": \[[^\]\0]*\]')
_FOLDED = re.compile(rb"\n[ \t]+(?![ \t]|- |[\w.]+:(?:[ \r\n]|$))")
"""Where a long value goes on in the next line of YAML."""
_NAMING_KEYS = (
    rb"(?:user|name|\w*(?:path|_dir|_file|_url|_id)|\w+_split|shard|revision|warm_start|project|entity|"
    rb"org)"
)
_OURS = (
    INDEX_FILES
    | _OF_SWEEPS
    | {LEDGER_DIR, CROWD_FOLDER, PUBLISHED, RECORD, ".wandb", "wandb", "tensorboard"}
    | {"posts", "logs", "configs"}
    | {"grid.html", "compare.html", "report.html", "export.csv", "export.parquet", "users.txt"}
)
"""Names that the project gives to what is of all people, whatever these are called."""
_SUFFIXES = (
    b"jsonl|ndjson|json|csv|tsv|txt|log|out|err|html?|ya?ml|md|parquet|db|sqlite|journal|zip|gz|tar|"
    b"tgz|bz2|xz|zst|png|jpe?g|webp|gif|svg|pdf|safetensors|gguf|bin|pth?|np[yz]|wandb|git|ipynb|"
    b"prom|lock|tmp|bak|old|orig|swp"
)
_NO_LONGER_HANDLE = rb"(?![.@](?!(?:" + _SUFFIXES + rb"|\d+)(?![A-Za-z0-9_-]))[A-Za-z0-9])"
"""`alice.jsonl` is of alice; alice.bsky.social and alice@mastodon.social are other people."""
_ENDINGS = re.compile(rb"(?:\.(?:" + _SUFFIXES + rb"))+$", re.I)
_LOG_HEAD = re.compile(rb"^\d\d:\d\d:\d\d [A-Z]+ ")
_MAX_TEXT_BYTES = 1 << 30
_NUM_NEEDLES = 200
"""Each file is searched for every one of them."""
_MIN_NEEDLE_CHARS = 20
"""What is shorter, others say in the same words."""


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
    links: tuple[Path, ...]
    """To files and folders elsewhere; these stay as they are."""
    unread: Mapping[Path, str]
    """What could not be looked into, and why."""
    finder: "Finder"

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
    unread: dict[Path, str] = {}

    def note(err: OSError) -> None:
        unread[Path(err.filename)] = err.strerror or str(err)

    everyone = list(jobs_below(outputs, note))
    # A crowd goes with every model that began from it, as whatever goes on from a model does.
    crowds = {job.crowd for job in everyone if job.crowd}
    crowds = {folder for folder in crowds if handle in ever_in_crowd(folder)}
    jobs = jobs_of(handle, everyone, crowds)
    roots = {job.root for job in jobs}
    others = {job.root for job in everyone} - roots
    finder = Finder(handle, jobs, unread)
    files = [folder for folder in sorted(crowds) if folder.is_dir()]
    lines: list[tuple[Path, int]] = []
    for path in _outside(outputs, roots | others, finder, note):
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
    links = tuple(_links_elsewhere(outputs, roots, others))
    return Traces(handle, outputs, tuple(jobs), tuple(files), tuple(lines), links, unread, finder)


def _outside(
    outputs: Path, roots: set[Path], finder: "Finder", note: Callable[[OSError], None]
) -> Iterator[Path]:
    """Yield files in no job's folder, and links and folders without jobs that bear the name."""
    for place, names, files in os.walk(outputs, onerror=note):
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


def _links_elsewhere(
    outputs: Path, roots: AbstractSet[Path], others: AbstractSet[Path]
) -> Iterator[Path]:
    """Yield links to what is not looked into, in the jobs that go and outside of all jobs.

    Args:
        outputs: the folder.
        roots: of the jobs that go.
        others: of those that stay.
    """
    moved = [root for root in roots if root.is_symlink()]
    looked_into = {target_of(folder) for folder in (outputs, *moved)}
    for folder in (outputs, *moved):
        for place, names, files in os.walk(folder):
            names[:] = [name for name in names if Path(place) / name not in others]
            for path in (Path(place) / name for name in (*names, *files)):
                is_link = path.is_symlink() and path not in roots
                target = target_of(path)
                if is_link and looked_into.isdisjoint((target, *target.parents)):
                    yield path


def target_of(link: Path) -> Path:
    """Return where a link leads in the end; of links in a circle, one of them."""
    return Path(os.path.realpath(link))


def is_made_of_lines(path: Path) -> bool:
    """Whether single lines can be taken out of a file."""
    return Path(path.name.removesuffix(".gz")).suffix.lower() in _LINE_FORMATS


def read_text_bytes(path: Path) -> bytes:
    """Return a file's content, unpacked; empty for weights, pictures and gauges.

    Raises:
        OSError: it cannot be read, is damaged, or is too large.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in _NO_TEXT or not path.is_file():  # a pipe would be waited for
        return b""
    try:
        if suffix == ".parquet":
            return _read_table(path)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MAX_TEXT_BYTES + 1)
    except (EOFError, zlib.error, ValueError) as err:
        raise OSError(errno.EIO, f"damaged: {err}", str(path)) from err
    if len(data) > _MAX_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"has more than {_MAX_TEXT_BYTES >> 20} MiB", str(path))
    return data


def _read_table(path: Path) -> bytes:
    """Return the rows of a Parquet file, which packs them, as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
    except pa.ArrowException as err:
        raise ValueError(err) from err


class Finder:
    """Tells whether a file, or a line of one, is about the person."""

    def __init__(self, handle: str, jobs: Sequence[FoundJob], unread: dict[Path, str]) -> None:
        """Prepare to look for a handle, the slugs of jobs, and posts, while these are there.

        Args:
            handle: canonical.
            jobs: that go; those of the person among them.
            unread: what could not be looked into, and why; more is added.
        """
        own = (job.slug for job in jobs if handle in job.handles)
        # As typed, alice.mastodon.social is alice@mastodon.social.
        names = {handle, handle.replace(".", "@", 1), Job.of([handle]).slug, *own}
        word = b"(?:" + b"|".join(re.escape(name.encode()) for name in sorted(names)) + b")"
        before, after = rb"(?<![A-Za-z0-9_])", rb"(?![A-Za-z0-9_])"
        word += _NO_LONGER_HANDLE
        self._word = re.compile(before + word + after, re.I)
        # In records of W&B and TensorBoard a length, which may be a letter, stands before a text,
        # and after it the head of the next field, which is none of these.
        no_field = rb"(?![0-9_cdfgklnostvw])"
        in_records = rb"(?<!_)" + word + after + b"|" + before + word + no_field
        self._in_records = re.compile(in_records, re.I)
        named = rb'"(?:[\w.]+\.)?' + _NAMING_KEYS + rb'"\s*:\s*"[^"]*?' + before + word + after
        in_json = rb'(?<!:)(?<!: )"' + word + rb'"\s*(?::\s*\{|[,\]])|' + named
        key = rb"^\s*(?:- |" + _NAMING_KEYS + rb": (?!null$)|\w+: (?!" + word + rb"\s*$))"
        in_yaml = key + rb".*?" + before + word + after
        self._in_sweeps = re.compile(in_json + b"|" + in_yaml, re.I | re.M)
        self._needles = _needles_of(handle, jobs)
        self.unread = unread

    def names(self, path: Path) -> bool:
        """Whether the person stands in the name of a file or folder that is not of all people."""
        places = {path.parent.name, path.parent.parent.name}
        if path.name in _OURS or is_trial(path) or not places.isdisjoint((LEDGER_DIR, "wandb")):
            return False
        return bool(self._word.search(_ENDINGS.sub(b"", os.fsencode(path.name))))

    def is_about(self, text: bytes, path: Path) -> bool:
        """Whether the person, or one of the posts, stands in a text of this file."""
        if path.parent.name == LEDGER_DIR:  # only what is said there, not the words of its form
            with suppress(ValueError, AttributeError):
                row = json.loads(text)
                text = f"{row.get('slug')} {row.get('reason')}".encode()
        if self._word.search(_LOG_HEAD.sub(b"", text)):
            return True
        return any(needle in text for needle in self._needles)

    def count(self, path: Path) -> int:
        """Return how many lines of a file, or whether (1) a file, are about the person."""
        try:
            data = read_text_bytes(path)
        except OSError as err:
            self.unread[path] = err.strerror or str(err)
            return 0
        if path.name in _OF_SWEEPS and "wandb" not in path.parts:
            lines = _FOLDED.sub(b" ", _CHOICES.sub(b"", data)).splitlines()
            told = b"\n".join(line for line in lines if line not in _default_lines())
            is_named = self._in_sweeps.search(told)
        else:
            is_named = (self._in_records if b"\0" in data else self._word).search(data)
        if not (is_named or any(needle in data for needle in self._needles)):
            return 0
        if not is_made_of_lines(path):
            return 1
        return sum(self.is_about(line, path) for line in data.split(b"\n"))


@cache
def _default_lines() -> frozenset[bytes]:
    """Return the lines of a configuration in which nothing was set."""
    return frozenset(_FOLDED.sub(b" ", dump_config(TrainConfig()).encode()).splitlines())


def _needles_of(handle: str, jobs: Sequence[FoundJob]) -> list[bytes]:
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
        f"  link    {path} leads to {target_of(path)}, which is not looked into; purge there too"
        for path in traces.links
    ]
    lines += [
        f"  unread  {path} ({why}); make it readable and run this again, or look into it yourself"
        for path, why in traces.unread.items()
    ]
    return [shown(line) for line in lines]
