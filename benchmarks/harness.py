"""What the scripts of this folder share: posts, bases, train.py in processes, tables, reports."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("HUGGINGTWEETS_SHARED", ROOT.parent / "shared"))


def build_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that says of itself what the first line of a script's docstring says."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add what all scripts take that run train.py on a device of choice and report of it."""
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=_json_path, help="JSON here, Markdown beside it")
    parser.add_argument("overrides", nargs="*", help="further key=value of train.py")


def _json_path(text: str) -> Path:
    path = Path(text)
    if path.suffix == ".md":
        raise argparse.ArgumentTypeError(f"got {text}; expected a name for JSON, as x.json")
    return path


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """Return a table; all columns but the first ones are numbers, and stand to the right."""
    marks = [*["---"] * left, *["--:"] * (len(head) - left)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, marks, *rows))


def write_report(out: Path | None, text: str, **figures: Any) -> None:
    """Print a table, and write it beside its figures where there is a file for them."""
    print(text)
    if out is None:
        return
    packages = ("torch", "transformers", "accelerate", "trl")
    about = {
        "command": sys.argv,
        "machine": platform.platform(),
        "versions": {name: version(name) for name in packages if find_spec(name)},
    }
    out.write_text(json.dumps(about | figures, indent=1) + "\n")
    out.with_suffix(".md").write_text(text + "\n")


@dataclass(frozen=True)
class Ended:
    """A process that came to a good end."""

    wall_s: float
    cpu_s: float
    """Its own, and that of processes it started and waited for."""
    peak_memory_gib: float
    printed: str


def run_python(
    words: Sequence[str], *, cwd: Path | None = None, device: str = "", **variables: str
) -> Ended:
    """Run Python with this checkout's package.

    Args:
        words: of the command line, behind the interpreter.
        cwd: where to run it; None: here.
        device: `cpu` hides all others.
        variables: of the environment, beside those there are.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment | variables, cwd=cwd,
        )  # fmt: skip
        # Not `wait`: only this tells what the process has used, and not all children together.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            raise SystemExit(f"{' '.join(words[:4])} ... failed:\n{err.read()[-3000:]}")
        out.seek(0)
        cpu = usage.ru_utime + usage.ru_stime
        return Ended(wall, cpu, usage.ru_maxrss / 2**20, out.read())  # Linux counts in KiB


def read_jobs(words: Sequence[str]) -> tuple[Any, Any]:
    """Return the configuration and the jobs that train.py makes of its command line."""
    from huggingtweets.config.compose import read_config
    from huggingtweets.jobs.selection import select_jobs

    config = read_config(words)
    return config, select_jobs(config.user, config.shard, config.job_index, config.source)


def choose_posts(num: int, account: str | None = None) -> list[str]:
    """Return the cleaned posts of a person, as all ways get them; 0: all."""
    from huggingtweets.config.posts_schema import CleaningConfig, SourceConfig, SourceKind
    from huggingtweets.posts.cleaning import clean_timeline
    from huggingtweets.posts.sources.load import load_timeline

    folder = SHARED / "tweets"
    if folder.is_dir():
        source = SourceConfig(kind=SourceKind.jsonl, path=str(folder.resolve()))
        timeline = load_timeline(source, account or "CoryBooker")
    else:
        timeline = load_timeline(SourceConfig(kind=SourceKind.demo), account or "demo")
    posts = [post.text for post in clean_timeline(timeline, CleaningConfig())[0].posts]
    return posts[:num] if num else posts


def write_posts(path: Path, texts: Iterable[str]) -> None:
    """Write posts as source=jsonl reads them."""
    lines = (json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts))
    path.write_text("\n".join(lines) + "\n")


def find_model(name: str, folder: Path, block_size: int) -> Path | str:
    """Return the folder of the base, made now where it is one with random weights."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from huggingtweets.bases.tiny import tiny_base
    from huggingtweets.config.schema import ModelConfig

    if name == "tiny":
        return tiny_base(ModelConfig(path=None, max_positions=max(256, block_size)))
    if not name.startswith("random-"):
        return name
    shape = name.removeprefix("random-")
    width, layers = (768, 12) if shape == "124m" else map(int, shape.split("x"))
    shared = SHARED / "gpt2-tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(
        shared if shared.is_dir() else tiny_base(ModelConfig(path=None))
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=width, n_layer=layers, n_head=max(1, width // 64)
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


PLAIN = (
    "recipe.epochs=1", "recipe.heldout_frac=0", "recipe.keep=last", "recipe.stop=never",
    "cleaning.min_chars=0", "cleaning.warn_chars=0", "sampling.num=0", "tracking=none",
    "publish=none", "consent=public-figure-research",
)  # fmt: skip
"""Overrides that leave nothing of train.py but the training."""
