"""Groups of posts that say the same in nearly the same characters. Exact: no pair is missed.

Two posts are near-duplicates when their normalised texts share at least half of their distinct
pieces of six characters: Jaccard similarity of `THRESHOLD` or more. Groups are the connected
components. A text of 100 characters stays a near-duplicate with two or three words replaced.
"""

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from huggingtweets.data.spans import Indices, spans

PIECE_CHARS = 6
THRESHOLD = 0.5

_CHUNK_PAIRS = 1 << 19
_BITMAP_WORDS = 16

_NOT_TEXT = re.compile(r"https?:\S+|@[a-z0-9_]+")
_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Return the letters and digits of a post, case-folded, without links, mentions and spaces.

    A post that has none is returned as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub("", _NOT_TEXT.sub(" ", folded)) or text


def group_near_duplicates(texts: Sequence[str]) -> list[int]:
    """Label each text with its group: the index of the first text in it."""
    number: dict[str, int] = {}
    numbers = [number.setdefault(normalise(text), len(number)) for text in texts]
    labels = _label(list(number)).tolist()
    first: dict[int, int] = {}
    return [first.setdefault(labels[number], index) for index, number in enumerate(numbers)]


@dataclass(frozen=True)
class _Sets:
    """The distinct pieces of every text, rarest piece of all texts first.

    Text i has `pieces[starts[i] : starts[i] + sizes[i]]`, ascending numbers below `num_pieces`.
    """

    pieces: Indices
    starts: Indices
    sizes: Indices
    num_pieces: int


def _label(texts: Sequence[str]) -> Indices:
    """Label distinct texts by group.

    The prefix filter of set-similarity joins: with the pieces of every text in one order, rarest
    first, a set of n pieces and a smaller one that is similar share a piece among the first
    n - ceil(tn) + 1 of the larger and the first m - ceil(2tm / (1 + t)) + 1 of the smaller. So
    only texts that share a rare piece are compared at all.
    """
    labels = np.arange(len(texts), dtype=np.int64)
    if len(texts) < 2:
        return labels
    sets = _piece_sets(texts)
    bitmaps = _bitmaps(sets)
    probes, partners, low, high = _prefix_ranges(sets)
    # First every probe with one partner: where one template makes hundreds of posts alike, that
    # joins them, and their quadratically many pairs need not be looked at.
    for left, right in _pairs(probes, partners, low, low + 1):
        _merge(labels, *_similar(left, right, labels, sets, bitmaps))
    is_open = _is_open(labels[probes], labels[partners], low, high)
    for left, right in _pairs(probes[is_open], partners, low[is_open], high[is_open]):
        _merge(labels, *_similar(left, right, labels, sets, bitmaps))
    return labels


def _piece_sets(texts: Sequence[str]) -> _Sets:
    """Cut texts into pieces; one shorter than a piece is padded to one."""
    padded = [text.ljust(PIECE_CHARS, "\0") for text in texts]
    codes = np.frombuffer(
        "".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32
    ).astype(np.uint64)
    # A 64-bit hash of each window; the random odd factors make a collision as good as impossible.
    factors = random.Random(0)
    hashes = np.zeros(len(codes) - PIECE_CHARS + 1, dtype=np.uint64)
    for offset in range(PIECE_CHARS):
        factor = np.uint64(factors.getrandbits(64) | 1)
        hashes += codes[offset : offset + len(hashes)] * factor

    counts = np.array([len(text) - PIECE_CHARS + 1 for text in padded], dtype=np.int64)
    owners = np.repeat(np.arange(len(texts), dtype=np.int64), counts)
    inside = np.arange(len(owners), dtype=np.int64) + owners * (PIECE_CHARS - 1)
    distinct, pieces = np.unique(hashes[inside], return_inverse=True)
    num_pieces = len(distinct)
    owners, pieces = np.divmod(np.unique(owners * num_pieces + pieces), num_pieces)
    rank = np.empty(num_pieces, dtype=np.int64)
    rank[np.argsort(np.bincount(pieces, minlength=num_pieces), kind="stable")] = np.arange(
        num_pieces
    )
    keys = np.sort(owners * num_pieces + rank[pieces])
    sizes = np.bincount(owners, minlength=len(texts)).astype(np.int64)
    return _Sets(keys % num_pieces, np.cumsum(sizes) - sizes, sizes, num_pieces)


def _prefix_ranges(sets: _Sets) -> tuple[Indices, Indices, Indices, Indices]:
    """Find, for every text and each of its rarest pieces, the texts to compare it with.

    Returns (probes, partners, low, high): text `probes[k]` shares a rare piece with each of
    `partners[low[k] : high[k]]`, which are not larger, and large enough to be similar.
    """
    owners = np.repeat(np.arange(len(sets.sizes), dtype=np.int64), sets.sizes)
    sizes = sets.sizes[owners]
    positions = np.arange(len(owners), dtype=np.int64) - sets.starts[owners]
    is_probe = positions <= sizes - np.ceil(THRESHOLD * sizes)
    is_index = positions <= sizes - np.ceil(2 * THRESHOLD / (1 + THRESHOLD) * sizes - 1e-9)

    stride = int(sizes.max()) + 1
    keys = sets.pieces * stride + sizes
    order = np.argsort(keys[is_index], kind="stable")
    index_keys = keys[is_index][order]
    first_keys = sets.pieces * stride + np.ceil(THRESHOLD * sizes).astype(np.int64)
    low = np.searchsorted(index_keys, first_keys[is_probe], side="left")
    high = np.searchsorted(index_keys, keys[is_probe], side="right")
    found = low < high
    return owners[is_probe][found], owners[is_index][order], low[found], high[found]


def _pairs(
    probes: Indices, partners: Indices, low: Indices, high: Indices
) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs of texts (left < right), distinct within a chunk."""
    num_texts = int(max(probes.max(initial=0), partners.max(initial=0))) + 1
    ends = np.cumsum(high - low)
    begin = 0
    while begin < len(probes):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CHUNK_PAIRS, side="right")))
        counts = (high - low)[begin:end]
        left = np.repeat(probes[begin:end], counts)
        right = partners[spans(low[begin:end], counts)]
        keys = np.unique(np.minimum(left, right) * num_texts + np.maximum(left, right))
        left, right = np.divmod(keys, num_texts)
        yield left[left < right], right[left < right]
        begin = end


def _similar(
    left: Indices, right: Indices, labels: Indices, sets: _Sets, bitmaps: npt.NDArray[np.uint64]
) -> tuple[Indices, Indices]:
    """Keep the pairs that are similar and not yet in one group."""
    is_apart = labels[left] != labels[right]
    left, right = left[is_apart], right[is_apart]
    total = sets.sizes[left] + sets.sizes[right]
    needed = np.ceil(THRESHOLD / (1 + THRESHOLD) * total - 1e-9).astype(np.int64)
    # Bits in which the bitmaps differ are at most the pieces in which the texts differ.
    differing = np.bitwise_count(bitmaps[left] ^ bitmaps[right]).sum(axis=1, dtype=np.int64)
    is_possible = differing <= total - 2 * needed
    left, right, needed = left[is_possible], right[is_possible], needed[is_possible]
    is_similar = _count_shared(left, right, sets) >= needed
    return left[is_similar], right[is_similar]


def _bitmaps(sets: _Sets) -> npt.NDArray[np.uint64]:
    """Return a row of bits a text, (texts, words): each piece flips the bit it hashes to."""
    owners = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    num_bits = 64 * _BITMAP_WORDS
    bit = sets.pieces % num_bits
    bitmaps = np.zeros((len(sets.sizes), _BITMAP_WORDS), dtype=np.uint64)
    np.bitwise_xor.at(bitmaps, (owners, bit // 64), np.uint64(1) << (bit % 64).astype(np.uint64))
    return bitmaps


def _count_shared(left: Indices, right: Indices, sets: _Sets) -> Indices:
    """Count the pieces that both texts of each pair have."""
    shared = np.empty(len(left), dtype=np.int64)
    step = 1 << 14
    for begin in range(0, len(left), step):
        chunk = slice(begin, begin + step)
        keys = [
            np.repeat(np.arange(len(side)) * sets.num_pieces, sets.sizes[side])
            + sets.pieces[spans(sets.starts[side], sets.sizes[side])]
            for side in (left[chunk], right[chunk])
        ]
        both = np.intersect1d(keys[0], keys[1], assume_unique=True) // sets.num_pieces
        shared[chunk] = np.bincount(both, minlength=len(left[chunk]))
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


def _is_open(own: Indices, labels: Indices, low: Indices, high: Indices) -> npt.NDArray[np.bool_]:
    """Tell which ranges of `labels`, none of them empty, hold another label than `own`."""
    num_changes = np.concatenate([[0], np.cumsum(labels[1:] != labels[:-1])])
    is_uniform: npt.NDArray[np.bool_] = (num_changes[low] == num_changes[high - 1]) & (
        labels[low] == own
    )
    return np.logical_not(is_uniform)
