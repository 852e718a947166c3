"""One post while it is drawn: what of it may be shown already, and when it is over.

The guards of the job hold for what is streamed too. What has been sent cannot be taken back, so the
last words wait until nothing that follows can turn them into something that must not be shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from huggingtweets.data.copying import CopyIndex
from huggingtweets.data.words import end_of_words
from huggingtweets.generation.guards import (
    MAX_ROUNDS,
    Guards,
    Refusal,
    shorten,
)
from huggingtweets.posts.masking import mask_pii

HOLD_CHARS = 48
"""Longer than whatever `mask_pii` replaces that has a space in it: an IBAN in groups has 42."""


class Finish(StrEnum):
    """Why a post is over, in the words of the API."""

    stop = "stop"
    length = "length"
    content_filter = "content_filter"


@dataclass(frozen=True)
class Step:
    """What came of some more tokens."""

    text: str = ""
    """May be shown now, after what was shown before."""
    finish: Finish | None = None
    again: Refusal | None = None
    """The post is refused and nothing of it was shown: it is drawn again."""


class Draft:
    """Follows one post."""

    def __init__(
        self,
        prompt: str,
        guards: Guards,
        copies: CopyIndex | None,
        *,
        stops: Sequence[str] = (),
        is_streamed: bool,
        rounds: int = 0,
    ) -> None:
        """Begin with nothing shown.

        Args:
            prompt: as the person wrote it.
            guards: of the job.
            copies: of the training posts; None: copies are let pass.
            stops: end a post where they begin.
            is_streamed: show what may be shown before the post is over.
            rounds: how often it was refused before.
        """
        self._prompt = prompt
        self._guards = guards
        self._copies = copies if guards.block_copies else None
        self._stops = ("\n", *stops)
        self._hold = max([HOLD_CHARS, *map(len, guards.banned_words), *map(len, self._stops)])
        self._is_streamed = is_streamed
        self._rounds = rounds
        self._num_sent = 0

    def update(self, continuation: str, ended: Finish | None) -> Step:
        """Take all that was drawn so far after the prompt; `ended`: the model came to an end."""
        text, ended = self._cut(continuation, ended)
        shown = self._masked(text)
        limit, refusal = self._limit(shown, is_over=ended is not None)
        if refusal is not None:
            if self._num_sent == 0 and self._rounds + 1 < MAX_ROUNDS:
                return Step(again=refusal)
            shown = shown[:limit].rstrip()
            finish = Finish.length if refusal is Refusal.too_long else Finish.content_filter
            return self._send(shown, finish)
        if ended is not None:
            return self._send(shown.rstrip(), ended)
        if not self._is_streamed or len(shown) <= self._hold:
            return Step()
        # To a word's end, so that what is growing is never shown in half.
        return self._send(shown[: end_of_words(shown[: -self._hold])], None)

    def _cut(self, text: str, ended: Finish | None) -> tuple[str, Finish | None]:
        """Cut at the first line break or stop."""
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        return (text[: min(places)], Finish.stop) if places else (text, ended)

    def _masked(self, text: str) -> str:
        if not self._guards.mask_pii:
            return text
        # Together: a number begun in the prompt and ended in the answer is masked as one.
        whole = mask_pii(self._prompt + text)
        same = 0
        for ours, theirs in zip(whole, self._prompt, strict=False):
            if ours != theirs:
                break
            same += 1
        return whole[same:]

    def _limit(self, shown: str, *, is_over: bool) -> tuple[int, Refusal | None]:
        """Return where the text must end, and why; the whole of it where nothing is wrong."""
        whole, offset = self._prompt + shown, len(self._prompt)
        found: list[tuple[int, Refusal]] = []
        match = self._guards.banned.search(whole) if self._guards.banned else None
        if match and (is_over or match.end() < len(whole)):  # at the end it may still grow
            found.append((max(0, match.start() - offset), Refusal.banned))
        # Only whole words are looked for: the last one may still grow into another.
        head = whole if is_over else whole[: max(offset, end_of_words(whole))]
        if self._copies is not None:
            place = self._copies.find(head).first_copied(self._guards.block_copies + 1)
            if place is not None:
                found.append((max(0, place - offset), Refusal.copied))
        most = self._guards.max_chars
        if most and len(whole.rstrip()) > most:
            end = len(shorten(whole, most)) - offset
            found.append((max(0, end), Refusal.too_long))
        if not found:
            return len(shown), None
        # What is only too long is cut, and no reason to hide what comes before.
        hard = [one for one in found if one[1] is not Refusal.too_long]
        return min(hard or found)

    def _send(self, shown: str, finish: Finish | None) -> Step:
        new = shown[self._num_sent :]
        self._num_sent = max(self._num_sent, len(shown))
        return Step(new, finish)
