"""The flat folder of adapters that servers of many adapters read: one folder per person, links.

vLLM's filesystem resolver and LoRAX look for `<folder>/<name>/adapter_config.json` when a name is
first asked for. Where the names of tensors do not fit the base, vLLM serves the bare base in
silence, so they are held against the base's own modules here.
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from huggingtweets.errors import ConfigError, first_line
from huggingtweets.export.finished import Finished
from huggingtweets.storage.files import read_json, replacing_file, write_text
from huggingtweets.storage.paths import JobPaths

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BASE = "base_model_name_or_path"
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
_MAX_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""
_NOT_AT_VLLM = ("gpt2",)


@dataclass(frozen=True)
class AdapterFolder:
    """What was written."""

    folder: Path
    base: str
    slugs: tuple[str, ...]
    max_rank: int
    is_for_vllm: bool

    @property
    def command(self) -> str:
        """Return what starts vLLM with all of them."""
        rank = next((one for one in _MAX_RANKS if one >= self.max_rank), self.max_rank)
        settings = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_PLUGINS": "lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": str(self.folder.resolve()),
        }
        words = [f"{key}={shlex.quote(value)}" for key, value in settings.items()]
        return " ".join(
            [*words, "vllm", "serve", shlex.quote(self.base), "--enable-lora",
             f"--max-lora-rank {rank}"]
        )  # fmt: skip


def export_adapters(
    jobs: Sequence[Finished], folder: Path, *, base: str | None = None
) -> AdapterFolder:
    """Link the adapters of all jobs that have some into one folder.

    Args:
        jobs: finished.
        folder: made where it is not there; people in it who are not among the jobs stay.
        base: what the server is given as the base; None: what the adapters name.

    Raises:
        ConfigError: none has adapters, they are of several bases, or do not fit theirs.
    """
    found = [job for job in jobs if (job.paths.model / _CONFIG).is_file()]
    if not found:
        raise ConfigError(
            f"export adapters: got {len(jobs)} finished jobs, none with adapters; expected some; "
            "train with recipe.adapter=lora publish.lora=adapter"
        )
    configs = {job.slug: _read_config(job) for job in found}
    names = sorted({config[_BASE] for config in configs.values()})
    if len(names) > 1:
        raise ConfigError(
            f"export adapters: got adapters of {len(names)} bases ({', '.join(names[:3])}); "
            "expected one; choose people of one base by --user"
        )
    modules, family = _modules(names[0])
    ranks = [_check(job, configs[job.slug], modules) for job in found]
    for place in (folder / job.slug for job in found):
        _check_place(place)
    for job in found:
        place = folder / job.slug
        place.mkdir(parents=True, exist_ok=True)
        config = configs[job.slug] | {_BASE: base or names[0]}
        write_text(place / _CONFIG, json.dumps(config, indent=2) + "\n")
        _link(job.paths.model / _WEIGHTS, place / _WEIGHTS)
    slugs = tuple(job.slug for job in found)
    return AdapterFolder(folder, base or names[0], slugs, max(ranks), family not in _NOT_AT_VLLM)


def _read_config(job: Finished) -> dict[str, Any]:
    path = job.paths.model / _CONFIG
    try:
        config: dict[str, Any] = read_json(path)
        return config | {_BASE: str(config[_BASE]), "r": int(config["r"])}
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as err:
        raise _unreadable(job, path, err) from err


def _unreadable(job: Finished, path: Path, err: Exception) -> ConfigError:
    return ConfigError(
        f"{job.slug}: {path.name} cannot be read ({first_line(err)}); expected adapters; train "
        "them again"
    )


def _modules(base: str) -> tuple[Mapping[str, tuple[int, int]], str]:
    """Return inputs and outputs of the linear layers of a base, by name, and its family.

    Made without weights: nothing but the configuration is read.
    """
    try:
        config = AutoConfig.from_pretrained(base)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, ImportError) as err:
        reason = first_line(err)
        raise ConfigError(
            f"export adapters: the base {base} cannot be had ({reason}); expected its "
            "configuration to check the adapters by; make it available"
        ) from err
    found: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.ndim == 2:
            rows, columns = int(weight.shape[0]), int(weight.shape[1])
            is_turned = type(module).__name__ == "Conv1D"
            found[name] = (rows, columns) if is_turned else (columns, rows)
    return found, str(config.model_type)


def _check(job: Finished, config: Mapping[str, Any], modules: Mapping[str, tuple[int, int]]) -> int:
    """Hold adapters against the base; return their rank.

    Raises:
        ConfigError: a name or a shape does not fit.
    """
    rank = int(config["r"])
    path = job.paths.model / _WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as err:
        raise _unreadable(job, path, err) from err
    for name, shape in shapes.items():
        match = _TENSOR.fullmatch(name)
        module = modules.get(match[1]) if match else None
        if match is None or module is None:
            raise ConfigError(
                f"{job.slug}: got the tensor {name}, for which the base has no module; expected "
                "names of its linear layers; a server would serve the bare base silently"
            )
        wanted = (rank, module[0]) if match[2] == "A" else (module[1], rank)
        if shape != wanted:
            raise ConfigError(
                f"{job.slug}: got {name} of the shape {shape}; expected {wanted}; train the "
                "adapters again on this base"
            )
    if not shapes:
        raise ConfigError(f"{job.slug}: got no tensor; expected adapters; train them again")
    return rank


def _check_place(place: Path) -> None:
    """Refuse to write into a job, or over what no export has written.

    Raises:
        ConfigError: with what lies there.
    """
    for one in place.resolve().parents:
        if JobPaths(one).result.is_file() and JobPaths(one).model.is_dir():
            raise ConfigError(
                f"--to: got {place.parent}, which is in the folder of the job {one.name}; expected "
                "a folder of its own; choose another"
            )
    names = {path.name for path in place.iterdir()} if place.exists() else set()
    if any(not name.startswith(".") for name in names - {_CONFIG, _WEIGHTS}):
        raise ConfigError(
            f"--to: got {place}, in which other files lie; expected none, or an earlier export; "
            "choose another folder"
        )


def _link(source: Path, target: Path) -> None:
    """Link a file, where the file system has links that survive a move; else copy it."""
    with replacing_file(target) as draft:
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)
