"""Fetch the base model once, on a machine with a network, for tasks on machines without one."""

from pathlib import Path

from huggingtweets.config.schema import ModelConfig, PublishKind, SourceKind, TrainConfig
from huggingtweets.errors import ConfigError

FILES = [
    "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json",
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "spiece.model", "sentencepiece*",
]  # fmt: skip
"""All that a base is loaded from; not the same weights once more in other formats."""


def prefetch(model: ModelConfig) -> str:
    """Put base model and tokenizer into the cache and return where they lie.

    Raises:
        ConfigError: they cannot be had.
    """
    if model.path is None:
        from huggingtweets.training.tiny import tiny_base  # heavy: it is made, not fetched

        return str(tiny_base(model))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if Path(model.path).is_dir():
        return model.path
    try:
        return snapshot_download(model.path, revision=model.revision, allow_patterns=FILES)
    except (HfHubHTTPError, HFValidationError, OSError) as err:
        reason = str(err).strip().splitlines()[0][:160] if str(err).strip() else type(err).__name__
        raise ConfigError(
            f"model.path: {model.path!r} cannot be fetched ({reason}); expected a model on the Hub "
            "and a way to it; check the name, or fetch it on a machine with a network and set "
            "HF_HOME to its cache"
        ) from err


def is_prefetched(model: ModelConfig) -> bool:
    """Whether the base can be loaded without a network, as far as a look into the cache tells."""
    if model.path is None:
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(model.path).is_dir():
        return True
    weights = ("model.safetensors", "model.safetensors.index.json")
    try:
        found = [
            isinstance(try_to_load_from_cache(model.path, name, revision=model.revision), str)
            for name in ("config.json", *weights)
        ]
    except HFValidationError:
        return False
    return found[0] and any(found[1:])


def needs_hub(config: TrainConfig) -> bool:
    """Whether a training talks to the Hub beside fetching its base."""
    return config.publish.kind is PublishKind.hub or config.source.kind is SourceKind.hub
