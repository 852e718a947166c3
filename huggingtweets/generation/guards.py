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

    @cached_property
    def banned(self) -> re.Pattern[str] | None:
        """What finds a banned word or phrase; None: there are none."""
        words = [word.strip() for word in self.banned_words if word.strip()]
        if not words:
            return None
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)

    def finish(self, text: str) -> str:
        """Return a drawn text as it is shown: its first line, masked."""
        line = text.split("\n", 1)[0].strip()
        return mask_pii(line) if self.mask_pii else line

    def judge(self, text: str) -> Refusal | None:
        """Say why a finished text is refused; None: it is not."""
        if self.banned and self.banned.search(text):
            return Refusal.banned
        most = self.block_copies
        if most and self.train and self._index.find(text).has_copied(most + 1):
            return Refusal.copied
        return Refusal.too_long if self.max_chars and len(text) > self.max_chars else None


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
