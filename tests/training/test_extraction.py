"""Posts drawn out by their beginnings: counted the same in either engine and after training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stacked_reference import BASE, LAYOUT, PLAIN, ROW, build_job, tensors

from huggingtweets.data.blocks import IGNORED, Blocks, pack_posts
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.kernels import rows
from huggingtweets.models.stack import build_stack
from huggingtweets.ops.reference import PYTORCH
from huggingtweets.training.extraction import as_extraction, count_extracted, read_scores
from huggingtweets.training.modules.cross_entropy import linear_cross_entropy, linear_hits
from huggingtweets.training.modules.loss import SummedLoss, document_mask
from huggingtweets.training.records import Extraction
from huggingtweets.training.stacked.heldout import score_blocks, score_sets

YES, NO = [True], [False]


def test_the_rest_after_the_prompt_counts_and_the_end_does_not() -> None:
    whole = 8 * NO + 10 * YES + NO
    half = 8 * YES + 5 * YES + NO + 4 * YES + YES
    short = 20 * YES
    long = 8 * NO + 50 * YES + 30 * NO
    assert count_extracted([whole, half, short[:16], long]) == (3, 2, pytest.approx(2.5))
    assert as_extraction(count_extracted([whole, half])) == Extraction(2, 0.5, 0.75)
    assert as_extraction(count_extracted([short[:10]])) is None


def test_each_piece_of_a_post_is_tried_by_itself() -> None:
    lengths = [3, 9, 1, 39, 25, 5]
    documents = [[1] * length for length in lengths]
    blocks, pieces = pack_posts(documents, block_size=32, eos_id=0)
    posts = HeldoutSet(blocks, 80, pieces, tuple(lengths))
    nats = np.zeros(blocks.targets.shape)
    none = read_scores(posts, nats, np.zeros(blocks.targets.shape, dtype=bool))
    # Of 39 ids and the end, 32 fit into a block: the rest, as the short posts, leaves no 8 tokens.
    assert none.extraction == Extraction(2, 0.0, 0.0)
    hits = blocks.targets != IGNORED
    assert read_scores(posts, nats, hits).extraction == Extraction(2, 1.0, 1.0)
    start = int(pieces.starts[pieces.sizes.argmax()])
    hits.reshape(-1)[start + 8 + 11] = False  # of 23 that the prompt and the end leave
    assert read_scores(posts, nats, hits).extraction == Extraction(2, 0.5, (1 + 11 / 23) / 2)


def half_known() -> Blocks:
    """Blocks in which about every second target is what the base holds most likely."""
    job = build_job("one", replace(PLAIN, isolate_documents=True), posts=9, seed=1)
    assert job.heldout is not None
    blocks = job.heldout.blocks
    with torch.no_grad():
        ids, _, positions = tensors(blocks)
        scores = BASE(
            input_ids=ids,
            attention_mask=document_mask(positions),
            position_ids=positions,
            use_cache=False,
        ).logits
    likeliest = scores.argmax(-1).numpy().astype(np.int32)
    is_known = np.random.default_rng(2).random(likeliest.shape) < 0.5
    counted = blocks.targets != IGNORED
    return replace(blocks, targets=np.where(is_known & counted, likeliest, blocks.targets))


def test_both_engines_see_the_same_hits() -> None:
    blocks = half_known()
    ids, targets, positions = tensors(blocks)
    module = SummedLoss(BASE, isolate=True).eval()
    with torch.no_grad():
        nats, hits = module(ids, targets, positions, with_hits=True)
        assert float(nats.sum()) == pytest.approx(float(module(ids, targets, positions)), rel=1e-6)
    stack = build_stack(LAYOUT, ROW.repeat(2, 1), torch.float32)
    fused, found = score_blocks(stack, [blocks, None], use_fused=False)
    assert float(fused[0].sum()) == pytest.approx(float(nats.sum()), rel=1e-5)
    assert torch.equal(found[0], hits)
    assert not fused[1].any()
    assert not found[1].any()
    counted = blocks.targets != IGNORED
    assert 0.3 < hits.numpy()[counted].mean() < 0.8
    assert not hits.numpy()[~counted].any()


def test_hits_in_chunks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=generator) for n in (300, 50))
    targets = (hidden @ weight.T).argmax(1)
    targets[::3] = 7
    targets[::5] = IGNORED
    whole = linear_hits(hidden, weight, targets)
    monkeypatch.setattr(rows, "SCORED_LOGITS", {"cpu": 1})
    parts = linear_hits(hidden, weight, targets)
    assert torch.equal(whole[1], parts[1])
    assert float(whole[0].sum()) == pytest.approx(float(parts[0].sum()), rel=1e-5)
    expected = linear_cross_entropy(hidden, weight, targets)
    assert float(whole[0].sum()) == pytest.approx(float(expected), rel=1e-5)
    assert whole[1].sum() > 100


def test_posts_are_scored_one_by_one_in_their_order() -> None:
    """Whatever the order of the blocks, and where a post lies in pieces."""
    rng = np.random.default_rng(3)
    documents = [rng.integers(1, 90, size).tolist() for size in (5, 40, 1, 0, 12, 33, 7, 2)]
    blocks, pieces = pack_posts(documents, block_size=16, eos_id=0)
    posts = HeldoutSet(blocks, 80, pieces, tuple(range(10, 18)))
    stack = build_stack(LAYOUT, ROW.unsqueeze(0), torch.float32)
    [found] = score_sets(stack, [posts], use_fused=False, ops=PYTORCH)
    assert found is not None
    assert [one.num_bytes for one in found.posts] == [10, 11, 12, 14, 15, 16, 17]
    assert [one.num_tokens for one in found.posts] == [6, 41, 2, 13, 34, 8, 3]
    assert found.loss.nats == pytest.approx(sum(one.nats for one in found.posts))
    for ids, one in zip([ids for ids in documents if ids], found.posts, strict=True):
        whole, nats, greedy = [0, *ids, 0], 0.0, []
        for start in range(0, len(whole) - 1, 16):
            piece = torch.tensor([whole[start : start + 17]])
            with torch.no_grad():
                logits = BASE(input_ids=piece[:, :-1]).logits[0].log_softmax(-1)
            nats -= float(logits[range(piece.shape[1] - 1), piece[0, 1:]].sum())
            greedy += (logits.argmax(-1) == piece[0, 1:]).tolist()
        assert one.nats == pytest.approx(nats, rel=1e-4)
        assert list(one.greedy) == greedy
