"""Which runs of words stand in both of two sets of posts."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from huggingtweets.data.spans import Indices
from huggingtweets.data.words import Words, split_words

BASE = 0x9E3779B97F4A7C15
"""Odd, so that no power of it is zero modulo 2**64."""
Sums = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Runs:
    """One text held against a set of source texts."""

    words: Words
    lengths: tuple[int, ...]
    """For each word of the text: how many words from there on stand so in one source text."""

    @property
    def longest(self) -> int:
        """Words of the longest run that a source text has too."""
        return max(self.lengths, default=0)

    def has_copied(self, num_words: int) -> bool:
        """Whether a run worth this many words or more (`Words.weight`) stands in a source text."""
        return any(self._is_worth(start, num_words) for start in range(len(self.lengths)))

    def _is_worth(self, start: int, num_words: int) -> bool:
        length = self.lengths[start]
        # Weights are sums of thirds: three letters may come out a hair below a word.
        return length >= num_words and self.words.weight(start, length) > num_words - 1e-6

    def first_copied(self, num_words: int) -> int | None:
        """Return where, in characters, a run becomes worth `num_words`; None: none does."""
        ends = []
        for start, length in enumerate(self.lengths):
            for taken in range(num_words, length + 1):
                if self.words.weight(start, taken) > num_words - 1e-6:
                    ends.append(self.words.spans[start + taken - 1][0])
                    break
        return min(ends, default=None)

    def num_seen(self, n: int) -> int:
        """Count the places whose n words stand so in a source text."""
        return sum(length >= n for length in self.lengths)

    def spans(self, min_words: int) -> tuple[tuple[int, int], ...]:
        """Return start and end, in characters, of what runs worth `min_words` or more cover.

        Spans are in order and do not touch.
        """
        found: list[tuple[int, int]] = []
        last = -1
        for index, length in enumerate(self.lengths):
            if not self._is_worth(index, min_words):
                continue
            start, end = self.words.spans[index][0], self.words.spans[index + length - 1][1]
            if found and index <= last + 1:
                found[-1] = (found[-1][0], max(end, found[-1][1]))
            else:
                found.append((start, end))
            last = max(last, index + length - 1)
        return tuple(found)


def find_runs(sources: Sequence[str], texts: Sequence[str]) -> list[Runs]:
    """Compare each text with all sources."""
    index = CopyIndex(sources)
    return [index.find(text) for text in texts]


class CopyIndex:
    """Source texts whose pairs of words are sorted once; then texts come one by one, or many.

    Longer runs are compared by sums over their words, `sum of value(word) * BASE ** place` modulo
    2**64 with random values (Karp and Rabin, 1987): as fast for a thousand words as for three, so
    that a post of one word ten thousand times costs no more than others.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        """Number all words and sort their pairs."""
        documents = dict.fromkeys(split_words(source).words for source in sources)
        self._numbers: dict[str, int] = {}
        flat: list[int] = []
        for words in documents:
            flat += [self._numbers.setdefault(word, len(self._numbers)) for word in words]
            flat.append(-1)  # the end of a text: no run reaches over it
        ids = np.array(flat, dtype=np.int64)
        self._values = np.random.default_rng(0).integers(
            2**64, size=len(self._numbers) + 1, dtype=np.uint64
        )
        self._sums, self._powers = self._sum_up(ids)
        pairs = _pairs(ids)
        self._order = np.argsort(pairs, kind="stable")
        self._sorted = pairs[self._order]

    @property
    def num_bytes(self) -> int:
        """Memory it takes, about."""
        arrays = (self._values, self._sums, self._powers, self._order, self._sorted)
        # A word in the dictionary: its text (60 bytes and more), its number, and its entry.
        return sum(array.nbytes for array in arrays) + 120 * len(self._numbers)

    def find(self, text: str) -> Runs:
        """Hold one text against all sources."""
        words = split_words(text)
        ids = np.array([self._numbers.get(word, -1) for word in words.words], dtype=np.int64)
        lengths = (ids >= 0).astype(int).tolist()
        sums, powers = self._sum_up(ids)
        unknown = [*np.flatnonzero(ids < 0).tolist(), len(ids)]
        pairs = _pairs(ids)
        lows, highs = np.searchsorted(self._sorted, pairs), np.searchsorted(self._sorted, pairs + 1)
        starts = np.flatnonzero((lows < highs) & (ids[:-1] >= 0) & (ids[1:] >= 0)).tolist()
        with np.errstate(over="ignore"):  # sums are meant modulo 2**64
            for start in starts:
                places = self._order[lows[start] : highs[start]]
                length, step = 2, max(1, lengths[start - 1] - 3)  # a run begun before goes on
                most = unknown[bisect(unknown, start)] - start
                while length < most:
                    longer = min(length + step, most)
                    # What runs over the end of all sources holds an end, which equals no word.
                    theirs = self._sums.take(places + longer, mode="clip") - self._sums[places]
                    ours = sums[start + longer] - sums[start]
                    alike = places[theirs * powers[start] == ours * self._powers[places]]
                    if len(alike):
                        places, length, step = alike, longer, 2 * step
                    else:
                        most, step = longer - 1, 1
                lengths[start] = length
        return Runs(words, tuple(lengths))

    def _sum_up(self, ids: Indices) -> tuple[Sums, Sums]:
        """Return the sums of the words before each place, and the powers of BASE."""
        powers = np.full(len(ids) + 1, BASE, dtype=np.uint64)
        powers[0] = 1
        powers = np.cumprod(powers)
        sums = np.zeros(len(ids) + 1, dtype=np.uint64)
        np.cumsum(self._values[ids] * powers[:-1], out=sums[1:])
        return sums, powers


def _pairs(ids: Indices) -> Indices:
    """Return one number for each two neighbours; words are fewer than 2**32."""
    return (ids[:-1] << 32) + ids[1:]
