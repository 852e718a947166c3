"""Which runs of words stand in both of two sets of posts: exact, by a suffix array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from huggingtweets.data.spans import Indices
from huggingtweets.data.words import Words, split_words


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
        return length >= num_words and self.words.weight(start, length) > num_words - 1e-6

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


class CopyIndex:
    """Tells which texts have copied this many words in a row: many times, of the same sources.

    A text that has no run of `num_words` words in common with a source has copied none worth as
    many, so only the others are compared, with the sources they share a run with.
    """

    def __init__(self, sources: Sequence[str], num_words: int) -> None:
        """Note every run of `num_words` words of the sources."""
        self._sources = sources
        self._num_words = num_words
        self._owners: dict[int, list[int]] = {}
        for owner, source in enumerate(sources):
            for run in self._runs(source):
                self._owners.setdefault(run, []).append(owner)

    def has_copied(self, texts: Sequence[str]) -> list[bool]:
        """Say of each text what `Runs.has_copied` says of it."""
        shared = [
            {owner for run in self._runs(text) for owner in self._owners.get(run, ())}
            for text in texts
        ]
        suspects = [index for index, owners in enumerate(shared) if owners]
        sources = [self._sources[owner] for owner in sorted(set().union(*shared))]
        found = [False] * len(texts)
        if suspects:
            runs = find_runs(sources, [texts[index] for index in suspects])
            for index, run in zip(suspects, runs, strict=True):
                found[index] = run.has_copied(self._num_words)
        return found

    def _runs(self, text: str) -> set[int]:
        """Return the hashes of a text's runs; two runs of one hash cost a comparison more."""
        words = split_words(text).words
        num = self._num_words
        return {hash(words[start : start + num]) for start in range(len(words) - num + 1)}


def find_runs(sources: Sequence[str], texts: Sequence[str]) -> list[Runs]:
    """Compare each text with all sources; 3,000 sources and 1,000 texts take about a second."""
    split = [split_words(text) for text in texts]
    distinct = list(dict.fromkeys(split_words(source).words for source in sources))
    lengths = _longest_matches(distinct, [words.words for words in split])
    return [Runs(words, matched) for words, matched in zip(split, lengths, strict=True)]


def _longest_matches(
    sources: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]
) -> list[tuple[int, ...]]:
    """Return, for each word of each text, the length of the longest run in one source."""
    numbers: dict[str, int] = {}
    documents = [*sources, *texts]
    flat: list[int] = []
    for index, document in enumerate(documents):
        flat += [numbers.setdefault(word, len(numbers)) for word in document]
        flat.append(-1 - index)  # ends that equal nothing: no run reaches over one
    names = _names(np.array(flat, dtype=np.int64))
    first_text = sum(map(len, sources)) + len(sources)
    lengths = _neighbour_matches(names, first_text) if sources else np.zeros(len(flat), np.int64)
    found = []
    position = first_text
    for text in texts:
        found.append(tuple(lengths[position : position + len(text)].tolist()))
        position += len(text) + 1
    return found


def _names(ids: Indices) -> list[Indices]:
    """Number the runs of 1, 2, 4 ... ids from every place, in their order, until all differ."""
    names = [np.unique(ids, return_inverse=True)[1].astype(np.int64)]
    span = 1
    while names[-1].max(initial=0) + 1 < len(ids):
        last = names[-1]
        following = np.concatenate([last[span:] + 1, np.zeros(min(span, len(ids)), np.int64)])
        keys = last * (len(ids) + 1) + following
        names.append(np.unique(keys, return_inverse=True)[1].astype(np.int64))
        span *= 2
    return names


def _neighbour_matches(names: list[Indices], first_text: int) -> Indices:
    """Return for each place of a text its match with the nearest source in sorted order."""
    rank = names[-1]
    order = np.argsort(rank)
    place = np.arange(len(order))
    is_source = order < first_text
    before = np.maximum.accumulate(np.where(is_source, place, -1))
    after = np.minimum.accumulate(np.where(is_source, place, len(order))[::-1])[::-1]
    best = np.zeros(len(order), dtype=np.int64)
    for neighbour in (before, after):
        exists = (neighbour >= 0) & (neighbour < len(order)) & ~is_source
        here = order[exists]
        best[here] = np.maximum(best[here], _common(names, here, order[neighbour[exists]]))
    return best


def _common(names: list[Indices], left: Indices, right: Indices) -> Indices:
    """Return how many ids the runs from `left` and `right` have in common."""
    count = np.zeros(len(left), dtype=np.int64)
    size = len(names[0])
    for level in reversed(range(len(names))):
        a, b = np.minimum(left + count, size - 1), np.minimum(right + count, size - 1)
        count += (names[level][a] == names[level][b]).astype(np.int64) << level
    return count
