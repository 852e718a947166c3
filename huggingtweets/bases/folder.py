"""Model folders that every reader understands: not only the transformers that wrote them."""

from pathlib import Path
from typing import Any

from huggingtweets.storage.files import read_json, write_json


def for_other_readers(folder: Path) -> None:
    """Make a folder that transformers 5 saved loadable by transformers 4 and others, with it too.

    transformers 5.23 leaves out, or writes in a form of its own, what others need:

    - the tokenizer class `TokenizersBackend` is unknown to 4.57, `PreTrainedTokenizerFast` to none;
      more special tokens are a list under a name that 4.57 takes for a mapping;
    - the base of rotary positions moved into `rope_parameters`: 4.57 would take 10,000 for that of
      every model, without a word;
    - GPT-2's `n_ctx` went, which converters and servers read.
    """
    for path, change in (
        (folder / "config.json", _plain_config),
        (folder / "tokenizer_config.json", _plain_tokenizer),
    ):
        if path.is_file():
            write_json(path, change(read_json(path)))
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes its files for the owner alone


def _plain_config(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("model_type") == "gpt2":
        config["n_ctx"] = config["n_positions"]
    rope = config.get("rope_parameters")
    if isinstance(rope, dict):
        full = rope.get("full_attention", rope)
        if "rope_theta" in full:
            config["rope_theta"] = full["rope_theta"]
        if "sliding_attention" in rope:  # Gemma 3
            config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        if full.get("partial_rotary_factor") is not None:
            config["partial_rotary_factor"] = full["partial_rotary_factor"]
        if full.get("rope_type", "default") != "default":
            config["rope_scaling"] = {k: v for k, v in full.items() if k != "rope_theta"}
    return config


def _plain_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    more = config.get("extra_special_tokens")
    if isinstance(more, list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    for key in ("is_local", "local_files_only", "backend"):
        config.pop(key, None)
    return config
