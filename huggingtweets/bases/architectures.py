"""Which architectures can be trained, and how each is loaded.

`TRIED` is what a test has trained, saved and loaded, one small random model of each; docs/bases.md
shows it. What is not in it is tried on the model itself before any post is fetched.
"""

from typing import Any

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)

from huggingtweets.errors import ConfigError
from huggingtweets.upstream import has_sdpa

TRIED = frozenset({
    "biogpt", "bloom", "codegen", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "lfm2", "llama", "mamba", "mistral",
    "mpt", "olmo2", "openai-gpt", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm",
    "starcoder2", "xglm",
})  # fmt: skip

_LOOK_BOTH_WAYS = frozenset({
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie",
    "megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert",
    "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Causal language models to transformers, which look both ways unless `is_decoder` is set."""


def check_architecture(config: Any, name: str) -> None:
    """Refuse what is not a causal language model, by its configuration alone.

    Raises:
        ConfigError: saying what it is instead.
    """
    kind = config.model_type
    reason = ""
    if getattr(config, "is_encoder_decoder", False):
        reason = "it reads with an encoder and writes with a decoder"
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        reason = "transformers has no causal language model of this kind"
    elif kind in _LOOK_BOTH_WAYS and not getattr(config, "is_decoder", False):
        reason = "it sees the words to come and guesses hidden ones"
    if reason:
        raise ConfigError(
            f"model.path: {name} is of the kind {kind}: {reason}; expected a model that writes "
            "one word after the other; choose another base, as model=gpt2 or model=smollm2-135m"
        )


def attention_of(config: Any) -> str:
    """Return the attention to load a model with: PyTorch's, or eager where it has no other."""
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return "sdpa" if has_sdpa(model_class) else "eager"


def class_name(config: Any) -> str:
    """Return what transformers calls its models of a configuration, without importing them."""
    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type])
