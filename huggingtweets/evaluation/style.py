"""Outward habits of writing, in numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# With a letter in it: `#1` is a number. Behind `&` it is an entity, such as `&#39;`.
_HASHTAG = re.compile(r"(?<![\w&])#\w*[^\W\d_]\w*")
_MENTION = re.compile(r"(?<![\w@])@[A-Za-z0-9_]{1,30}")
_LINK = re.compile(r"https?:\S|\bwww\.\S", re.IGNORECASE)
# Signs that are drawn as pictures; digits, © and the like, which may be, are mostly text.
_EMOJI = re.compile(
    "[\u203c\u2049\u2139\u2194-\u21aa\u231a-\u23ff\u2600-\u27bf\u2b05-\u2b55\U0001f000-\U0001faff]"
)


@dataclass(frozen=True)
class Style:
    """How often posts have what; shares of posts, 0 to 1."""

    hashtags: float
    mentions: float
    emoji: float
    links: float
    capitals: float
    """Capital letters, as a share of all letters."""


def measure_style(texts: Sequence[str]) -> Style:
    """Measure the habits of some posts."""
    letters = [char for text in texts for char in text if char.isalpha()]
    return Style(
        hashtags=_share(_HASHTAG, texts),
        mentions=_share(_MENTION, texts),
        emoji=_share(_EMOJI, texts),
        links=_share(_LINK, texts),
        capitals=sum(char.isupper() for char in letters) / max(1, len(letters)),
    )


def _share(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(bool(pattern.search(text)) for text in texts) / max(1, len(texts))
