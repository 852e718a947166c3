"""Forget a person: delete what `traces` found, caches included, and keep a record without names."""

import filecmp
import gzip
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from huggingtweets.config.posts_schema import SERVICES
from huggingtweets.errors import LaunchError, StorageError
from huggingtweets.jobs.ledger import LEDGER_DIR
from huggingtweets.jobs.status import not_done, read_states
from huggingtweets.people.found_jobs import FoundJob, is_job
from huggingtweets.people.traces import (
    INDEX_FILES,
    LOGS,
    RECORD,
    Finder,
    Traces,
    find_traces,
    is_made_of_lines,
    read_text_bytes,
    target_of,
)
from huggingtweets.posts.optout import handle_hash
from huggingtweets.posts.reading.by_handle import name_key, user_of
from huggingtweets.posts.sources.load import SUFFIXES
from huggingtweets.posts.sources.paging import partial_path
from huggingtweets.publishing.index import write_index
from huggingtweets.storage.files import append_row, remove, write_bytes
from huggingtweets.storage.lock import acquire_lock


def plan_purge(handle: str, outputs: Path, posts: Path | None = None) -> Traces:
    """Find all there is of a person: in the output folder, in the caches, in a folder of posts.

    Changes nothing.

    Args:
        handle: canonical.
        outputs: `output_dir` of the jobs, or a folder of such.
        posts: a folder of posts with one file per person, as `huggingtweets import` makes it.

    Raises:
        LaunchError: a folder is not there.
    """
    for folder in (outputs, posts):
        if folder is not None and not folder.is_dir():
            raise LaunchError(f"purge: {folder} is not a folder; expected one; check the path")
    if is_job(outputs):
        raise LaunchError(
            f"purge: {outputs} is the folder of one job; expected that of all jobs; "
            f"pass {outputs.parent}"
        )
    extra = [path for kind in SERVICES if (path := partial_path(kind, handle)).exists()]
    if posts is not None:
        extra += [path for path in sorted(posts.iterdir()) if _is_file_of(path, handle)]
    targets = {path: target_of(path) for path in extra if path.is_symlink()}
    extra += [target for target in targets.values() if _is_file_of(target, handle)]
    traces = find_traces(handle, outputs)
    kept_by_wandb = [*_wandb_cache(traces.jobs), *_wandb_staging(traces.finder)]
    files = dict.fromkeys([*extra, *traces.files, *kept_by_wandb])
    links = [*traces.links, *(link for link, target in targets.items() if target not in files)]
    return replace(traces, files=tuple(files), links=tuple(links))


def _is_file_of(path: Path, handle: str) -> bool:
    """Whether a source would take a file for that of the person, or it has the bare name."""
    names = [user_of(path, suffixes) for suffixes in SUFFIXES.values()]
    names.append(path.name.removesuffix(".gz"))
    return any(name_key(name) == handle for name in names if name)


def _wandb_cache(jobs: Sequence[FoundJob]) -> list[Path]:
    """Find the copies that W&B keeps of files it has uploaded, whatever it calls them."""
    by_size: dict[int, list[Path]] = {}
    for job in jobs:
        for path in job.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_size:
                by_size.setdefault(path.stat().st_size, []).append(path)
    home = Path(os.environ.get("WANDB_CACHE_DIR") or Path.home() / ".cache" / "wandb")
    copies = []
    for place, _, names in os.walk(home / "artifacts" / "obj"):
        for name in names:
            path = Path(place) / name
            alike = by_size.get(path.stat().st_size, []) if path.is_file() else []
            if any(filecmp.cmp(path, one, shallow=False) for one in alike):
                copies.append(path)
    return copies


def _wandb_staging(finder: Finder) -> list[Path]:
    """Find tables and files that W&B keeps until they are sent, outside of any output folder."""
    data = os.environ.get("WANDB_DATA_DIR") or Path.home() / ".local" / "share" / "wandb"
    runs = [Path(os.environ["WANDB_DIR"]) / "wandb"] if os.environ.get("WANDB_DIR") else []
    return [
        path
        for place in (Path(data) / "artifacts" / "staging", *runs)
        for path in sorted(place.rglob("*"))
        if path.is_file() and (finder.names(path) or finder.count(path))
    ]


def purge(traces: Traces, *, elsewhere: Callable[[], int] = int) -> Path:
    """Delete what was found and record that, without names; return the record.

    Args:
        traces: what `plan_purge` found.
        elsewhere: deletes what is online, once no job can be at work any more and before anything
            here is lost; returns how much that was.

    Raises:
        JobBusyError: one of the jobs is being trained; then nothing is deleted, online neither.
        LaunchError: something cannot be deleted; running it again goes on.
    """
    with ExitStack() as stack:
        for job in traces.jobs:
            stack.enter_context(acquire_lock(job.root))
        num_online = elsewhere()
        try:
            # Weights first: on a full disk they make the room that rewriting lines needs. The posts
            # go last, as after a kill they tell what else is the person's.
            for job in traces.jobs:
                for weights in job.root.resolve().rglob("*.safetensors"):
                    weights.unlink()
            for path in traces.files:
                remove(path)
            for path, _ in traces.lines:
                _drop_lines(path, traces.finder)
            for job in traces.jobs:
                target = job.root.resolve()
                if job.root.is_symlink():
                    job.root.unlink()
                shutil.rmtree(target)
        except OSError as err:
            raise StorageError(
                f"purge: {err.filename or 'a file'} cannot be deleted or rewritten "
                f"({err.strerror}); expected room and write permission; see to them and run the "
                "command again"
            ) from err
    _write_indexes_anew(traces)
    return _record(traces, num_online)


def _write_indexes_anew(traces: Traces) -> None:
    """The pages over all jobs of a folder were deleted whole; the others are to stay on them."""
    for folder in {path.parent for path in traces.files if path.name in INDEX_FILES}:
        if folder.is_dir():
            write_index(folder, not_done(read_states(folder).values()))


def _drop_lines(path: Path, finder: Finder) -> None:
    """Write a file again without the lines about the person.

    A batch may be appending to a ledger or a log just now, and would go on in the old file: there
    blanks take the place of the lines.
    """
    assert is_made_of_lines(path)
    lines = read_text_bytes(path).split(b"\n")
    if path.suffix in LOGS or (path.parent.name == LEDGER_DIR and path.suffix != ".gz"):
        with path.open("r+b") as file:
            for line in lines:
                if finder.is_about(line, path):
                    file.write(b" " * len(line))
                    file.seek(1, os.SEEK_CUR)
                else:
                    file.seek(len(line) + 1, os.SEEK_CUR)
            os.fsync(file.fileno())
        return
    data = b"\n".join(line for line in lines if not finder.is_about(line, path))
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _record(traces: Traces, num_online: int) -> Path:
    """Append a line to the record: that somebody was purged, and how much there was."""
    path = traces.outputs / RECORD
    row = {
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "person": handle_hash(traces.handle),
        "jobs": len(traces.jobs),
        "cyborgs": sum(len(job.handles) > 1 for job in traces.jobs),
        "files": len(traces.files),
        "lines": sum(num for _, num in traces.lines),
        "online": num_online,
    }
    append_row(path, row)
    return path
