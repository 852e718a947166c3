"""A tiny random model of every architecture that the docs list, by a name of its configuration."""

from collections.abc import Callable, Mapping
from typing import Any

import transformers as tf
from transformers import PreTrainedConfig

_SHARED = {"bos_token_id": 0, "eos_token_id": 0}
_LLAMA = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 128,
}  # fmt: skip
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}


def _llama(kind: str, **more: Any) -> Callable[[int], PreTrainedConfig]:
    return lambda vocab: getattr(tf, kind)(vocab_size=vocab, **_SHARED, **_LLAMA, **more)


def _gpt(kind: str, **more: Any) -> Callable[[int], PreTrainedConfig]:
    return lambda vocab: getattr(tf, kind)(vocab_size=vocab, **_SHARED, **_GPT, **more)


def _other(kind: str, **more: Any) -> Callable[[int], PreTrainedConfig]:
    return lambda vocab: getattr(tf, kind)(vocab_size=vocab, **more)


KINDS: Mapping[str, tuple[str, Callable[[int], PreTrainedConfig]]] = {
    "gpt2": ("gpt2", _gpt("GPT2Config")),
    "gpt2-untied": ("gpt2", _gpt("GPT2Config", tie_word_embeddings=False)),
    "llama2": ("llama2", _llama("LlamaConfig", num_key_value_heads=2)),
    "llama3": ("llama3", _llama("LlamaConfig", num_key_value_heads=2, tie_word_embeddings=True,
                                rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})),
    "mistral": ("llama2", _llama("MistralConfig", num_key_value_heads=2, sliding_window=64)),
    "qwen2": ("qwen", _llama("Qwen2Config", num_key_value_heads=2)),
    "qwen3": ("qwen", _llama("Qwen3Config", num_key_value_heads=2, head_dim=8)),
    "gemma": ("gemma", _llama("GemmaConfig", num_key_value_heads=1, head_dim=8, pad_token_id=0)),
    "gemma2": ("gemma", _llama("Gemma2Config", num_key_value_heads=1, head_dim=8, pad_token_id=0,
                               sliding_window=64)),
    "gemma3_text": ("gemma", _llama("Gemma3TextConfig", num_key_value_heads=1, head_dim=8,
                                    pad_token_id=0, sliding_window=64)),
    "gpt_neox": ("gpt2", _llama("GPTNeoXConfig")),
    "opt": ("pad-is-eos", _other(
        "OPTConfig", hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, ffn_dim=64,
        num_attention_heads=4, max_position_embeddings=128, **_SHARED)),
    "gpt_neo": ("gpt2", _other(
        "GPTNeoConfig", hidden_size=32, num_layers=2, num_heads=4, window_size=64,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=128, **_SHARED)),
    "gptj": ("gpt2", _gpt("GPTJConfig", rotary_dim=8)),
    "codegen": ("gpt2", _gpt("CodeGenConfig", rotary_dim=8)),
    "gpt_bigcode": ("gpt2", _gpt("GPTBigCodeConfig")),
    "openai-gpt": ("added-tokens", _gpt("OpenAIGPTConfig")),
    "bloom": ("added-tokens", _other(
        "BloomConfig", hidden_size=32, n_layer=2, n_head=4, **_SHARED)),
    "mpt": ("gpt2", _other("MptConfig", d_model=32, n_heads=4, n_layers=2, max_seq_len=128)),
    "xglm": ("unigram-eos-behind", _other(
        "XGLMConfig", d_model=32, num_layers=2, attention_heads=4, ffn_dim=64,
        max_position_embeddings=128, **_SHARED)),
    "falcon": ("gpt2", _other(
        "FalconConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **_SHARED)),
    "falcon-alibi": ("gpt2", _other(
        "FalconConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
        **_SHARED)),
    "phi": ("gpt2", _llama("PhiConfig")),
    "phi3": ("llama2", _llama("Phi3Config", pad_token_id=0)),
    "stablelm": ("gpt2", _llama("StableLmConfig", num_key_value_heads=4)),
    "smollm3": ("gpt2", _llama("SmolLM3Config", num_key_value_heads=2, pad_token_id=0)),
    "starcoder2": ("gpt2", _llama("Starcoder2Config", num_key_value_heads=2)),
    "olmo2": ("gpt2", _llama("Olmo2Config", pad_token_id=0)),
    "granite": ("gpt2", _llama("GraniteConfig", logits_scaling=8.0)),
    "cohere": ("llama3", _llama("CohereConfig", logit_scale=0.06, pad_token_id=0)),
    "biogpt": ("wordpiece", _llama("BioGptConfig", pad_token_id=1)),
    "lfm2": ("qwen", _llama("Lfm2Config", num_key_value_heads=2, pad_token_id=0,
                            layer_types=["conv", "full_attention"])),
    "mamba": ("sentencepiece-no-bos", _other(
        "MambaConfig", hidden_size=32, num_hidden_layers=2, state_size=8, pad_token_id=0,
        **_SHARED)),
}  # fmt: skip
"""Name -> kind of tokenizer, and the configuration for a vocabulary."""
