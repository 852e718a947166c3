from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from huggingtweets.bases.tiny import tiny_base
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import ModelConfig
from huggingtweets.data.tokens import codec_of
from huggingtweets.generation.guards import MAX_ROUNDS, Guards, shorten
from huggingtweets.generation.sample import sample_posts, sample_stack
from huggingtweets.generation.samples import Samples
from huggingtweets.generation.token_texts import text_ends
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.stack import build_stack
from huggingtweets.training.stacked import sample as stacked_sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tiny_base(
            ModelConfig(None, None, num_layers=1, width=32, num_heads=2, vocab_size=400)
        )


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, PreTrainedModel)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(8)  # some tokens far likelier than others
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def draw(model: PreTrainedModel, tokenizer: Tokenizer):
    def sample(guards: Guards, *, seed: int = 0, **changes: object) -> Samples:
        config = SamplingConfig(**({"num": 3, "max_new_tokens": 24} | changes))
        return sample_posts(
            model,
            codec_of(tokenizer),
            config,
            guards,
            max_positions=256,
            seed=seed,
        )

    return sample


def test_samples_come_prompt_after_prompt(draw) -> None:
    samples = draw(Guards(), prompts=["I like", "My dream is that one day"])
    assert [one.input for one in samples.predictions] == ["I like"] * 3 + [
        "My dream is that one day"
    ] * 3
    assert all(one.prediction.startswith(one.input) for one in samples.predictions)
    assert all("\n" not in one.prediction for one in samples.predictions)
    assert samples.refused == {}


def test_samples_depend_on_the_seed_alone(draw) -> None:
    torch.manual_seed(1)
    first = draw(Guards())
    state = torch.get_rng_state()
    assert draw(Guards()) == first
    assert draw(Guards(), seed=1) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_drawn_when_nothing_is_asked_for(draw) -> None:
    assert draw(Guards(), num=0) == Samples(())
    assert draw(Guards(), prompts=[]) == Samples(())


def test_what_is_too_long_is_cut_at_once(draw) -> None:
    samples = draw(Guards(max_chars=15), prompts=["I like"], num=5)
    assert len(samples.predictions) == 5
    assert all(0 < len(one.prediction) <= 15 for one in samples.predictions)
    assert samples.refused == {"too_long": 5}


def test_what_is_banned_is_left_out_after_all_rounds(draw) -> None:
    samples = draw(Guards(banned_words=("i like",)), prompts=["I like:", "I want"], num=2)
    assert [one.input for one in samples.predictions] == ["I want"] * 2
    assert samples.refused == {"banned": 2 * MAX_ROUNDS}


def test_guards_that_refuse_nothing_change_nothing(draw) -> None:
    assert draw(Guards(max_chars=10_000)) == draw(Guards())


def test_best_of_many_is_likelier(draw, model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    def mean_log_likelihood(samples: Samples) -> float:
        values = []
        for one in samples.predictions:
            text = one.prediction.removeprefix(one.input)
            ids = [tokenizer.eos_token_id, *tokenizer(one.input).input_ids]
            start = len(ids)
            ids += tokenizer(text).input_ids
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            values.append(float(logits[range(start - 1, len(ids) - 1), ids[start:]].mean()))
        return sum(values) / len(values)

    single, best = draw(Guards(), num=8), draw(Guards(), num=8, best_of=8)
    assert len(best.predictions) == len(single.predictions)
    assert mean_log_likelihood(best) > mean_log_likelihood(single) + 0.01


def test_decoding_ends_with_the_text(draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """A post that is cut anyway is not decoded to its last token, in either way of sampling."""
    steps: list[int] = []
    step = stacked_sample.decode_step

    def counted(*args: object, **kwargs: object) -> torch.Tensor | None:
        steps.append(1)
        return step(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(stacked_sample, "decode_step", counted)
    long = draw(Guards(), prompts=["I like"], num=8, max_new_tokens=200, max_chars=0)
    num_long = len(steps)
    short = draw(Guards(max_chars=15), prompts=["I like"], num=8, max_new_tokens=200, max_chars=15)
    assert len(steps) - num_long < num_long
    for whole, cut in zip(long.predictions, short.predictions, strict=True):
        assert whole.prediction.startswith(cut.prediction)
        assert len(whole.prediction) <= 15 or cut.prediction == shorten(whole.prediction, 15)
    best = draw(Guards(max_chars=15), prompts=["I like"], num=8, max_chars=15, best_of=2)
    assert len(best.predictions) == 8
    assert all(0 < len(one.prediction) <= 15 for one in best.predictions)


def test_users_sampled_together_get_what_each_gets_alone(model: PreTrainedModel, tokenizer) -> None:
    layout = layout_of(shape_of(model.config))
    rows = torch.stack([layout.pack(model.state_dict())] * 2)
    rows[1] *= 1.1
    configs = [SamplingConfig(num=3, max_new_tokens=20), SamplingConfig(num=2, max_new_tokens=12)]
    guards = [Guards(banned_words=("e", "a")), Guards(max_chars=20)]
    codec = codec_of(tokenizer)

    def sample(users: slice) -> list[Samples]:
        stack = build_stack(layout, rows[users].clone(), torch.float32)
        return sample_stack(stack, codec, configs[users], guards[users], seeds=[5, 6][users])

    together = sample(slice(0, 2))
    assert together == sample(slice(0, 1)) + sample(slice(1, 2))
    assert len(together[1].predictions) == 10


@pytest.mark.parametrize("text", ["plain words", "naïve 今日は\n🙂 👩‍🚀 done", "tab\tand €"])
def test_tokens_say_how_much_text_they_add(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    ends = text_ends(codec_of(tokenizer), len(tokenizer) + 5, [[1]])
    assert int(ends.chars[ids].sum()) == len(text)
    assert bool(ends.is_break[ids].any()) == ("\n" in text)
    assert int(ends.chars[-5:].sum()) == 0
