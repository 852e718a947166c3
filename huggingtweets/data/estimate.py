"""What a training will take, told from posts and configuration alone: tokens, steps, time, memory.

Nothing heavy is imported, so figures are rough; the docstrings say how rough.
"""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingtweets.config.bases import known_base, lies_at
from huggingtweets.config.schema import Adapter, ModelConfig, RecipeConfig
from huggingtweets.process import usable_cores

_ASCII_TOKENS = 0.226
_ASCII_TOKENS_FOREIGN = 0.31
_OTHER_TOKENS = 0.627
"""Of GPT-2's tokenizer, per character in English, in other languages, and a byte that is not ASCII:
fitted on the posts of 60 accounts; most are met within a tenth, the worst within a quarter."""
_TINY_TOKENS = 0.4
_CPU_CORE_FLOPS = 7e10
GPU_FLOPS = 4e13
"""What training reaches: a CPU core with fp32, a data-centre GPU with bf16 and small batches."""
_FIXED_S = 30.0
_EVAL_SHARE = 0.15


@dataclass(frozen=True)
class Shape:
    """As much of a model's shape as costs depend on."""

    layers: int
    width: int
    heads: int
    vocab: int
    positions: int
    counted: int | None = None
    """Weights, where they are known; None: as many as a GPT-2 of this shape has."""

    @property
    def parameters(self) -> int:
        """Weights; the head shares the embedding's."""
        if self.counted is not None:
            return self.counted
        return 12 * self.layers * self.width**2 + (self.vocab + self.positions) * self.width


@dataclass(frozen=True)
class Estimate:
    """The size of a training."""

    tokens: int
    """Of the posts trained on, each once."""
    is_counted: bool
    """Whether by the base's own tokenizer."""
    steps: int
    seconds: float | None
    """Within a factor of three; None: the base's shape is not known."""
    memory_gib: float | None
    """Of the device, with one block per micro-batch; within a third."""
    device: str


def estimate_training(
    texts: Sequence[str], balance: float, model: ModelConfig, recipe: RecipeConfig, language: str
) -> Estimate:
    """Estimate what training on these posts takes.

    Args:
        texts: kept posts, held-out ones among them.
        balance: how much longer an epoch is than the posts, people being balanced; 1 for one.
        model: the base.
        recipe: how.
        language: the most used one.
    """
    counted = count_tokens(texts, model)
    tokens = guess_tokens(texts, model, language) if counted is None else counted
    tokens = round(tokens * (1 - recipe.heldout_frac))
    with_ends = tokens + round(len(texts) * (1 - recipe.heldout_frac))
    steps = guess_steps(with_ends * balance, recipe)
    shape = shape_of(model)
    device, flops = _device()
    seconds = memory_gib = None
    if shape is not None:
        seconds = _FIXED_S + training_seconds(steps, shape, recipe, flops)
        memory_gib = _memory_gib(shape, recipe)
    return Estimate(tokens, counted is not None, steps, seconds, memory_gib, device)


def guess_steps(tokens: float, recipe: RecipeConfig) -> int:
    """Return the optimizer steps that this many tokens per epoch make."""
    blocks = max(1, math.ceil(tokens / recipe.block_size))
    steps = max(1, blocks * recipe.epochs // recipe.global_batch_size)
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def training_seconds(steps: int, shape: Shape, recipe: RecipeConfig, flops: float) -> float:
    """Return what training and its evaluations take at this many operations per second."""
    # Six operations a weight and token (two forward, four backward), and the products of
    # attention: 12 a layer, unit of width, and token looked at.
    trained = steps * recipe.global_batch_size * recipe.block_size
    attention = 12 * shape.layers * shape.width * recipe.block_size
    return (6 * shape.parameters + attention) * trained * (1 + _EVAL_SHARE) / flops


def count_tokens(texts: Sequence[str], model: ModelConfig) -> int | None:
    """Count with the base's tokenizer; None where its files are not on this machine."""
    files = _tokenizer_files(model)
    if files is None:
        return None
    from tokenizers import ByteLevelBPETokenizer, Tokenizer

    try:
        if len(files) == 1:
            tokenizer: Any = Tokenizer.from_file(str(files[0]))
        else:
            tokenizer = ByteLevelBPETokenizer(str(files[0]), str(files[1]))
    except Exception:  # the tokenizers library raises nothing narrower
        return None
    safe = [text.encode("utf-8", "replace").decode() for text in texts]
    return sum(len(one.ids) for one in tokenizer.encode_batch(safe, add_special_tokens=False))


def guess_tokens(texts: Sequence[str], model: ModelConfig, language: str) -> int:
    """Estimate from characters and bytes."""
    chars = sum(map(len, texts))
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if model.path is None:
        return round(num_bytes * _TINY_TOKENS)
    num_ascii = sum(sum(char < "\x80" for char in text) for text in texts)
    assert num_ascii <= chars <= num_bytes
    rate = _ASCII_TOKENS if language == "en" else _ASCII_TOKENS_FOREIGN
    return round(num_ascii * rate + (num_bytes - num_ascii) * _OTHER_TOKENS)


def shape_of(model: ModelConfig) -> Shape | None:
    """Return the base's shape where it can be told without loading it."""
    if model.path is None:
        return Shape(
            model.num_layers, model.width, model.num_heads, model.vocab_size, model.max_positions
        )
    known = known_base(model.path)
    if known is not None:
        return Shape(
            known.layers, known.width, known.heads, known.vocab, known.positions, known.parameters
        )
    folder = Path(lies_at(model.path))
    with suppress(OSError, ValueError, KeyError, TypeError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] == "gpt2":
            keys = ("n_layer", "n_embd", "n_head", "vocab_size", "n_positions")
        else:
            keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size",
                    "max_position_embeddings")  # fmt: skip
        layers, width, heads, vocab, positions = (int(config[key]) for key in keys)
        return Shape(layers, width, heads, vocab, positions, _count_weights(folder))
    return None


def _count_weights(folder: Path) -> int | None:
    """Count the weights of a folder by the headers of its safetensors; None: there are none."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(one["shape"]) for key, one in header.items() if key[0] != "_")
    return total or None


def _memory_gib(shape: Shape, recipe: RecipeConfig) -> float:
    """Weights, gradients and AdamW's two moments in fp32, and the activations of one block.

    By LoRA gradients and moments are nearly nothing.
    """
    block_size = recipe.block_size
    # The activations of a layer, as Korthikanti et al. (2022) count them in half precision:
    # 34 bytes a token and unit of width, 5 bytes a pair of tokens and head.
    weight = 4 if recipe.adapter is Adapter.lora else 16
    layer = block_size * shape.width * 34 + 5 * shape.heads * block_size**2
    head = block_size * shape.vocab * 10
    return (weight * shape.parameters + shape.layers * layer + head) / 2**30


def _device() -> tuple[str, float]:
    cores = usable_cores()
    if shutil.which("nvidia-smi") and Path("/proc/driver/nvidia").exists():
        return "one GPU of this machine", GPU_FLOPS
    return f"{cores} CPU core(s) of this machine", _CPU_CORE_FLOPS * cores


def _tokenizer_files(model: ModelConfig) -> list[Path] | None:
    """Return `tokenizer.json`, or vocabulary and merges, of a folder or of the Hub's cache."""
    if model.path is None:
        return None
    for names in (["tokenizer.json"], ["vocab.json", "merges.txt"]):
        found = [file for name in names if (file := local_file(model, name))]
        if len(found) == len(names):
            return found
    return None


def local_file(model: ModelConfig, name: str) -> Path | None:
    """Return where a base's folder, or the Hub's cache, has a file; None: it has not."""
    folder = Path(lies_at(str(model.path)))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(str(model.path), name, revision=model.revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
