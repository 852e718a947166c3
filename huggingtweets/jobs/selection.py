"""Which jobs `user=`, `shard=` and `job_index=` name. Handles are text, and nothing else is."""

import codecs
import difflib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingtweets.config.plan import FILE_PREFIX, is_batch
from huggingtweets.config.posts_schema import ARCHIVES, SourceConfig
from huggingtweets.errors import SelectionError
from huggingtweets.handles import Job, parse_handle
from huggingtweets.posts.sources.load import archive_owner, check_owner
from huggingtweets.storage.paths import expanded

logger = logging.getLogger(__name__)

_USER_OVERRIDE = re.compile(r"(\+{0,2}user=)(.*)", re.DOTALL)
_NOT_PLAIN = re.compile(r"[\\(){}$]")
"""Functions, dictionaries, interpolations and escapes: left to Hydra."""
_PIECE = re.compile(r"""'[^']*'|"[^"]*"|[\[\],]|[^\[\],'"]+|['"]""")
_PLAIN_PATH = re.compile(r"[\w/.:@%+*?|-]*", re.ASCII)
"""What Hydra reads in a path without quotes; `~`, for one, it does not."""
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_NUM_SHOWN = 3


def select_jobs(
    user: Any,
    shard: str | None = None,
    job_index: int | None = None,
    source: SourceConfig | None = None,
) -> list[Job]:
    """Return the jobs to do, in order and each once.

    Args:
        user: A handle; a list of handles, which is one job; or `file:PATH` with one job per line.
            Nothing: the person whose archive the source is.
        shard: `i/n` with i from 0 to n-1: every n-th job from the i-th on; may be none. Tasks start
            hours apart, so a share follows from the list alone, not from files that grow meanwhile.
        job_index: Only the job of this 0-based entry of the file, duplicates not counted.
        source: Where the posts lie; of an archive, whose it is.

    Raises:
        SelectionError: something is malformed or missing; the sentence says what to type.
        SourceError: the archive is another person's, or cannot be read.
    """
    if shard is not None and job_index is not None:
        raise SelectionError(
            f"job_index: got {job_index} beside shard={shard}; expected one of the two; drop one"
        )
    jobs = _jobs_of_archive(user, source) or _all_jobs(user)
    if job_index is not None:
        if not 0 <= job_index < len(jobs):
            raise SelectionError(
                f"job_index: got {job_index}; expected 0 to {len(jobs) - 1}, "
                f"because user= names {len(jobs)} job(s); choose one of them"
            )
        return [jobs[job_index]]
    if shard is not None:
        shard_index, num_shards = _parse_shard(shard)
        return jobs[shard_index::num_shards]
    return jobs


def _jobs_of_archive(user: Any, source: SourceConfig | None) -> list[Job]:
    """Return the job of the person whose archive the source is; none: `user=` alone decides."""
    if source is None or source.kind not in ARCHIVES:
        return []
    if user is not None and user != "":
        if isinstance(user, str) and not is_batch(user):
            check_owner(source, parse_handle(user))
        return []
    owner = archive_owner(source)
    if owner is None:
        raise SelectionError(
            f"user: got nothing, and {source.path} does not say whose it is; expected a handle; "
            "add user=HANDLE"
        )
    logger.info("user=%s: whose archive it is", owner)
    return [Job.of([owner])]


def quote_user(argv: Sequence[str]) -> list[str]:
    """Quote the handles of raw `user=` overrides, so that Hydra keeps `1e5` or `null` as text.

    `user=[a,1e5]` becomes `user=['a','1e5']`, also in the comma lists of `-m`. What is quoted
    already, plain `file:` values and every other argument stay as they are.
    """
    return [_quote_override(argument) for argument in argv]


def _quote_override(argument: str) -> str:
    match = _USER_OVERRIDE.fullmatch(argument)
    if match is None or _NOT_PLAIN.search(match[2]):
        return argument
    pieces = _PIECE.findall(match[2])
    if "'" in pieces or '"' in pieces:  # a lone quote, as in o'brien
        return match[1] + _quote(match[2])
    return match[1] + "".join(_quote_piece(piece) for piece in pieces)


def _quote_piece(piece: str) -> str:
    word = piece.strip(" \t")
    if not word or word[0] in "'\"[],":
        return piece
    is_plain_file = word.startswith(FILE_PREFIX) and _PLAIN_PATH.fullmatch(word)
    return piece if is_plain_file else _quote(word)


def _quote(word: str) -> str:
    return "'" + word.replace("'", "\\'") + "'"


def _all_jobs(user: Any) -> list[Job]:
    if user is None or user == "":
        raise SelectionError(
            "user: got nothing; expected whose posts to train on; add user=HANDLE, "
            "user=[HANDLE,HANDLE] for one merged model, or user=file:PATH with one job per line"
        )
    if isinstance(user, str):
        if user.startswith(FILE_PREFIX):
            return _read_users(expanded(user.removeprefix(FILE_PREFIX)))
        return [Job.of([user])]
    if isinstance(user, Sequence) and not isinstance(user, bytes):
        return [_merge(user)]
    raise _not_text(user, in_list=False)


def _merge(handles: Sequence[Any]) -> Job:
    """One job of a list as Hydra gives it."""
    for handle in handles:
        if not isinstance(handle, str):
            raise _not_text(handle, in_list=True)
        if handle.startswith(FILE_PREFIX):
            raise SelectionError(
                f"user: got {handle!a} inside a list; expected handles there; "
                "give the file alone, as user=file:PATH"
            )
    job = Job.of(handles)
    if len(job.handles) < len(handles):
        logger.warning("user: some handles are named twice and count once: %s", job.slug)
    return job


def _not_text(value: Any, *, in_list: bool) -> SelectionError:
    if value is None or isinstance(value, bool):
        kind, word = "the word", "null" if value is None else str(value).lower()
    elif isinstance(value, int | float):
        kind, word = "the number", str(value)
    else:
        return SelectionError(
            f"user: got a {type(value).__name__}; expected a handle, a list of handles or "
            "file:PATH; write user=[alice,bob] for one merged model"
        )
    example = f"user=\"['{word}',...]\"" if in_list else f"user=\"'{word}'\""
    return SelectionError(
        f"user: got {kind} {word} in place of text; expected handles as text; "
        f"quote the handle as it is spelled, such as {example}"
    )


def _parse_shard(shard: str) -> tuple[int, int]:
    match = _SHARD.fullmatch(str(shard))
    index, num_shards = (int(match[1]), int(match[2])) if match else (0, 0)
    if not index < num_shards:
        raise SelectionError(
            f"shard: got {shard!a}; expected i/n with i from 0 to n-1; "
            "write shard=0/4 to shard=3/4 for four parts"
        )
    return index, num_shards


def _read_users(path: Path) -> list[Job]:
    """Jobs of a users file, one per line; equal jobs merged with a warning."""
    first_lines: dict[Job, int] = {}
    repeats = []
    bad: list[tuple[int, str]] = []
    for number, line in _lines(path):
        handles = re.split(r"[\s,]+", line.partition("#")[0].strip(" \t,"))
        if handles == [""]:
            continue
        try:
            job = Job.of(handles)
        except SelectionError as err:
            bad.append((number, str(err).removeprefix("user: ")))
            continue
        if first_lines.setdefault(job, number) != number:
            repeats.append(f"line {number} repeats line {first_lines[job]}")
    if bad:
        (number, fault), others = bad[0], [str(other) for other, _ in bad[1:]]
        also = f" (also {len(others)} more: line {_first(others)})" if others else ""
        raise SelectionError(f"{path} line {number}: {fault}{also}")
    if not first_lines:
        raise SelectionError(f"{path}: got no handle; expected one job per line; add some")
    if repeats:
        logger.warning(
            "%s: %d line(s) name a job again and are left out (%s)",
            path,
            len(repeats),
            _first(repeats),
        )
    return list(first_lines)


def _first(words: Sequence[str]) -> str:
    """Name some of many."""
    return ", ".join([*words[:_NUM_SHOWN], *(["..."] if len(words) > _NUM_SHOWN else [])])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their 1-based numbers; any line ending, with or without a byte order mark."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as err:
        raise SelectionError(f"user: got file:{path}; {_missing(path)}") from err
    except OSError as err:
        raise SelectionError(
            f"user: got file:{path}, which cannot be read ({err.strerror}); "
            "expected a text file with one job per line; give its path"
        ) from err
    # What the editors of Windows save; without such a mark it is UTF-8, and what is not is shown.
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    yield from enumerate(re.split(r"\r\n|\r|\n", text), start=1)


def _missing(path: Path) -> str:
    """What there is instead of a path that is not there."""
    folder = path.parent
    while not folder.is_dir():
        path, folder = folder, folder.parent
    names = [entry.name for entry in sorted(folder.iterdir())] if os.access(folder, os.R_OK) else []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    advice = f"did you mean {folder / near[0]}?" if near else "check the path"
    return f"expected a text file with one job per line, but {path} is not there; {advice}"
