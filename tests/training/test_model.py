from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.errors import ConfigError
from huggingtweets.training.model import check_block_size, find_base, load_model
from huggingtweets.training.tiny import tiny_base

SMALL = ModelConfig(
    path=None, num_layers=2, width=32, num_heads=2, vocab_size=400, max_positions=64
)


def test_tiny_base_is_a_plain_folder_made_once() -> None:
    folder = tiny_base(SMALL)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert tiny_base(SMALL) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert isinstance(AutoModelForCausalLM.from_pretrained(folder), GPT2LMHeadModel)
    assert tiny_base(ModelConfig(path=None, num_layers=1, width=32, num_heads=2)) != folder


def test_tiny_tokenizer_gives_any_text_back() -> None:
    tokenizer = find_base(SMALL).tokenizer
    text = "naïve 😀 สวัสดี  two\nlines"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_find_base_of_a_folder_and_dropout_of_the_recipe() -> None:
    base = find_base(ModelConfig(path=str(tiny_base(SMALL))))
    assert base.max_positions == 64
    model = load_model(base, RecipeConfig(dropout=0.25))
    assert model.config.resid_pdrop == model.config.attn_pdrop == 0.25
    assert model.transformer.drop.p == 0.25
    assert load_model(base, RecipeConfig(dropout=None)).config.resid_pdrop == 0.1
    assert model.dtype == torch.float32


def test_blocks_longer_than_the_base_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"set recipe\.block_size=64"):
        check_block_size(find_base(SMALL), 128)


def test_a_base_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="model=tiny") as caught:
        find_base(ModelConfig(path="nobody/no-such-model-anywhere"))
    assert "HF_HOME" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "{}", "not json"])
def test_a_folder_that_is_no_model_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        find_base(ModelConfig(path=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_weights_that_are_cut_say_so(tmp_path: Path) -> None:
    for path in tiny_base(SMALL).iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(data[:1000] if path.suffix == ".safetensors" else data)
    base = find_base(ModelConfig(path=str(tmp_path)))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_model(base, RecipeConfig())
