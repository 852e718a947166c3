"""The table of bases says what transformers would say, and unpacked bases are found again."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

from huggingtweets.config.bases import BASES, known_base, lies_at, unpacked_folder
from huggingtweets.config.overrides import CONFIG_DIR

SHAPES = {
    "gpt2": lambda b: GPT2Config(
        n_layer=b.layers, n_embd=b.width, n_head=b.heads, vocab_size=b.vocab
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": lambda b: LlamaConfig(
        num_key_value_heads=3, intermediate_size=1536, tie_word_embeddings=True, **_llama(b)
    ),
    "HuggingFaceTB/SmolLM2-360M": lambda b: LlamaConfig(
        num_key_value_heads=5, intermediate_size=2560, tie_word_embeddings=True, **_llama(b)
    ),
    "Qwen/Qwen3-0.6B-Base": lambda b: Qwen3Config(
        num_key_value_heads=8, head_dim=128, intermediate_size=3072, tie_word_embeddings=True,
        **_llama(b),
    ),
    "google/gemma-3-270m": lambda b: Gemma3TextConfig(
        num_key_value_heads=1, head_dim=256, intermediate_size=2048, **_llama(b)
    ),
}  # fmt: skip


def _llama(base) -> dict[str, int]:
    return {
        "num_hidden_layers": base.layers, "hidden_size": base.width, "vocab_size": base.vocab,
        "num_attention_heads": base.heads,
    }  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_weights_are_those_of_the_shape(name: str) -> None:
    base = BASES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[name](base))
    assert sum(p.numel() for p in model.parameters()) == base.parameters


def test_every_option_is_in_the_table() -> None:
    options = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["path"]
        for path in (CONFIG_DIR / "model").glob("*.yaml")
    }
    assert options.pop("tiny") is None
    assert {name: known_base(path).option for name, path in options.items()} == {
        name: name for name in options
    }
    assert len(options) == len(BASES)


def test_a_changed_gguf_file_is_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "small.Q8_0.gguf"
    file.write_bytes(b"one")
    before = unpacked_folder(str(file))
    assert before is not None
    assert lies_at(str(file)) == str(file)
    before.mkdir(parents=True)
    assert lies_at(str(file)) == str(before)
    file.write_bytes(b"another")
    assert unpacked_folder(str(file)) != before
    assert unpacked_folder("gpt2") is None
