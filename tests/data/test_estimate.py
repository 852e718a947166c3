import json
from collections.abc import Callable
from pathlib import Path

import pytest

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.data.estimate import count_tokens, estimate_training, guess_tokens, shape_of
from huggingtweets.data.language import detect_languages
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.records import Timeline


@pytest.mark.parametrize("account", ["NASA", "TheOnion", "hatoyamayukio", "dilmabr", "RT_Erdogan"])
def test_guessed_tokens_are_near_the_counted(
    account: str, read_account: Callable[[str], Timeline], gpt2_tokenizer_dir: Path
) -> None:
    clean, _ = clean_timeline(read_account(account), CleaningConfig())
    texts = [post.text for post in clean.posts]
    counted = count_tokens(texts, ModelConfig(path=str(gpt2_tokenizer_dir)))
    assert counted is not None
    language = detect_languages(texts)[0]
    assert 0.75 < guess_tokens(texts, ModelConfig(), language) / counted < 1.25


def test_sizes_of_the_known_bases_are_those_of_the_papers() -> None:
    sizes = {"distilgpt2": 82e6, "gpt2": 124e6, "gpt2-medium": 355e6, "gpt2-large": 774e6,
             "gpt2-xl": 1558e6}  # fmt: skip
    for path, size in sizes.items():
        shape = shape_of(ModelConfig(path=path))
        assert shape is not None
        assert shape.parameters == pytest.approx(size, rel=0.01)


def test_a_local_folder_tells_its_shape(tmp_path: Path) -> None:
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "max_position_embeddings": 32,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(ModelConfig(path=str(tmp_path)))
    assert shape is not None
    assert (shape.layers, shape.width, shape.vocab) == (2, 64, 100)
    assert shape_of(ModelConfig(path="somebody/something")) is None


def test_steps_follow_epochs_batch_limit_and_balance() -> None:
    texts = ["some words to learn"] * 1000
    recipe = RecipeConfig(block_size=64, global_batch_size=8, epochs=2, heldout_frac=0.0)

    def steps(balance: float = 1.0, **changes: int) -> int:
        changed = RecipeConfig(**{**recipe.__dict__, **changes})
        return estimate_training(texts, balance, ModelConfig(), changed, "en").steps

    assert 15 <= steps() <= 25
    assert steps(epochs=4) == pytest.approx(2 * steps(), abs=1)
    assert steps(global_batch_size=1) == pytest.approx(8 * steps(), abs=8)
    assert steps(balance=2.0) == pytest.approx(2 * steps(), abs=1)
    assert steps(max_steps=3) == 3


def test_hostile_texts_are_counted_too(gpt2_tokenizer_dir: Path) -> None:
    texts = ["\ud83d", "", "\0", "<|endoftext|>", "🍵" * 10]
    assert count_tokens(texts, ModelConfig(path=str(gpt2_tokenizer_dir)))
    assert guess_tokens(texts, ModelConfig(), "en") > 0
