"""The base model and its tokenizer, from the Hub, a local folder, or made on the spot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.data.tokens import Codec, codec_of
from huggingtweets.errors import ConfigError
from huggingtweets.files import read_json
from huggingtweets.training.lora import without_adapters
from huggingtweets.training.tiny import tiny_base

_DROPOUT_KEYS = (
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout",
    "attention_dropout", "hidden_dropout", "residual_dropout", "embedding_dropout",
)  # fmt: skip
"""What the architectures of transformers call their dropouts."""


@dataclass(frozen=True)
class Base:
    """Where a base model lies and what it is called."""

    name: str
    """Its name on the Hub, the folder's name, or `tiny`."""
    path: str
    revision: str | None
    codec: Codec
    max_positions: int
    config: Any
    """The configuration of transformers: the architecture and its shape."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of transformers."""
        return self.codec.tokenizer

    @property
    def eos_id(self) -> int:
        """What ends a post."""
        return self.codec.eos_id


def find_base(model: ModelConfig) -> Base:
    """Locate the base, load its tokenizer and shape; the weights come later (`load_model`).

    Raises:
        ConfigError: it cannot be had, or is no causal LM with an end-of-text token.
    """
    path = str(tiny_base(model)) if model.path is None else model.path
    name = "tiny" if model.path is None else Path(path).name if Path(path).is_dir() else path
    try:
        config = _config(path, model.revision)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=model.revision)
    except (OSError, ValueError, ImportError) as err:
        raise ConfigError(_unavailable(path, err)) from err
    codec = codec_of(tokenizer)
    max_positions = getattr(config, "max_position_embeddings", None) or 1 << 20
    return Base(name, path, model.revision, codec, max_positions, config)


def check_block_size(base: Base, block_size: int) -> None:
    """Refuse blocks longer than the base has positions.

    Raises:
        ConfigError: naming the limit.
    """
    if block_size > base.max_positions:
        raise ConfigError(
            f"recipe.block_size: got {block_size}; expected at most the {base.max_positions} "
            f"positions of {base.name}; set recipe.block_size={base.max_positions}"
        )


def load_model(base: Base, recipe: RecipeConfig) -> PreTrainedModel:
    """Load the weights as fp32, memory-mapped where they lie, with the recipe's dropout.

    Raises:
        ConfigError: the weights cannot be had.
    """
    try:
        config = _config(base.path, base.revision)
        set_dropout(config, recipe)
        model = AutoModelForCausalLM.from_pretrained(
            base.path,
            revision=base.revision,
            config=config,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as err:
        raise ConfigError(_unavailable(base.path, err)) from err
    assert isinstance(model, PreTrainedModel)
    return without_adapters(model) if hasattr(model, "peft_config") else model


def set_dropout(config: Any, recipe: RecipeConfig) -> None:
    """Give every dropout of a transformers config the recipe's rate, if it has one."""
    if recipe.dropout is not None:
        for key in _DROPOUT_KEYS:
            if isinstance(getattr(config, key, None), (int, float)):
                setattr(config, key, recipe.dropout)


def _config(path: str, revision: str | None) -> Any:
    """Load the configuration of a model; a local folder with an adapter alone has its base's."""
    folder = Path(path)
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and not (folder / "config.json").is_file():
        path = read_json(adapter)["base_model_name_or_path"]
    return AutoConfig.from_pretrained(path, revision=revision)


def _unavailable(path: str, err: Exception) -> str:
    reason = str(err).strip().splitlines()[0][:160] if str(err).strip() else type(err).__name__
    if Path(path).exists():
        return (
            f"model.path: {path!r} cannot be loaded ({reason}); expected a folder with "
            "config.json, model.safetensors and tokenizer files of a causal language model"
        )
    return (
        f"model.path: {path!r} cannot be had ({reason}); expected a local folder, a name in the "
        "cache (HF_HOME), or one that can be downloaded; set model.path=FOLDER, point HF_HOME to a "
        "filled cache, or use model=tiny"
    )
