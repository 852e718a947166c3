"""Groups of posts that say nearly the same. Exact: no similar pair is missed.

Two posts are near-duplicates when, after normalising, they share at least half of the four-letter
pieces of their words (Jaccard similarity of `PIECES_THRESHOLD`), or `WORDS_THRESHOLD` of their
words. So neither links, mentions, case, accents and punctuation make posts differ, nor the order of
words, nor one word in six, nor other endings. Groups are the connected components.
"""

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from huggingtweets.data.spans import Indices, spans

PIECE_CHARS = 4
PIECES_THRESHOLD = 0.5
WORDS_THRESHOLD = 0.7

# Pairs compared at once: their rows of bits, 2 * 8 * _BITMAP_WORDS bytes per pair, take 128 MiB.
_CHUNK_PAIRS = 1 << 19
_BITMAP_WORDS = 16

_NOT_TEXT = re.compile(r"https?:\S+|@[a-z0-9_]+")
_APOSTROPHE = re.compile("['\u2019\u02bc]")
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Return the words of a post, joined by single spaces; what is compared.

    Case, accents and other marks, links, mentions, punctuation and emoji are left out. A post that
    has no letter or digit is returned as it is.
    """
    folded = unicodedata.normalize("NFKD", text).casefold()
    folded = _APOSTROPHE.sub("", _NOT_TEXT.sub(" ", folded))
    marks = [ord(char) for char in set(folded) if unicodedata.category(char)[0] == "M"]
    return _NOT_WORD.sub(" ", folded.translate(dict.fromkeys(marks))).strip() or text


def group_near_duplicates(texts: Sequence[str]) -> list[int]:
    """Label each text with its group: the index of the first text in it."""
    number: dict[str, int] = {}
    numbers = [number.setdefault(normalise(text), len(number)) for text in texts]
    labels = _label(list(number)).tolist()
    first: dict[int, int] = {}
    return [first.setdefault(labels[number], index) for index, number in enumerate(numbers)]


@dataclass(frozen=True)
class _Sets:
    """A set of features for every text, rarest feature of all texts first.

    Text i has `features[starts[i] : starts[i] + sizes[i]]`, ascending numbers below `num_features`.
    """

    features: Indices
    starts: Indices
    sizes: Indices
    num_features: int


def _label(texts: Sequence[str]) -> Indices:
    """Label distinct normalised texts by group."""
    labels = np.arange(len(texts), dtype=np.int64)
    if len(texts) > 1:
        _join_similar(labels, _piece_sets(texts), PIECES_THRESHOLD)
        _join_similar(labels, _word_sets(texts), WORDS_THRESHOLD)
    return labels


def _piece_sets(texts: Sequence[str]) -> _Sets:
    """Cut the words of each text into overlapping pieces, the ends of words marked by a space."""
    padded = [f" {text} " for text in texts]
    codes = np.frombuffer(
        "".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32
    ).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in padded])
    # A 64-bit hash of each window; the random odd factors make a collision as good as impossible.
    factors = random.Random(0)
    hashes = np.zeros(max(0, len(codes) - PIECE_CHARS + 1), dtype=np.uint64)
    is_inside = np.ones(len(hashes), dtype=np.bool_)
    for offset in range(PIECE_CHARS):
        window = codes[offset : offset + len(hashes)]
        hashes += window * np.uint64(factors.getrandbits(64) | 1)
        if 0 < offset < PIECE_CHARS - 1:
            is_inside &= window != ord(" ")  # the border of two texts is two spaces
    _, features = np.unique(hashes[is_inside], return_inverse=True)
    return _make_sets(owners[: len(hashes)][is_inside], features, len(texts))


def _word_sets(texts: Sequence[str]) -> _Sets:
    """Take the words of each text."""
    number: dict[str, int] = {}
    words = [text.split() for text in texts]
    features = [number.setdefault(word, len(number)) for each in words for word in each]
    owners = np.repeat(np.arange(len(texts)), [len(each) for each in words])
    return _make_sets(owners, np.array(features, dtype=np.int64), len(texts))


def _make_sets(owners: Indices, features: Indices, num_texts: int) -> _Sets:
    """Gather (text, feature) pairs into sets; features are renumbered by rarity."""
    num_features = int(features.max(initial=0)) + 1
    keys = np.sort(owners * num_features + features)
    owners, features = np.divmod(keys[np.diff(keys, prepend=-1) > 0], num_features)
    frequency = np.bincount(features, minlength=num_features)
    rank = np.empty(num_features, dtype=np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(num_features)
    keys = np.sort(owners * num_features + rank[features])
    sizes = np.bincount(owners, minlength=num_texts).astype(np.int64)
    return _Sets(keys % num_features, np.cumsum(sizes) - sizes, sizes, num_features)


def _join_similar(labels: Indices, sets: _Sets, threshold: float) -> None:
    """Give texts whose sets are similar one label, in place.

    The prefix filter of set-similarity joins: with the features of every text in one order, rarest
    first, a set of n features and a similar one of m <= n share a feature among the first
    n - ceil(tn) + 1 of the one and the first m - ceil(2tm / (1 + t)) + 1 of the other. So only
    texts that share a rare feature are compared at all.
    """
    bitmaps = _bitmaps(sets)
    probes, partners, low, high = _prefix_ranges(sets, threshold)
    # First every probe with one partner: where one template makes hundreds of posts alike, that
    # joins them, and their quadratically many pairs need not be looked at.
    for ends in (low + 1, high):
        is_open = _is_open(labels, probes, partners, low, ends)
        ranges = probes[is_open], partners, low[is_open], ends[is_open]
        for left, right in _pairs(labels, *ranges):
            is_similar = _are_similar(left, right, sets, bitmaps, threshold)
            _merge(labels, left[is_similar], right[is_similar])


def _prefix_ranges(sets: _Sets, threshold: float) -> tuple[Indices, Indices, Indices, Indices]:
    """Find, for every text and each of its rarest features, the texts to compare it with.

    Returns (probes, partners, low, high): text `probes[k]` shares a rare feature with each of
    `partners[low[k] : high[k]]`, which are not larger, and large enough to be similar.
    """
    owners = np.repeat(np.arange(len(sets.sizes), dtype=np.int64), sets.sizes)
    sizes = sets.sizes[owners]
    positions = np.arange(len(owners), dtype=np.int64) - sets.starts[owners]
    # A product such as 0.7 * 10 may come out a hair above 7, and must not be rounded up to 8.
    is_probe = positions <= sizes - np.ceil(threshold * sizes - 1e-9)
    is_index = positions <= sizes - np.ceil(2 * threshold / (1 + threshold) * sizes - 1e-9)

    stride = int(sizes.max(initial=0)) + 1
    keys = sets.features * stride + sizes
    order = np.argsort(keys[is_index], kind="stable")
    index_keys = keys[is_index][order]
    first_keys = sets.features * stride + np.ceil(threshold * sizes - 1e-9).astype(np.int64)
    low = np.searchsorted(index_keys, first_keys[is_probe], side="left")
    high = np.searchsorted(index_keys, keys[is_probe], side="right")
    found = low < high
    return owners[is_probe][found], owners[is_index][order], low[found], high[found]


def _is_open(
    labels: Indices, probes: Indices, partners: Indices, low: Indices, high: Indices
) -> npt.NDArray[np.bool_]:
    """Tell which probes have a partner that is not in their group."""
    own, other = labels[probes], labels[partners]
    num_changes = np.concatenate([[0], np.cumsum(other[1:] != other[:-1])])
    is_open: npt.NDArray[np.bool_] = num_changes[low] != num_changes[high - 1]
    is_open |= other[low] != own
    return is_open


def _pairs(
    labels: Indices, probes: Indices, partners: Indices, low: Indices, high: Indices
) -> Iterator[tuple[Indices, Indices]]:
    """Yield each probe with its partners, as far as they are not in one group by then."""
    counts = high - low
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(probes):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK_PAIRS, side="right")))
        left = np.repeat(probes[begin:end], counts[begin:end])
        right = partners[spans(low[begin:end], counts[begin:end])]
        is_apart = labels[left] != labels[right]
        yield left[is_apart], right[is_apart]
        begin = end


def _are_similar(
    left: Indices,
    right: Indices,
    sets: _Sets,
    bitmaps: npt.NDArray[np.uint64],
    threshold: float,
) -> npt.NDArray[np.bool_]:
    """Tell which pairs of sets are similar."""
    total = sets.sizes[left] + sets.sizes[right]
    needed = np.ceil(threshold / (1 + threshold) * total - 1e-9).astype(np.int64)
    # Bits in which the bitmaps differ are at most the features in which the texts differ. Without
    # this look, six accounts of 3,200 posts each take 6.5 s in place of 1.5 s.
    differing = np.bitwise_count(bitmaps[left] ^ bitmaps[right]).sum(axis=1, dtype=np.int64)
    result: npt.NDArray[np.bool_] = differing <= total - 2 * needed
    possible = np.flatnonzero(result)
    shared = _count_shared(left[possible], right[possible], sets)
    result[possible] = shared >= needed[possible]
    return result


def _bitmaps(sets: _Sets) -> npt.NDArray[np.uint64]:
    """Return a row of bits per text, (texts, words): each feature flips the bit it hashes to."""
    owners = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    num_bits = 64 * _BITMAP_WORDS
    bit = sets.features % num_bits
    bitmaps = np.zeros((len(sets.sizes), _BITMAP_WORDS), dtype=np.uint64)
    np.bitwise_xor.at(bitmaps, (owners, bit // 64), np.uint64(1) << (bit % 64).astype(np.uint64))
    return bitmaps


def _count_shared(left: Indices, right: Indices, sets: _Sets) -> Indices:
    """Count the features that both texts of each pair have."""
    shared = np.empty(len(left), dtype=np.int64)
    step = 1 << 14
    for begin in range(0, len(left), step):
        chunk = slice(begin, begin + step)
        keys = np.concatenate(
            [
                np.repeat(np.arange(len(side)) * sets.num_features, sets.sizes[side])
                + sets.features[spans(sets.starts[side], sets.sizes[side])]
                for side in (left[chunk], right[chunk])
            ]
        )
        keys.sort(kind="stable")  # two ascending runs: merged in linear time
        pairs = keys[1:][keys[1:] == keys[:-1]] // sets.num_features
        shared[chunk] = np.bincount(pairs, minlength=len(left[chunk]))
    return shared


def _merge(labels: Indices, left: Indices, right: Indices) -> None:
    """Join groups, in place: afterwards both texts of each pair have one label."""
    parent: dict[int, int] = {}

    def find(label: int) -> int:
        while (above := parent.get(label, label)) != label:
            parent[label] = parent.get(above, above)
            label = above
        return label

    for a, b in zip(labels[left].tolist(), labels[right].tolist(), strict=True):
        first, second = sorted((find(a), find(b)))
        if first != second:
            parent[second] = first
    relabel = np.arange(len(labels), dtype=np.int64)
    relabel[list(parent)] = [find(label) for label in list(parent)]
    labels[:] = relabel[labels]
