"""Runs of words that a text has in common with the training posts, found in microseconds.

`data/copying.py` sorts all posts again for every question, which is right for a thousand samples at
once. Here the posts are sorted once, by pairs of words, and texts come one by one.
"""

from collections.abc import Sequence

import numpy as np

from huggingtweets.data.copying import Runs
from huggingtweets.data.words import split_words


class CopyIndex:
    """The training posts of one person, ready to be asked."""

    def __init__(self, posts: Sequence[str]) -> None:
        """Number all words and sort their pairs."""
        documents = list(dict.fromkeys(split_words(post).words for post in posts))
        self._numbers: dict[str, int] = {}
        flat: list[int] = []
        for words in documents:
            flat += [self._numbers.setdefault(word, len(self._numbers)) for word in words]
            flat.append(-1)  # equals no word: no run reaches over it
        self._flat = np.array(flat, dtype=np.int64)
        self._pairs = (self._flat[:-1] << 32) + self._flat[1:]
        self._order = np.argsort(self._pairs, kind="stable").astype(np.int32)
        self._sorted = self._pairs[self._order]

    @property
    def num_bytes(self) -> int:
        """Memory it takes, about."""
        arrays = (self._flat, self._pairs, self._order, self._sorted)
        return sum(array.nbytes for array in arrays) + 120 * len(self._numbers)

    def find(self, text: str) -> Runs:
        """Return what `find_runs` returns for one text."""
        words = split_words(text)
        ids = [self._numbers.get(word, -2 - at) for at, word in enumerate(words.words)]
        lengths = [self._longest(ids, start) for start in range(len(ids))]
        return Runs(words, tuple(lengths))

    def _longest(self, ids: Sequence[int], start: int) -> int:
        if ids[start] < 0:
            return 0
        if start + 1 == len(ids) or ids[start + 1] < 0:
            return 1
        pair = (ids[start] << 32) + ids[start + 1]
        low, high = np.searchsorted(self._sorted, [pair, pair + 1])
        if low == high:
            return 1
        # All places of the pair together; those that part from the text fall away word by word.
        places = self._order[low:high].astype(np.int64)
        length = 2
        while start + length < len(ids) and ids[start + length] >= 0:
            inside = places[places + length < len(self._flat)]
            places = inside[self._flat[inside + length] == ids[start + length]]
            if not len(places):
                break
            length += 1
        return length


def first_copied(runs: Runs, num_words: int) -> int | None:
    """Return where, in characters, a copied run becomes worth `num_words`; None: none does."""
    ends = []
    for start, length in enumerate(runs.lengths):
        for taken in range(num_words, length + 1):
            if runs.words.weight(start, taken) > num_words - 1e-6:
                ends.append(runs.words.spans[start + taken - 1][0])
                break
    return min(ends, default=None)
