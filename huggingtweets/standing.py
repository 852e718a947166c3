"""How a job's folder stands: done and whole, begun, or taken by a job with other settings.

Nothing that lies there can do more than have this one job begun again, with a word: files may be
cut, flipped, replaced by folders, or made to harm.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingtweets.config.plan import Plan, differences, make_plan
from huggingtweets.errors import ConfigError
from huggingtweets.storage.files import read_json, read_plain
from huggingtweets.storage.paths import JobPaths
from huggingtweets.storage.seals import Seals, find_fault, take_seals

logger = logging.getLogger(__name__)

# What `sealed_config` writes; `_WEIGHTS` are names that transformers and peft give.
_HEAD = re.compile(rb"# huggingtweets job=([0-9a-f]{64}) sha256=([0-9a-f]{64})\n")
_WEIGHTS = re.compile(r"(?:adapter_)?model(?:-\d{5}-of-\d{5})?\.safetensors")


def seal_model(paths: JobPaths) -> Seals:
    """Describe the files that a model is loaded from; card and picture may be changed by hand."""
    by_hand = {paths.card.name, paths.preview.name}
    return take_seals(paths.model, lambda name: name not in by_hand)


def read_result(paths: JobPaths) -> dict[str, Any] | None:
    """Return what result.json says; None: it is not there, or not readable as what we write."""
    with suppress(OSError, ValueError):
        value = read_json(paths.result)
        if isinstance(value, dict):
            return value
    return None


def finished(output_dir: Path) -> Iterator[tuple[JobPaths, dict[str, Any]]]:
    """Yield the finished jobs right below a folder and what result.json says, by name.

    A result that cannot be read, or is being written, is passed over.
    """
    for path in sorted(output_dir.glob("*/result.json")):
        paths = JobPaths(path.parent)
        if (result := read_result(paths)) is not None:
            yield paths, result


def find_model_fault(paths: JobPaths, result: dict[str, Any]) -> str | None:
    """Say what a finished job lacks of its model; None: it is there and whole."""
    model = result.get("model")
    if isinstance(model, dict) and "files" in model:
        return find_fault(paths.model, model["files"])
    if not _is_named(result):
        return f"{paths.result} does not say what was trained"
    # Of a version that kept no sizes.
    with suppress(OSError):
        if any(_WEIGHTS.fullmatch(path.name) for path in paths.model.iterdir()):
            return None
    return f"{paths.model} has no weights"


def sealed_config(text: str, digest: str) -> str:
    """Put before a config.yaml whose it is and what it is, so that damage is no other job."""
    checksum = hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()
    return f"# huggingtweets job={digest} sha256={checksum}\n{text}"


def is_done(plan: Plan) -> bool:
    """Whether this very job is finished and its model whole.

    Raises:
        ConfigError: a job with other settings lies in its folder, finished or not.
    """
    slug, paths = plan.job.slug, plan.paths
    result = read_result(paths)
    if result is not None and result.get("digest") == plan.digest:
        fault = find_model_fault(paths, result)
        if fault is None:
            return True
        logger.warning("job=%s was done, but %s; it is trained again", slug, fault)
        return False
    changes = find_changes(plan, result)
    others = "; ".join(changes or ())
    if others and plan.config.overwrite:
        logger.warning("job=%s replaces a job with other settings (%s)", slug, others)
        return False
    if others:
        raise ConfigError(
            f"{paths.root}: holds a job with other settings ({others}); expected the same job or "
            "none; choose another output_dir, or set overwrite=true to replace it"
        )
    if changes == [] and _is_whole(paths, result):
        return True  # the same settings, by the words of another version
    if result is None and paths.result.exists():
        logger.warning("job=%s %s cannot be read; it is trained again", slug, paths.result)
    return False


def find_done(plans: Sequence[Plan]) -> frozenset[str]:
    """Return the slugs of the jobs that are finished.

    Raises:
        ConfigError: jobs with other settings lie in some of their folders.
    """
    done, others = [], []
    for plan in plans:
        try:
            if is_done(plan):
                done.append(plan.job.slug)
        except ConfigError as err:
            others.append(str(err))
    if len(others) > 1 or (others and len(plans) > 1):
        folder = plans[0].paths.root.parent
        place = folder.resolve() if folder.name in ("", "..") else folder  # `.` has no name
        number = 2
        while (fresh := Path(f"{place}-{number}")).exists():
            number += 1
        raise ConfigError(
            f"output_dir: {len(others)} of {len(plans)} jobs in {folder} are not those asked for, "
            f"the first: {others[0].partition('; expected')[0]}; expected the same or none; take "
            f"output_dir={fresh}, or set overwrite=true to replace them; nothing was changed"
        )
    if others:
        raise ConfigError(others[0])
    return frozenset(done)


def find_changes(plan: Plan, result: dict[str, Any] | None = None) -> list[str] | None:
    """Return in which settings the folder's job differs from a plan, by its own undamaged word.

    Args:
        plan: what is to be trained.
        result: of the folder; beside a whole one a damaged config.yaml is another job's.

    Returns:
        `key: old -> new` each; None where there is no job, or nobody can say.
    """
    from huggingtweets.config.compose import load_config  # a second: seldom needed

    paths = plan.paths
    if not (paths.config.exists() or paths.config.is_symlink()):
        return None
    head, body = _head(paths)
    # The checksum first: a flipped bit must never read as other settings.
    try:
        if head is not None and hashlib.sha256(body).hexdigest() != head[2].decode():
            raise ConfigError(f"{paths.config}: is not as it was written")
        if not body.strip():
            raise ConfigError(f"{paths.config}: is empty or cannot be read")
        if head is not None and head[1].decode() == plan.digest:
            return []
        old = make_plan(load_config(paths.config), plan.job)
    except ConfigError as err:
        if _is_whole(paths, result):
            return ["which, its damaged config.yaml does not say"]
        if not isinstance(err.__cause__, FileNotFoundError):
            said = str(err).partition("; expected")[0]
            logger.warning("job=%s %s; the job is begun again", plan.job.slug, said)
        return None
    return differences(old.identity, plan.identity)


def is_foreign(paths: JobPaths) -> bool:
    """Whether a folder holds files, and none by which a job is known."""
    names: set[str] = set()
    with suppress(OSError):  # there is none, or none that can be read
        names = {path.name for path in paths.root.iterdir()}
    known = (paths.posts, paths.cleaning, paths.lineage, paths.checkpoints)
    marks = {".lock", *(path.name for path in known)}
    names -= {"Thumbs.db", "desktop.ini", "@eaDir"}  # of Windows and of a NAS
    if all(name.startswith(".") for name in names) or not marks.isdisjoint(names):
        return False
    # Of a job whose posts were not copied along.
    return _head(paths)[0] is None and not _is_named(read_result(paths) or {})


def _is_whole(paths: JobPaths, result: dict[str, Any] | None) -> bool:
    """Whether a result says of which job it is, and the model is there as it says."""
    return result is not None and _is_named(result) and find_model_fault(paths, result) is None


def _is_named(result: dict[str, Any]) -> bool:
    """Whether a result says of which job it is."""
    return isinstance(result.get("digest"), str) and len(result["digest"]) == 64


def _head(paths: JobPaths) -> tuple[re.Match[bytes] | None, bytes]:
    """Return what `sealed_config` put before a config.yaml, and all that follows."""
    with suppress(OSError):
        data = read_plain(paths.config)
        head = _HEAD.match(data)
        return head, data[head.end() :] if head else data
    return None, b""
