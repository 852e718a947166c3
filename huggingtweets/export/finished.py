"""The finished jobs of an output folder that an export takes."""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingtweets.errors import ConfigError, OptedOutError
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.standing import finished, read_result
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
    one = JobPaths(output_dir)
    alone = read_result(one)
    found: dict[str, Finished] = {}
    for paths, result in finished(output_dir) if alone is None else [(one, alone)]:
        with suppress(ValueError, KeyError, TypeError, OptedOutError):
            slug = str(result["slug"])
            check_opted_out(result["handles"])
            found[slug] = Finished(slug, paths, result)
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
