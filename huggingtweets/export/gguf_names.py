"""How models and tokenizers of our families are written in GGUF: names, shapes, figures.

The names of tensors are the `gguf` package's own tables. What it leaves to its users is here: which
matrices are turned, in which order the rows of Llama's queries and keys stand, and which of
llama.cpp's ways of splitting text a tokenizer has.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from huggingtweets.errors import ConfigError

Array = npt.NDArray[np.float32]

ARCHS = {
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""Families by transformers' `model_type`."""
_CONV1D = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
"""GPT-2 keeps these as (in, out); everybody else as (out, in)."""
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


def _split(digits: str) -> list[dict[str, Any]]:
    pattern = (
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    regex = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [{"type": "Split", **regex}, _BYTES | {"use_regex": False}]


_SPLITTINGS = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, _BYTES],
    "llama-bpe": _split(r"\p{N}{1,3}"),
    "qwen2": _split(r"\p{N}"),
}
"""The steps of a tokenizer, by llama.cpp's name of the same."""
_IGNORES_MERGES = ("llama-bpe",)
"""Where llama.cpp takes a word that is a token as it is, whatever the merges make of it."""


def arch_of(config: Any) -> "gguf.MODEL_ARCH":
    """Return GGUF's name of a family.

    Raises:
        ConfigError: it is none of ours.
    """
    if config.model_type not in ARCHS:
        raise ConfigError(
            f"export gguf: got a model of the family {config.model_type}; expected one of "
            f"{', '.join(ARCHS)}; export its folder by llama.cpp's own converter"
        )
    return ARCHS[config.model_type]


def tensors(config: Any, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Array]]:
    """Yield the tensors of a model as GGUF wants them, fp32.

    Raises:
        ConfigError: a tensor has no name in GGUF.
    """
    arch = arch_of(config)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    is_tied = bool(config.tie_word_embeddings)
    for name, tensor in state.items():
        if is_tied and name == "lm_head.weight":  # llama.cpp takes the input embedding
            continue
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # buffers of old GPT-2 files
            continue
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise ConfigError(
                f"export gguf: got the tensor {name}, which GGUF has no name for; expected a plain "
                f"{config.model_type}; merge adapters first"
            )
        values: Array = tensor.detach().float().cpu().numpy()
        if arch is gguf.MODEL_ARCH.GPT2 and name.endswith(_CONV1D):
            values = values.T
        if arch is gguf.MODEL_ARCH.LLAMA and ".q_proj." in name:
            values = _interleaved(values, config.num_attention_heads)
        if arch is gguf.MODEL_ARCH.LLAMA and ".k_proj." in name:
            values = _interleaved(values, config.num_key_value_heads)
        yield place, np.ascontiguousarray(values)
    if (factors := _rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors


def _interleaved(values: Array, num_heads: int) -> Array:
    """Interleave the halves of each head's rows: llama.cpp rotates neighbours, not halves."""
    halves = values.reshape(num_heads, 2, len(values) // num_heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _rope_factors(config: Any) -> Array | None:
    """Return what Llama 3 divides its rotary frequencies by; None: nothing.

    Raises:
        ConfigError: another scaling.
    """
    rope = getattr(config, "rope_parameters", None) or {"rope_type": "default"}  # GPT-2 has none
    if rope["rope_type"] == "default":
        return None
    if rope["rope_type"] != "llama3":
        raise ConfigError(
            f"export gguf: got rotary scaling {rope['rope_type']!r}; expected none or llama3; "
            "export the folder by llama.cpp's own converter"
        )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    powers = torch.arange(len(scaled), dtype=torch.float64) / len(scaled)
    factors: Array = (rope["rope_theta"] ** -powers / scaled).float().numpy()
    return factors


def _head_width(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def add_figures(writer: "gguf.GGUFWriter", config: Any) -> None:
    """Write the shape of a model."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    width = _head_width(config)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))


def splitting_of(tokenizer: Any) -> str:
    """Return llama.cpp's name of how a byte-level tokenizer splits text before it merges.

    Raises:
        ConfigError: it is none that we know to be the same there.
    """
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    if whole["model"]["type"] != "BPE" or whole["model"].get("byte_fallback"):
        raise _unknown("it is not a byte-level BPE")
    if whole.get("normalizer") and whole["normalizer"]["type"] not in ("NFC",):
        raise _unknown(f"it changes text first ({whole['normalizer']['type']})")
    outer = whole.get("pre_tokenizer") or {}
    steps = outer["pretokenizers"] if outer.get("type") == "Sequence" else [outer]
    steps = [{key: step[key] for key in step if key != "trim_offsets"} for step in steps]
    name = next((name for name, theirs in _SPLITTINGS.items() if theirs == steps), None)
    if name is None:
        kinds = ", ".join(str(step.get("type")) for step in steps)
        raise _unknown(f"it splits text by {kinds} in a way of its own")
    if bool(whole["model"].get("ignore_merges")) != (name in _IGNORES_MERGES):
        raise _unknown("it uses its merges otherwise: ignore_merges")
    return name


def _unknown(reason: str) -> ConfigError:
    return ConfigError(
        f"export gguf: the tokenizer is none whose ids are known to be the same in llama.cpp "
        f"({reason}); expected that of GPT-2, SmolLM2, Llama 3 or Qwen; export the folder by "
        "llama.cpp's own converter"
    )
