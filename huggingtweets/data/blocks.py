"""Blocks of token ids: the one form in which text reaches an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import numpy.typing as npt

from huggingtweets.data.spans import Indices, spans
from huggingtweets.errors import DataError

IGNORED = -100
"""A target that counts for nothing."""

OPEN_BLOCKS = 16
"""Blocks that packing keeps open: more waste less, and stray further from the given order.

Measured on eight accounts' posts in blocks of 256: 11.0 % is padding with one open block, 6.7 %
with 2, 5.4 % with 4, and 4.6 to 4.8 % with 8 to 64.
"""

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Blocks:
    """N blocks of T tokens, all int32 arrays of shape (N, T)."""

    input_ids: Ids
    targets: Ids
    """The id that follows each input (already shifted); IGNORED where there is none to learn."""
    position_ids: Ids
    """Position within the document, restarting at 0 where attention must not look back further.

    Padding at the end of a block is a document of its own: EOS inputs, IGNORED targets.
    """

    def __len__(self) -> int:
        """Return N."""
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """Targets that count, over all blocks."""
        return int((self.targets != IGNORED).sum())


@dataclass(frozen=True)
class Pieces:
    """Where posts lie in isolated blocks; a post longer than a block lies there in several pieces.

    All arrays are (pieces,) int64, in the order of the posts and of their text.
    """

    starts: Indices
    """First token, counted through all blocks."""
    sizes: Indices
    posts: Indices
    """Which post it is of."""


@dataclass(frozen=True)
class TrainingSet:
    """The blocks of a whole training, epoch after epoch, in the order in which they are used.

    Step s (from 0) trains on blocks s * G to (s + 1) * G of `blocks`, G the global batch size; the
    last step may have fewer, nothing is dropped, and a step may hold the end of one epoch and the
    start of the next.
    """

    blocks: Blocks
    blocks_per_epoch: tuple[int, ...]
    """Sums to N. Where blocks run on across epochs, a block belongs to the epoch of its start."""


def build_training_set(
    documents: Sequence[Sequence[Sequence[int]]],
    orders: Sequence[Sequence[tuple[int, int]]],
    *,
    block_size: int,
    eos_id: int,
    isolate: bool,
    bos_id: int | None = None,
) -> TrainingSet:
    """Lay the documents of every epoch into blocks.

    Joined (`isolate=False`, the original's form): one stream over all epochs that begins with EOS
    and has an EOS after every document, cut every T ids; where BOS is another token, each document
    has it in front, and the stream begins with it. A block is one attention span, its last
    target is IGNORED, and the rest of the stream, shorter than T, is dropped, unless there would
    be no block at all: then it is padded.

    Isolated: an epoch's documents, each `BOS t1 .. tn` with targets `t1 .. tn EOS`, are packed
    whole, in the given order, into the fullest of a few open blocks that has room: lengths are not
    sorted, so a block mixes them as the epoch does. A document of more than T inputs is cut into
    pieces of T, and each piece is a document of its own to attention and positions.

    Args:
        documents: user -> post -> ids without EOS. A post without ids is left out.
        orders: epoch -> (user, index) in training order, as `epoch_documents` draws them.
        block_size: T.
        eos_id: the `<|endoftext|>` id; it also pads.
        isolate: which of the two forms.
        bos_id: begins a document; None: `eos_id` does.

    Raises:
        DataError: there is no id to train on.
    """
    bos_id = eos_id if bos_id is None else bos_id
    flat, numbers = _flatten(documents)
    epochs = [_drop_empty(flat, numbers, order) for order in orders]
    if not any(len(epoch) for epoch in epochs):
        raise DataError("posts: got no token to train on; expected some; check the tokenizer")
    if not isolate:
        return _join(flat, epochs, block_size, eos_id, bos_id)
    packed = [_pack(flat, epoch, block_size, eos_id, bos_id)[0] for epoch in epochs]
    return TrainingSet(_concatenate(packed), tuple(len(blocks) for blocks in packed))


def pack_heldout(
    documents: Sequence[Sequence[int]], *, block_size: int, eos_id: int, bos_id: int | None = None
) -> Blocks:
    """Pack held-out posts, isolated, in the given order; each id is a target exactly once.

    Args:
        documents: post -> ids without EOS. A post without ids is left out.
        block_size: T.
        eos_id: the `<|endoftext|>` id; it also pads.
        bos_id: begins a document; None: `eos_id` does.
    """
    return pack_posts(documents, block_size=block_size, eos_id=eos_id, bos_id=bos_id)[0]


def pack_posts(
    documents: Sequence[Sequence[int]], *, block_size: int, eos_id: int, bos_id: int | None = None
) -> tuple[Blocks, Pieces]:
    """Do what `pack_heldout` does, and say where each post lies."""
    flat, numbers = _flatten([documents])
    order = _drop_empty(flat, numbers, [(0, index) for index in range(len(documents))])
    return _pack(flat, order, block_size, eos_id, eos_id if bos_id is None else bos_id)


@dataclass(frozen=True)
class _Flat:
    """All documents of all users in one array: document d is `ids[starts[d] : starts[d + 1]]`."""

    ids: Ids
    starts: Indices

    @property
    def lengths(self) -> Indices:
        return np.diff(self.starts)


def _flatten(documents: Sequence[Sequence[Sequence[int]]]) -> tuple[_Flat, list[int]]:
    """Return the documents and, per user, the number of its first one."""
    lengths = [len(ids) for posts in documents for ids in posts]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    every_id = chain.from_iterable(ids for posts in documents for ids in posts)
    flat = np.fromiter(every_id, np.int32, count=int(starts[-1]))
    return _Flat(flat, starts), list(accumulate((len(posts) for posts in documents), initial=0))


def _drop_empty(flat: _Flat, numbers: list[int], order: Sequence[tuple[int, int]]) -> Indices:
    """Return an epoch's documents, by number, in order, without those that have no ids."""
    chosen = np.array([numbers[user] + index for user, index in order], dtype=np.int64)
    return chosen[flat.lengths[chosen] > 0]


def _join(
    flat: _Flat, epochs: Sequence[Indices], block_size: int, eos_id: int, bos_id: int
) -> TrainingSet:
    """Cut one stream over all epochs into blocks."""
    order = np.concatenate(epochs)
    lengths = flat.lengths[order]
    # Where BOS is EOS, one of them ends a post and begins the next.
    extra, first = (1, 1) if bos_id == eos_id else (2, 0)
    stream = np.full(first + int(lengths.sum()) + extra * len(order), eos_id, dtype=np.int32)
    ends = first + np.cumsum(lengths + extra)
    starts = ends - lengths - 1
    stream[spans(starts, lengths)] = flat.ids[spans(flat.starts[order], lengths)]
    stream[starts - 1] = bos_id
    epoch_starts = np.concatenate([[0], ends])[np.cumsum([0, *map(len, epochs)])]
    epoch_starts[0] = 0
    if len(stream) < block_size:
        return TrainingSet(_pad(stream, block_size, eos_id), (1,) + (0,) * (len(epochs) - 1))
    num_blocks = len(stream) // block_size
    inputs = stream[: num_blocks * block_size].reshape(num_blocks, block_size)
    targets = np.full_like(inputs, IGNORED)
    targets[:, :-1] = inputs[:, 1:]
    positions = np.broadcast_to(np.arange(block_size, dtype=np.int32), inputs.shape).copy()
    first_blocks = np.minimum(-(-epoch_starts // block_size), num_blocks)
    first_blocks[-1] = num_blocks
    counts = tuple(int(count) for count in np.diff(first_blocks))
    return TrainingSet(Blocks(inputs, targets, positions), counts)


def _pad(stream: Ids, block_size: int, eos_id: int) -> Blocks:
    """Make one block of a stream shorter than a block."""
    blocks = _padding(1, block_size, eos_id)
    blocks.input_ids[0, : len(stream)] = stream
    blocks.targets[0, : len(stream) - 1] = stream[1:]
    blocks.position_ids[0] = np.arange(block_size) - len(stream)
    blocks.position_ids[0, : len(stream)] = np.arange(len(stream))
    return blocks


def _padding(num_blocks: int, block_size: int, eos_id: int) -> Blocks:
    """Return blocks of padding alone, their positions still to be filled in."""
    shape = (num_blocks, block_size)
    return Blocks(
        np.full(shape, eos_id, dtype=np.int32),
        np.full(shape, IGNORED, dtype=np.int32),
        np.empty(shape, dtype=np.int32),
    )


def _pack(
    flat: _Flat, order: Indices, block_size: int, eos_id: int, bos_id: int
) -> tuple[Blocks, Pieces]:
    """Pack documents whole, each with its BOS and EOS, into blocks of their own epoch."""
    # All of the epoch's documents with BOS and EOS, then the pieces they are cut into.
    lengths = flat.lengths[order]
    text = np.full(int(lengths.sum()) + 2 * len(order), eos_id, dtype=np.int32)
    text_starts = np.cumsum(lengths + 2) - (lengths + 2)
    text[text_starts] = bos_id
    text[spans(text_starts + 1, lengths)] = flat.ids[spans(flat.starts[order], lengths)]
    starts, sizes = _cut(text_starts, lengths + 1, block_size)
    places, num_blocks = _place(sizes, block_size)

    blocks = _padding(num_blocks, block_size, eos_id)
    source = spans(starts, sizes)
    target = spans(places, sizes)
    blocks.input_ids.reshape(-1)[target] = text[source]
    blocks.targets.reshape(-1)[target] = text[source + 1]
    used = np.zeros(num_blocks, dtype=np.int64)
    np.add.at(used, places // block_size, sizes)
    blocks.position_ids[:] = np.arange(block_size) - used[:, None]
    blocks.position_ids.reshape(-1)[target] = spans(np.zeros_like(sizes), sizes)
    posts = np.repeat(order, -(-(lengths + 1) // block_size))
    return blocks, Pieces(places, sizes, posts)


def _cut(starts: Indices, lengths: Indices, limit: int) -> tuple[Indices, Indices]:
    """Cut spans into pieces of at most `limit`; return the pieces' starts and lengths."""
    num_pieces = -(-lengths // limit)
    within = spans(np.zeros_like(num_pieces), num_pieces) * limit
    return (
        np.repeat(starts, num_pieces) + within,
        np.minimum(np.repeat(lengths, num_pieces) - within, limit),
    )


def _place(sizes: Indices, capacity: int) -> tuple[Indices, int]:
    """Place spans in order; return each one's start in the flattened blocks, and the block count.

    Each goes into the fullest of `OPEN_BLOCKS` open blocks that has room for it. Where none has,
    the fullest is closed. Blocks are numbered as they are opened.
    """
    places = np.empty(len(sizes), dtype=np.int64)
    open_blocks: list[list[int]] = []  # [room, number]
    num_blocks = 0
    for item, size in enumerate(sizes.tolist()):
        block = min((block for block in open_blocks if block[0] >= size), default=None)
        if block is None:
            if len(open_blocks) == OPEN_BLOCKS:
                open_blocks.remove(min(open_blocks))
            block = [capacity, num_blocks]
            open_blocks.append(block)
            num_blocks += 1
        room, number = block
        places[item] = number * capacity + capacity - room
        block[0] -= size
    return places, num_blocks


def _concatenate(parts: Sequence[Blocks]) -> Blocks:
    return Blocks(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.position_ids for part in parts]),
    )
