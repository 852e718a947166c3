"""What was measured or tried on this machine, kept in the cache for later processes.

Nothing depends on it but time: what cannot be read is found out again, and where nothing can be
written each process finds out for itself.
"""

from contextlib import suppress
from typing import Any

from huggingtweets.storage.files import read_json, write_json
from huggingtweets.storage.paths import cache_dir


def recall(file: str) -> dict[str, Any]:
    """Return what a file of the cache holds by key."""
    with suppress(OSError, ValueError):
        known = read_json(cache_dir() / file)
        if isinstance(known, dict):
            return known
    return {}


def remember(file: str, key: str, value: Any) -> None:
    """Add to a file of the cache, beside what other processes have added meanwhile."""
    with suppress(OSError):
        write_json(cache_dir() / file, recall(file) | {key: value})
