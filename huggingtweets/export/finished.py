"""The finished jobs of an output folder that an export takes."""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingtweets.errors import ConfigError, OptedOutError
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.storage.files import read_json
from huggingtweets.storage.paths import JobPaths
from huggingtweets.storage.places import check_output_dir


@dataclass(frozen=True)
class Finished:
    """One finished job."""

    slug: str
    paths: JobPaths
    result: Mapping[str, Any]


def finished_jobs(output_dir: Path, users: Sequence[str] = ()) -> list[Finished]:
    """Return the finished jobs of a folder, by slug; those who want no model are left out.

    Args:
        output_dir: what train.py was given; the folder of one job stands for that job.
        users: slugs or handles; empty: all.

    Raises:
        ConfigError: there is none, or not the one asked for.
    """
    check_output_dir("export", output_dir)
    one = JobPaths(output_dir).result
    paths = [one] if one.is_file() else sorted(output_dir.glob("*/result.json"))
    found: dict[str, Finished] = {}
    for path in paths:
        with suppress(OSError, ValueError, KeyError, TypeError):
            result = read_json(path)
            slug = str(result["slug"])
            with suppress(OptedOutError):
                check_opted_out(result["handles"])
                found[slug] = Finished(slug, JobPaths(path.parent), result)
    wanted = [user.removeprefix("@").lower() for user in users]
    for name in wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            raise ConfigError(
                f"--user: got {name!a}, who has no finished job in {output_dir}; expected one that "
                + (f"has; did you mean {near[0]}?" if near else "has; see huggingtweets status")
            )
    if not found:
        raise ConfigError(
            f"export: got {output_dir}, which holds no finished job; expected some; train first"
        )
    return [job for slug, job in sorted(found.items()) if not wanted or slug in wanted]
