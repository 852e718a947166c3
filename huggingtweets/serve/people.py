"""Whose models there are: the finished jobs of an output folder, found as they finish."""

import math
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingtweets.errors import SelectionError
from huggingtweets.handles import parse_handle
from huggingtweets.posts.optout import all_optouts, handle_hash
from huggingtweets.standing import read_result
from huggingtweets.storage.paths import JobPaths
from huggingtweets.storage.places import check_output_dir

RESCAN_S = 2.0
"""Listing ten thousand folders takes some 50 ms; nobody waits for a finished job longer."""
_MAX_RESULT_BYTES = 1 << 22
"""A larger result.json is none of ours."""


@dataclass(frozen=True)
class Person:
    """One finished job. Texts are hostile until escaped."""

    slug: str
    """Name of the folder, and of the model in the API."""
    handles: tuple[str, ...]
    hashes: frozenset[str]
    """Of the handles, as they stand in the lists of those who want no model."""
    paths: JobPaths
    created: int
    """Unix seconds."""
    kept: int
    """Posts trained on or held out."""
    tokens: int
    bits: float | None
    base_bits: float | None

    @property
    def title(self) -> str:
        """The handles, each with its `@`."""
        return " ".join(f"@{handle}" for handle in self.handles)


class People:
    """The finished jobs of a folder; threads may share it."""

    def __init__(self, output_dir: Path, *, optout_file: str | None = None) -> None:
        """Look once.

        Raises:
            ConfigError: there is no such folder, or the opt-out list cannot be read.
        """
        check_output_dir("serve", output_dir)
        self._root = output_dir.resolve()
        self._optout_file = optout_file
        self._lock = threading.Lock()
        self._known: dict[str, tuple[tuple[int, int], Person | None]] = {}
        self._next_scan = 0.0
        self.all()

    def all(self) -> list[Person]:
        """Return everybody who may be shown, by slug; folders are listed every two seconds."""
        with self._lock:
            self._scan()
            people = [person for _, person in self._known.values() if person is not None]
        gone = self._optouts()
        shown = (person for person in people if gone.isdisjoint(person.hashes))
        return sorted(shown, key=lambda person: person.slug)

    def get(self, slug: str) -> Person | None:
        """Return one person; None: unknown, opted out, or purged this very moment.

        The slug is looked up and never made into a path.
        """
        with self._lock:
            if slug not in self._known:
                self._scan()
            _, person = self._known.get(slug, (None, None))
        if person is None or not person.paths.result.is_file():
            return None
        return person if self._optouts().isdisjoint(person.hashes) else None

    def find(self, words: str, limit: int) -> tuple[list[Person], int]:
        """Return the first people in whose names all words stand, and how many there are."""
        parts = words.lower().replace("@", "").split()
        found = [
            person
            for person in self.all()
            if all(part in person.slug or part in person.title for part in parts)
        ]
        return found[:limit], len(found)

    def _optouts(self) -> frozenset[str]:
        # Read again whenever the list changes: people who opt out vanish without a restart.
        return all_optouts(self._optout_file)

    def _scan(self) -> None:
        """List the folders, unless that was done a moment ago."""
        if time.monotonic() < self._next_scan:
            return
        found: dict[str, tuple[tuple[int, int], Person | None]] = {}
        with suppress(OSError):
            for folder in self._root.iterdir():
                # A link may lead out of the folder, and what is hidden is a draft of a writer.
                if folder.name.startswith(".") or folder.is_symlink():
                    continue
                paths = JobPaths(folder)
                try:
                    status = paths.result.stat()
                except OSError:
                    continue
                mark = (status.st_mtime_ns, status.st_size)
                known = self._known.get(folder.name)
                same = known if known and known[0] == mark else None
                found[folder.name] = same or (mark, _read(paths, status))
        self._known = found
        self._next_scan = time.monotonic() + RESCAN_S


def _read(paths: JobPaths, status: os.stat_result) -> Person | None:
    """Return a finished job with a model; None: it is none of ours."""
    if status.st_size > _MAX_RESULT_BYTES or not paths.model.is_dir() or paths.model.is_symlink():
        return None
    try:
        result = read_result(paths) or {}
        held_out = result.get("eval") or {}
        handles = tuple(parse_handle(handle) for handle in result["handles"])
        return Person(
            slug=paths.root.name,
            handles=handles,
            hashes=frozenset(map(handle_hash, handles)),
            paths=paths,
            created=int(status.st_mtime),
            kept=int(result["tweets"]["kept"]),
            tokens=int(result["data"]["train_tokens"]),
            bits=_number(held_out.get("bits_per_byte")),
            base_bits=_number(held_out.get("base_bits_per_byte")),
        )
    except (ArithmeticError, AttributeError, LookupError, SelectionError, TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    """Return a figure; None: there is none, or one that JSON has no number for."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
