"""Names and durations as text that is safe to show; people's initials and colours."""

import colorsys
import hashlib
import re
import unicodedata
from collections.abc import Sequence

from huggingtweets.posts.cleaning import CleaningReport

MAX_NAME_CHARS = 80
_JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: Persian and emoji need them."""
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
"""Of England and its like: a black flag and a code in characters that nobody sees."""
_NEVER_SEEN = re.compile("[\u2065\ufdd0-\ufdef\ufff0-\ufff8\U000e0000-\U000e0fff]")
"""Unassigned, and never to be a letter or sign; so are the last two of each plane."""


def visible(text: str) -> str:
    """Return text without control, bidi, surrogate and private characters; white space is blank.

    Blanks stay as many as they were. What only a later Unicode than Python's knows is kept.
    """
    flags = {index for flag in _FLAG.finditer(text) for index in range(*flag.span())}
    kept = []
    for index, char in enumerate(text):
        if char.isspace():
            kept.append(" ")
        elif index in flags or char in _JOINERS or not _is_hidden(char):
            kept.append(char)
    return "".join(kept)


def _is_hidden(char: str) -> bool:
    kind = unicodedata.category(char)
    if kind == "Cn":
        return ord(char) & 0xFFFE == 0xFFFE or _NEVER_SEEN.match(char) is not None
    return kind in ("Cc", "Cf", "Cs", "Co")


def plain_text(text: str) -> str:
    """Return visible text on one line, each run of white space as one blank."""
    return " ".join(visible(text).split())


def display_name(person: CleaningReport) -> str:
    """Return the name, cleaned, at most `MAX_NAME_CHARS` long; `@handle` if nothing is left."""
    name = plain_text(person.display_name)
    if not name.strip(f"{_JOINERS} "):
        return written_handle(person)
    return name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1].rstrip() + "…"


def joined(names: Sequence[str], shown: int | None = None) -> str:
    """Return `A`, `A & B`, `A, B & C`, or `A & 2 more` when only this many are to be shown."""
    parts = list(names if shown is None else names[:shown])
    if len(parts) < len(names):
        parts.append(f"{len(names) - len(parts)} more")
    return " & ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def joined_names(people: Sequence[CleaningReport]) -> str:
    """Return all display names in one line."""
    return joined([display_name(person) for person in people])


def written_handle(person: CleaningReport) -> str:
    """Return the handle as people write it, with its `@`."""
    return f"@{person.written or person.handle}"


def joined_handles(people: Sequence[CleaningReport]) -> str:
    """Return all handles, each with its `@`, in one line."""
    return joined([written_handle(person) for person in people])


def initials(person: CleaningReport) -> str:
    """Return one or two letters for an avatar; that of the handle for a name without letters."""
    words = [
        letters[0]
        for word in plain_text(person.display_name).split()
        if (letters := [char for char in word if char.isalpha()])
    ]
    return "".join(char.upper()[:1] for char in words[:2]) or person.handle[:1].upper()


_HUES = (0.60, 0.65, 0.71, 0.78, 0.86, 0.94, 0.02, 0.42, 0.47, 0.53)
"""Blue to violet, rose, red and green to cyan: what goes together on a dark ground."""


def hue(name: str) -> float:
    """Return a hue, 0 to 1, that always is the same for a handle or slug."""
    return _HUES[int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(_HUES)]


def hex_colour(hue: float, lightness: float, saturation: float) -> str:
    """Return `#rrggbb`."""
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def avatar_colour(handle: str) -> str:
    """Return the background, `#rrggbb`, of a person's initials; white reads well on it."""
    return hex_colour(hue(handle), 0.4, 0.5)


def duration(seconds: float) -> str:
    """Return `2 h 5 min`, `3 min 20 s` or `12.4 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def rough_duration(seconds: float) -> str:
    """Return `90 s`, `45 min` or `3.5 h`, for what is estimated."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
