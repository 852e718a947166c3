"""What this machine has and lacks for training: looked at, never changed, no network asked."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from huggingface_hub import constants
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from huggingtweets.errors import first_line
from huggingtweets.kernels.compiler import find_compiler
from huggingtweets.online import is_offline_wanted
from huggingtweets.preview.fonts import font_for, is_colour_emoji
from huggingtweets.process import usable_cores
from huggingtweets.tracking.wandb_access import base_url, choose_mode, has_credentials

REQUIRED = (
    "huggingtweets", "torch", "transformers", "accelerate", "huggingface-hub", "hydra-core",
    "safetensors", "tokenizers",
)  # fmt: skip
OPTIONAL = ("datasets", "deepspeed", "gguf", "optuna", "peft", "starlette", "tensorboard", "wandb")
DEEPSPEED_TIMEOUT_S = 60.0
MIN_FREE_GIB = 5.0
"""More than twice what a model of gpt2's size and its checkpoints take."""
_SCRIPTS = {
    "Latin": "a",
    "Arabic": "\u0639",
    "Thai": "\u0e01",
    "Chinese": "\u4e2d",
    "Hindi": "\u0905",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    value: str
    advice: str = ""
    """What is amiss and what to do; empty: all is well."""
    is_fatal: bool = False
    """Whether nothing can be trained as it is."""


def examine() -> list[Finding]:
    """Look at everything; a few seconds, most of them for importing torch and deepspeed."""
    deepspeed = _start_deepspeed()
    findings = [*_system(), *_packages(), *_devices(), *_compilers()]
    findings += [_deepspeed(deepspeed), *_accelerate(), *_hub(), _wandb(), _fonts(), _slurm()]
    return findings


def build_findings(findings: Sequence[Finding]) -> RenderableType:
    """Return the report as a table."""
    table = Table(box=None, show_header=False)
    for finding in findings:
        style = "red" if finding.is_fatal else "yellow" if finding.advice else "green"
        mark = "!!" if finding.is_fatal else " !" if finding.advice else "ok"
        value = Text(finding.value)
        if finding.advice:
            value.append(f"\n{finding.advice}", "italic")
        table.add_row(Text(mark, style), Text(finding.topic, "bold"), value)
    return table


def _system() -> Iterator[Finding]:
    yield Finding("system", f"{platform.platform()}, Python {platform.python_version()}")
    cores = usable_cores()
    gib = psutil.virtual_memory().total / 2**30
    yield Finding("cpu", f"{cores} cores usable, {gib:.0f} GiB memory")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    is_short = free < MIN_FREE_GIB
    yield Finding(
        "disk here",
        f"{free:,.0f} GiB free",
        "a model of gpt2's size and its checkpoints take 2 GiB; make room" if is_short else "",
    )


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for name in (*REQUIRED, *OPTIONAL):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", ", ".join(found))
    if required := [name for name in missing if name in REQUIRED]:
        advice = "run pip install huggingtweets (in a clone: pip install .)"
        yield Finding("missing", ", ".join(required), advice, is_fatal=True)
    if optional := [name for name in missing if name in OPTIONAL]:
        yield Finding("not installed", ", ".join(optional) + " (extras)")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as err:
        said = f"cannot be imported: {first_line(err)}"
        yield Finding("torch", said, "reinstall torch", is_fatal=True)
        return
    from huggingtweets.runtime.device import list_gpus

    gpus = list_gpus()
    for index, gpu in enumerate(gpus):
        yield Finding(
            f"gpu {index}",
            f"{gpu.name}, {gpu.num_bytes / 2**30:.0f} GiB",
            "" if gpu.has_bf16 else "has no bf16; engine.precision=auto takes fp16",
        )
    if not gpus and torch.backends.mps.is_available():
        yield Finding("gpu", "Apple MPS, which is not used: training runs on the CPU")
    elif not gpus:
        has_driver = shutil.which("nvidia-smi") is not None
        advice = f"torch {torch.__version__} sees no GPU; install a CUDA build of torch"
        yield Finding("gpu", "none: training runs on the CPU", advice if has_driver else "")


def _compilers() -> Iterator[Finding]:
    cxx = find_compiler()
    others = [name for name in ("ninja", "nvcc") if shutil.which(name)]
    yield Finding(
        "compilers",
        ", ".join([cxx or "no C++ compiler", *others]),
        ""
        if cxx
        else "needed by DeepSpeed on the CPU, by engine.compile=true, and to train many small "
        "models fast on a CPU; install g++",
    )


def _start_deepspeed() -> subprocess.Popen[str] | None:
    """Import it elsewhere: it prints, takes seconds, and may abort the process.

    Started first of all, so that it goes on while we look at the rest.
    """
    try:
        version("deepspeed")
    except PackageNotFoundError:
        return None
    return subprocess.Popen(
        [sys.executable, "-c", "import deepspeed"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def _deepspeed(process: subprocess.Popen[str] | None) -> Finding:
    if process is None:
        return Finding("deepspeed", "not installed (only needed by launch/zero*.yaml)")
    try:
        _, complaint = process.communicate(timeout=DEEPSPEED_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        complaint = f"took longer than {DEEPSPEED_TIMEOUT_S:.0f} s"
    if process.returncode == 0:
        return Finding("deepspeed", "can be imported")
    last = (complaint.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    return Finding("deepspeed", f"cannot be imported: {last}", "train without launch/zero*.yaml")


def _accelerate() -> Iterator[Finding]:
    folder = Path(constants.HF_HOME) / "accelerate"
    files = [folder / "default_config.yaml", folder / "default_config.json"]
    config = next((path for path in files if path.is_file()), None)
    yield Finding(
        "accelerate",
        f"default config {config}" if config else "no default config",
        "in force unless --config_file is given; pass one of launch/*.yaml" if config else "",
    )
    inherited = sorted(name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_")))
    if inherited:
        yield Finding("environment", ", ".join(inherited), "these change how training is launched")


def _hub() -> Iterator[Finding]:
    cache = Path(constants.HF_HUB_CACHE)
    bases = sorted(path.name.removeprefix("models--") for path in cache.glob("models--*"))
    listed = ", ".join(base.replace("--", "/") for base in bases[:8]) or "no model yet"
    more = f" and {len(bases) - 8} more" if len(bases) > 8 else ""
    is_offline = is_offline_wanted()
    advice = "HF_HUB_OFFLINE is set; fetch the base model first" if is_offline and not bases else ""
    yield Finding("hub cache", f"{cache}: {listed}{more}", advice)
    has_token = bool(os.environ.get("HF_TOKEN")) or Path(constants.HF_TOKEN_PATH).is_file()
    mode = "offline" if is_offline else "online"
    yield Finding("hub", f"{mode}, {'a' if has_token else 'no'} token")


def _wandb() -> Finding:
    key = "a" if has_credentials() else "no"
    return Finding(
        "wandb", f"tracking=wandb would be {choose_mode(None)}: {key} key for {base_url()}"
    )


def _fonts() -> Finding:
    lacking = [name for name, char in _SCRIPTS.items() if font_for(char, 24, False) is None]
    if not is_colour_emoji("\U0001f600"):
        lacking.append("emoji in colour")
    return Finding(
        "fonts",
        f"nothing for {', '.join(lacking)}" if lacking else "all that previews need",
        "left out of preview pictures; install fonts-noto" if lacking else "",
    )


def _slurm() -> Finding:
    job = os.environ.get("SLURM_JOB_ID")
    place = f"inside job {job}" if job else "sbatch found" if shutil.which("sbatch") else "none"
    return Finding("slurm", place)
