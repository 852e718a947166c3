"""Which samples are refused, and what is done to the rest before anyone sees them. Texts only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.data.copying import CopyIndex
from huggingtweets.data.words import end_of_words
from huggingtweets.posts.masking import mask_pii

MAX_ROUNDS = 6
"""How often what is refused is drawn."""


class Refusal(StrEnum):
    """Why a sample is drawn again."""

    copied = "copied"
    too_long = "too_long"
    banned = "banned"


@dataclass(frozen=True)
class Guards:
    """What every sample is held against."""

    max_chars: int = 0
    block_copies: int = 0
    banned_words: tuple[str, ...] = ()
    mask_pii: bool = False
    train: tuple[str, ...] = ()
    """Training posts that must not be copied."""

    @cached_property
    def _index(self) -> CopyIndex:
        """What the training posts say; made once, as rounds of drawing ask again and again."""
        return CopyIndex(self.train)

    def finish(self, text: str) -> str:
        """Return a drawn text as it is shown: its first line, masked."""
        line = text.split("\n", 1)[0].strip()
        return mask_pii(line) if self.mask_pii else line

    def judge(self, texts: Sequence[str]) -> list[Refusal | None]:
        """Say of each finished text why it is refused, or None."""
        copied = [False] * len(texts)
        if self.block_copies and self.train:
            most = self.block_copies + 1
            copied = [self._index.find(text).has_copied(most) for text in texts]
        banned = banned_pattern(self.banned_words)
        reasons: list[Refusal | None] = []
        for text, is_copied in zip(texts, copied, strict=True):
            if banned and banned.search(text):
                reasons.append(Refusal.banned)
            elif is_copied:
                reasons.append(Refusal.copied)
            elif self.max_chars and len(text) > self.max_chars:
                reasons.append(Refusal.too_long)
            else:
                reasons.append(None)
        return reasons


def build_guards(sampling: SamplingConfig, *, mask_pii: bool, train: Sequence[str]) -> Guards:
    """Return the guards of one job."""
    return Guards(
        sampling.char_limit,
        sampling.block_copies,
        tuple(sampling.banned_words),
        mask_pii,
        tuple(train) if sampling.block_copies else (),
    )


def shorten(text: str, max_chars: int) -> str:
    """Cut a text after the last word that ends within `max_chars` characters, if one does."""
    if len(text) <= max_chars:
        return text
    end = min(end_of_words(text[: max_chars + 1]), max_chars)
    return text[:end].rstrip() if end else text[:max_chars]


def banned_pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    """Return what finds one of these words or phrases; None: there are none."""
    words = [word.strip() for word in words if word.strip()]
    if not words:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
