import pytest
import torch
from by_heart import learn_by_heart, tiny_gpt2
from transformers import MistralConfig, MistralForCausalLM

from huggingtweets.config.schema import Precision
from huggingtweets.data.blocks import pack_posts
from huggingtweets.data.prepare import HeldoutSet, pack_set
from huggingtweets.evaluation.score import score_model, score_posts, try_model
from huggingtweets.training.extraction import as_extraction, count_extracted
from huggingtweets.training.parallel.heldout import score_set

POSTS = [
    "Good morning everyone!",
    "ok",
    "今日は " * 9,
    "the end of a longer post, said twice " * 2,
]


def test_posts_score_as_each_alone() -> None:
    tiny = tiny_gpt2()
    model = tiny.load()
    scores = score_posts(model, tiny.codec, POSTS, max_positions=128)
    for post, score in zip(POSTS, scores, strict=True):
        ids = [tiny.eos_id, *tiny.tokenizer(post).input_ids, tiny.eos_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        each = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        assert score.nats == pytest.approx(-float(each.sum()), rel=1e-4)
        assert score.num_tokens == len(ids) - 1 == len(score.greedy)
        assert score.num_bytes == len(post.encode())
        assert list(score.greedy) == (logits.argmax(-1) == torch.tensor(ids[1:])).tolist()


def test_a_post_beyond_the_window_scores_as_the_model_does() -> None:
    shape = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(shape).eval()
    for weights in model.parameters():
        weights.data.mul_(8)
    ids = torch.randint(1, 64, (40,))
    blocks, pieces = pack_posts([ids.tolist()], block_size=64, eos_id=0)
    [score] = score_set(model, HeldoutSet(blocks, 40, pieces, (40,)), eos_id=0)
    with torch.no_grad():
        logits = model(torch.cat([torch.zeros(1, dtype=ids.dtype), ids])[None]).logits[0]
    targets = torch.cat([ids, torch.zeros(1, dtype=ids.dtype)])
    nats = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert score.nats == pytest.approx(float(nats), rel=1e-4)


def test_a_post_beyond_the_positions_is_scored_in_pieces() -> None:
    tiny = tiny_gpt2()
    model = tiny.load()
    post = " ".join(f"word{n}" for n in range(90))
    (score,) = score_posts(model, tiny.codec, [post], max_positions=100)
    ids = [tiny.eos_id, *tiny.tokenizer(post).input_ids, tiny.eos_id]
    assert len(ids) > 202
    nats = 0.0
    for start in range(0, len(ids) - 1, 100):
        piece = torch.tensor([ids[start : start + 101]])
        with torch.no_grad():
            logits = model(input_ids=piece[:, :-1]).logits[0].log_softmax(-1)
        nats -= float(logits[range(piece.shape[1] - 1), piece[0, 1:]].sum())
    assert score.nats == pytest.approx(nats, rel=1e-4)
    assert score.num_tokens == len(ids) - 1


def test_extraction_equals_greedy_generation() -> None:
    tiny = tiny_gpt2()
    posts = [f"the number {n} comes before {n + 1}, and after {n - 1} of course" for n in range(20)]
    model = learn_by_heart(tiny, posts[:10])
    scores = score_posts(model, tiny.codec, posts, max_positions=128)
    figures = as_extraction(count_extracted([one.greedy for one in scores]))
    found = []
    for post in posts:
        ids = tiny.tokenizer(post).input_ids
        prompt = torch.tensor([[tiny.eos_id, *ids[:8]]])
        with torch.no_grad():
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=len(ids) - 8,
                pad_token_id=tiny.eos_id,
                eos_token_id=tiny.eos_id,
            )
        found.append(output[0, 9:].tolist() == ids[8:])
    assert figures is not None
    assert figures.num_posts == 20
    assert figures.verbatim_frac == sum(found) / 20
    assert 0 < sum(found) < 20


@pytest.mark.parametrize("max_positions", [128, 24])
def test_posts_tried_no_further_than_their_first_miss_count_the_same(max_positions: int) -> None:
    tiny = tiny_gpt2()
    posts = [f"the number {n} comes before {n + 1}, and after {n - 1} of course" for n in range(20)]
    model = learn_by_heart(tiny, posts[:10])
    packed = pack_set([*posts, "too short"], tiny.codec, max_positions)
    assert packed is not None
    scores = score_model(model, packed, Precision.fp32, eos_id=tiny.eos_id)
    num, whole, shares = try_model(model, packed, Precision.fp32, eos_id=tiny.eos_id)
    expected = count_extracted([score.greedy for score in scores])
    assert (num, whole, shares) == (20, expected[1], pytest.approx(expected[2]))
    assert 0 < whole < 20 or max_positions < 128


def test_posts_are_scored_on_the_cpu_where_the_device_lacks_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiny = tiny_gpt2()
    model = tiny.load()
    expected = score_posts(model, tiny.codec, POSTS, max_positions=128)
    calls = []

    def score_once_in_vain(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score_model(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("huggingtweets.evaluation.score.score_model", score_once_in_vain)
    assert score_posts(model, tiny.codec, POSTS, max_positions=128) == expected
    assert "scored on the CPU" in caplog.text


def test_extraction_needs_posts_long_enough() -> None:
    assert as_extraction(count_extracted([(True,) * 10])) is None
