"""Handles of people and the jobs made of them. What is downstream relies on these checks."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from huggingtweets.errors import SelectionError

# X takes 15 characters, Mastodon 30.
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,30}")
# Bluesky and Mastodon: labels of a domain (RFC 1035: 63 characters). The first may have a `_`.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"[A-Za-z0-9_](?:[A-Za-z0-9_-]{{0,61}}[A-Za-z0-9_])?(?:\.{_LABEL})+")
MAX_HANDLE_CHARS = 90
"""So that a handle alone is a slug."""
MAX_SLUG_CHARS = 96
"""The Hub's limit for a repository name."""
RESERVED = "ledger"
"""What a batch calls the folder of its own, beside those of its jobs; see `jobs/ledger.py`."""


def parse_handle(text: str) -> str:
    """Return the canonical form of a handle: no leading `@`, lower case.

    Accepts `karpathy`, `@karpathy`, `alice.bsky.social` and `alice@mastodon.social`
    (which becomes `alice.mastodon.social`). The result is safe in paths, URLs, YAML and HTML.

    Raises:
        SelectionError: anything else, shown with `ascii()` so that it cannot disguise itself.
    """
    handle = text.removeprefix("@").replace("@", ".", 1)
    if _PLAIN.fullmatch(handle) or (len(handle) <= MAX_HANDLE_CHARS and _DOMAIN.fullmatch(handle)):
        return handle.lower()
    shown = ascii(text if len(text) <= 60 else text[:57] + "...")
    raise SelectionError(
        f"user: got {shown}; expected a handle of 1 to 30 letters, digits and '_', "
        "or a name.domain form; check the spelling"
    )


@dataclass(frozen=True)
class Job:
    """One model to train: the sorted, distinct handles of the people in it."""

    handles: tuple[str, ...]
    written: tuple[str, ...] = field(default=(), compare=False)
    """The same, each as it was typed: what people read; `handles` is for paths and comparisons."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Job":
        """Build a job from handles as users type them.

        Raises:
            SelectionError: a handle is malformed, or there is none.
        """
        typed = {parse_handle(text): text.removeprefix("@").replace("@", ".", 1) for text in texts}
        handles = tuple(sorted(typed))
        if not handles:
            raise SelectionError("user: got no handle; expected at least one, such as user=demo")
        return cls(handles, tuple(typed[handle] for handle in handles))

    @property
    def slug(self) -> str:
        """Name of the model and of its folder; a valid Hub repository name, distinct per job.

        A digest is appended where the plain join would be too long, contain `--`, be ambiguous
        because a handle itself contains the joining `-`, or be the name of a batch's own folder.
        """
        joined = "-".join(self.handles)
        is_plain = joined != RESERVED and not any("-" in handle for handle in self.handles)
        if is_plain and len(joined) <= MAX_SLUG_CHARS:
            return joined
        digest = hashlib.sha256(",".join(self.handles).encode()).hexdigest()[:10]
        head = joined[: MAX_SLUG_CHARS - len(digest) - 1].replace("--", "-").rstrip("-.")
        return f"{head}-{digest}"

    @property
    def is_cyborg(self) -> bool:
        """Whether several people are merged into one voice."""
        return len(self.handles) > 1
