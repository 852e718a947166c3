"""Spread jobs over the processes of a launch by estimated cost.

The estimate is the main process's, for all: files may grow between two looks at their sizes.
"""

import heapq
import os
from collections.abc import Sequence
from pathlib import Path

from huggingtweets.config.posts_schema import SourceConfig
from huggingtweets.handles import Job
from huggingtweets.posts.reading.by_handle import name_key
from huggingtweets.storage.paths import expanded

FIXED_COST_BYTES = 20_000
"""Cost of a job without a post: loading, sampling and saving take about as long as training on so
many bytes of posts."""


def partition(costs: Sequence[float], num_parts: int) -> list[list[int]]:
    """Assign every index of `costs` to one part: the costliest first, each to the least loaded.

    Ties go to the part with fewer jobs, then to the lower number. The indices of a part ascend.
    """
    # Longest processing time first (Graham 1969): no part has more than 4/3 of the best possible.
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    loads = [(0.0, 0, part) for part in range(num_parts)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, num_jobs, part = loads[0]
        heapq.heapreplace(loads, (load + costs[index], num_jobs + 1, part))
        parts[part].append(index)
    return [sorted(part) for part in parts]


def estimate_costs(jobs: Sequence[Job], source: SourceConfig | None) -> list[float]:
    """Estimate what each job costs, in an arbitrary unit.

    Where the source is a folder of one file per user: by file size; the people of a cyborg count as
    the largest of them each, because their texts are balanced to the longest. Otherwise all cost 1.
    """
    sizes = _file_sizes(source)
    if not sizes:
        return [1.0] * len(jobs)
    typical = sum(sizes.values()) // len(sizes)
    return [
        float(
            FIXED_COST_BYTES
            + len(job.handles) * max(sizes.get(handle, typical) for handle in job.handles)
        )
        for job in jobs
    ]


def _file_sizes(source: SourceConfig | None) -> dict[str, int]:
    """Bytes of each file in the source's folder by handle; empty where there is no folder."""
    if source is None or not source.path:
        return {}
    sizes = {}
    try:
        with os.scandir(expanded(source.path)) as entries:
            for entry in entries:
                if Path(entry.path).is_file():
                    # As the source finds it: `@Alice.bsky.social.jsonl.gz` is alice.bsky.social.
                    handle = name_key(Path(entry.name.removesuffix(".gz")).stem)
                    sizes[handle] = entry.stat().st_size
    except OSError:  # the source itself says what is wrong, job by job
        return {}
    return sizes
