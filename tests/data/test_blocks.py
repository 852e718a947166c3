import random
import statistics
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huggingtweets.data.blocks import IGNORED, Blocks, TrainingSet, build_training_set, pack_heldout
from huggingtweets.data.corpus import epoch_documents
from huggingtweets.errors import DataError

EOS = 0
Documents = list[list[list[int]]]
Orders = list[list[tuple[int, int]]]

IDS = st.lists(st.integers(1, 9), max_size=20)
USERS = st.lists(st.lists(IDS, max_size=8), min_size=1, max_size=3)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[Documents, Orders]:
    """Documents with at least one id, and epochs that order all of them, some twice."""
    documents = draw(USERS.filter(lambda users: any(ids for user in users for ids in user)))
    every = [(user, index) for user, posts in enumerate(documents) for index in range(len(posts))]
    extra = draw(st.lists(st.sampled_from(every), max_size=3))
    orders = draw(st.lists(st.permutations(every + extra), min_size=1, max_size=3))
    return documents, orders


def build(documents: Documents, orders: Orders, block_size: int, *, isolate: bool) -> TrainingSet:
    return build_training_set(documents, orders, block_size=block_size, eos_id=EOS, isolate=isolate)


def unpack(blocks: Blocks) -> list[tuple[list[int], list[int]]]:
    """Take blocks apart where positions restart: (inputs, targets) of each piece but padding."""
    pieces = []
    for inputs, targets, positions in zip(
        blocks.input_ids, blocks.targets, blocks.position_ids, strict=True
    ):
        starts = [*np.flatnonzero(positions == 0), len(positions)]
        assert starts[0] == 0
        for begin, end in pairwise(starts):
            assert positions[begin:end].tolist() == list(range(end - begin))
            piece = targets[begin:end].tolist()
            if IGNORED in piece:
                assert end == len(positions), "padding stands at the end of its block"
                assert set(piece) == {IGNORED}
                assert set(inputs[begin:end].tolist()) == {EOS}
            else:
                pieces.append((inputs[begin:end].tolist(), piece))
    return pieces


def expected_pieces(ids: list[int], block_size: int) -> list[tuple[list[int], list[int]]]:
    inputs, targets = [EOS, *ids], [*ids, EOS]
    cuts = range(0, len(inputs), block_size)
    return [(inputs[cut : cut + block_size], targets[cut : cut + block_size]) for cut in cuts]


@given(corpora(), st.integers(1, 40))
@settings(deadline=None)
def test_isolated_epochs_hold_every_document_whole(
    corpus: tuple[Documents, Orders], block_size: int
) -> None:
    documents, orders = corpus
    result = build(documents, orders, block_size, isolate=True)
    assert sum(result.blocks_per_epoch) == len(result.blocks)
    begin = 0
    for order, num_blocks in zip(orders, result.blocks_per_epoch, strict=True):
        span = slice(begin, begin + num_blocks)
        found = unpack(
            Blocks(
                result.blocks.input_ids[span],
                result.blocks.targets[span],
                result.blocks.position_ids[span],
            )
        )
        wanted = [
            piece
            for user, index in order
            if documents[user][index]
            for piece in expected_pieces(documents[user][index], block_size)
        ]
        assert sorted(found) == sorted(wanted)
        begin += num_blocks


@given(corpora(), st.integers(1, 40))
@settings(deadline=None)
def test_joined_blocks_are_the_cut_stream(
    corpus: tuple[Documents, Orders], block_size: int
) -> None:
    documents, orders = corpus
    stream, epoch_of = [EOS], [0]
    for epoch, order in enumerate(orders):
        for user, index in order:
            if ids := documents[user][index]:
                stream += [*ids, EOS]
                epoch_of += [epoch] * (len(ids) + 1)
    result = build(documents, orders, block_size, isolate=False)
    blocks = result.blocks
    if len(stream) < block_size:
        used = len(stream)
        assert blocks.input_ids.tolist() == [stream + [EOS] * (block_size - used)]
        assert blocks.targets.tolist() == [stream[1:] + [IGNORED] * (block_size - used + 1)]
        assert blocks.position_ids.tolist() == [[*range(used), *range(block_size - used)]]
        assert result.blocks_per_epoch == (1, *[0] * (len(orders) - 1))
        return
    count = len(stream) // block_size
    assert len(blocks) == count
    assert blocks.input_ids.reshape(-1).tolist() == stream[: count * block_size]
    for row in range(count):
        begin = row * block_size
        assert blocks.position_ids[row].tolist() == list(range(block_size))
        following = stream[begin + 1 : begin + block_size]
        assert blocks.targets[row].tolist() == [*following, IGNORED]
    starts = [epoch_of[row * block_size] for row in range(count)]
    assert result.blocks_per_epoch == tuple(starts.count(epoch) for epoch in range(len(orders)))


@given(st.lists(IDS, max_size=12), st.integers(1, 40))
@settings(deadline=None)
def test_heldout_posts_are_scored_whole_and_once(
    documents: list[list[int]], block_size: int
) -> None:
    blocks = pack_heldout(documents, block_size=block_size, eos_id=EOS)
    wanted = [piece for ids in documents if ids for piece in expected_pieces(ids, block_size)]
    assert sorted(unpack(blocks)) == sorted(wanted)
    assert blocks.num_targets == sum(len(ids) + 1 for ids in documents if ids)
    again = pack_heldout(documents, block_size=block_size, eos_id=EOS)
    assert np.array_equal(blocks.input_ids, again.input_ids)


def test_all_arrays_are_int32_of_one_shape() -> None:
    documents = [[[1, 2, 3], [4, 5]]]
    orders = [[(0, 1), (0, 0)]]
    for blocks in (
        build(documents, orders, 4, isolate=True).blocks,
        build(documents, orders, 4, isolate=False).blocks,
        build(documents, orders, 400, isolate=False).blocks,
        pack_heldout(documents[0], block_size=4, eos_id=EOS),
        pack_heldout([], block_size=4, eos_id=EOS),
    ):
        arrays = (blocks.input_ids, blocks.targets, blocks.position_ids)
        assert {array.dtype for array in arrays} == {np.dtype(np.int32)}
        assert {array.shape for array in arrays} == {(len(blocks), blocks.input_ids.shape[1])}
        assert all(array.flags.c_contiguous for array in arrays)


def test_isolated_block_by_hand() -> None:
    result = build([[[5, 6], [7]]], [[(0, 0), (0, 1)]], 8, isolate=True)
    assert result.blocks_per_epoch == (1,)
    assert result.blocks.input_ids.tolist() == [[EOS, 5, 6, EOS, 7, EOS, EOS, EOS]]
    assert result.blocks.targets.tolist() == [[5, 6, EOS, 7, EOS, IGNORED, IGNORED, IGNORED]]
    assert result.blocks.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("documents", [[[]], [[[]], [[], []]]], ids=["no posts", "empty posts"])
def test_nothing_to_train_on_is_an_error(documents: Documents, isolate: bool) -> None:
    orders = [[(user, 0) for user in range(len(documents)) if documents[user]]]
    with pytest.raises(DataError, match="got no token to train on"):
        build(documents, orders, 8, isolate=isolate)


def post_like(num: int) -> list[list[int]]:
    rng = random.Random(0)
    return [[1] * min(90, max(4, round(rng.gauss(40, 17)))) for _ in range(num)]


@pytest.mark.parametrize(("block_size", "most"), [(128, 0.03), (256, 0.015), (1024, 0.015)])
def test_packing_wastes_little_and_mixes_lengths(block_size: int, most: float) -> None:
    documents = post_like(3000)
    order = [(0, index) for index in range(3000)]
    blocks = build([documents], [order], block_size, isolate=True).blocks
    assert 1 - blocks.num_targets / blocks.input_ids.size < most
    inside = [
        statistics.pstdev(len(targets) for _, targets in pieces)
        for row in range(len(blocks))
        if len(pieces := unpack(one_block(blocks, row))) > 1
    ]
    overall = statistics.pstdev(len(ids) for ids in documents)
    assert statistics.mean(inside) > 0.6 * overall


def test_packing_keeps_the_order_of_the_epoch_nearly() -> None:
    documents = [[1 + index, *ids] for index, ids in enumerate(post_like(3000))]
    order = [(0, index) for index in range(3000)]
    blocks = build([documents], [order], 256, isolate=True).blocks
    ranks = [
        inputs[1] for row in range(len(blocks)) for inputs, _ in unpack(one_block(blocks, row))
    ]
    assert statistics.correlation(ranks, range(3000)) > 0.99


def one_block(blocks: Blocks, row: int) -> Blocks:
    span = slice(row, row + 1)
    return Blocks(blocks.input_ids[span], blocks.targets[span], blocks.position_ids[span])


@pytest.mark.parametrize("isolate", [True, False])
def test_thirty_thousand_posts_take_a_few_seconds(isolate: bool) -> None:
    documents = [post_like(30_000)]
    texts = [["x" * 100] * 30_000]
    start = time.process_time()
    orders = [epoch_documents(texts, epoch=epoch, seed=0) for epoch in range(4)]
    result = build(documents, orders, 256, isolate=isolate)
    assert len(result.blocks) > 18_000
    assert time.process_time() - start < 6


@pytest.mark.parametrize("isolate", [False, True])
def test_a_begin_token_of_its_own_stands_before_every_post(isolate: bool) -> None:
    bos, documents = 9, [[[1, 2, 3], [], [4, 5]]]
    orders = [[(0, 0), (0, 1), (0, 2)]]
    built = build_training_set(
        documents, orders, block_size=9, eos_id=EOS, isolate=isolate, bos_id=bos
    )
    [ids] = built.blocks.input_ids.tolist()
    if isolate:
        assert ids[:7] == [bos, 1, 2, 3, bos, 4, 5]
        assert built.blocks.targets[0, :7].tolist() == [1, 2, 3, EOS, 4, 5, EOS]
        heldout = pack_heldout(documents[0], block_size=9, eos_id=EOS, bos_id=bos)
        assert heldout.input_ids.tolist() == [ids]
    else:
        assert ids == [bos, 1, 2, 3, EOS, bos, 4, 5, EOS]
        assert built.blocks_per_epoch == (1,)
