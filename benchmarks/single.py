"""One person's model: our single engine beside what a user would take instead.

    python benchmarks/single.py                                   # model=tiny on this machine's CPU
    python benchmarks/single.py --model random-124m --posts 60 --blocks 256 --batch 4
    python benchmarks/single.py --model gpt2 --blocks 1024 --batch 1 --device cuda --precisions bf16

Every way trains one epoch of the same posts on the same base with the same recipe, from a fresh
process to a saved model: ours by train.py, its steps noted from outside, the others as their users
run them (peers.py). All runs are interleaved and repeated. Speeds are useful tokens (targets that
count, no padding) of the steps after the first few, per second and per CPU-second, which says more
on a busy machine; wall time is from command to saved model; the MFU is against a matrix product
measured in this very run. Ratios are ours over theirs, of runs that stood side by side: the median,
and the lowest and highest.

Models: tiny; random-124m and random-WIDTHxLAYERS (random weights; the tokenizer of GPT-2 from the
shared data where it is there, else that of tiny); or a local folder or a name on the Hub.
Documents: isolated, where ours keeps each post to itself (which the peers but TRL do not), or
joined, where all of them train on one stream.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("HUGGINGTWEETS_SHARED", ROOT.parent / "shared"))
WARM_UP = 3
"""Steps that do not count."""


@dataclass(frozen=True)
class Case:
    """One row of work for all ways."""

    block_size: int
    batch: int
    precision: str
    documents: str


def choose_posts(num: int, account: str | None) -> list[str]:
    """Return the cleaned posts of a person, as all ways get them."""
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
    tokenizer = AutoTokenizer.from_pretrained(shared if shared.is_dir() else tiny_base(_tiny()))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=width, n_layer=layers, n_head=max(1, width // 64)
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tiny() -> Any:
    from huggingtweets.config.schema import ModelConfig

    return ModelConfig(path=None)


def matmul_peak(precision: str, device: str) -> float:
    """Return FLOP/s of a large matrix product, the best of a few."""
    import torch

    n = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(2))
    best = 0.0
    for _ in range(6):
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def arithmetic(base: Path | str, mean_context: float) -> float:
    """Return the FLOP of one trained token; see `flops_per_token`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from huggingtweets.training.meter import flops_per_token

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    return flops_per_token(model, mean_context)


def mean_context(posts: Sequence[str], base: Path | str, case: Case) -> float:
    """Return how many positions a token of ours attends to on average."""
    from transformers import AutoTokenizer

    if case.documents == "joined":
        return (case.block_size + 1) / 2
    encoded = AutoTokenizer.from_pretrained(base)(list(posts), add_special_tokens=False)
    lengths = [min(len(ids) + 1, case.block_size) for ids in encoded["input_ids"]]
    return sum(n * (n + 1) / 2 for n in lengths) / sum(lengths)


def run_once(
    way: str, case: Case, posts: list[str], base: str, folder: Path, args: Any
) -> dict[str, float]:
    """Train one way in a process of its own."""
    out = folder / "model"
    spec = {
        "base": base, "posts": posts, "out": str(out), "block_size": case.block_size,
        "global_batch_size": case.batch, "precision": case.precision, "lr": args.lr,
        "log_every": args.log_every, "device": args.device, "compile": args.compile,
    }  # fmt: skip
    spec |= {"train": str(ROOT / "train.py"), "arguments": our_arguments(case, base, folder, args)}
    (folder / "spec.json").write_text(json.dumps(spec))
    lines = (json.dumps({"id": str(i), "text": text}) for i, text in enumerate(posts))
    (folder / "someone.jsonl").write_text("\n".join(lines) + "\n")
    command = [str(ROOT / "benchmarks" / "peers.py"), way, str(folder / "spec.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    if args.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
        start, wall_start = time.monotonic(), time.time()
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=folder,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
    if status:
        raise SystemExit(f"{way} {case} failed:\n{(folder / 'stderr').read_text()[-3000:]}")
    found = {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_memory_gib": usage.ru_maxrss / 2**20,
    }
    [line] = [
        line for line in (folder / "stdout").read_text().splitlines() if line.startswith("STEPS ")
    ]
    return found | read_steps(json.loads(line.removeprefix("STEPS ")), wall_start)


def our_arguments(case: Case, base: str, folder: Path, args: Any) -> list[str]:
    """Return train.py's arguments for the same work."""
    return [
        "user=someone", "consent=public-figure-research", "source=jsonl",
        f"source.path={folder}", f"model.path={base}",
        f"output_dir={folder / 'out'}", "recipe=tweets", "recipe.epochs=1", f"recipe.lr={args.lr}",
        "recipe.warmup_frac=0", "recipe.heldout_frac=0", "recipe.keep=last", "recipe.stop=never",
        f"recipe.isolate_documents={'true' if case.documents == 'isolated' else 'false'}",
        f"recipe.block_size={case.block_size}", f"recipe.global_batch_size={case.batch}",
        "cleaning.min_chars=0", "cleaning.warn_chars=0", "sampling.num=0", "tracking=none",
        "publish=none", "engine=single", f"engine.precision={case.precision}",
        f"engine.log_every={args.log_every}", f"engine.compile={str(args.compile).lower()}",
        *args.overrides,
    ]  # fmt: skip


def read_steps(steps: list[tuple[float, int, float]], start: float) -> dict[str, float]:
    """Turn the ends of steps into a speed."""
    steps, every = steps[:-1] or steps, steps  # the last step may be smaller
    skip = min(WARM_UP, max(1, len(steps) - 2))
    first, last = steps[skip - 1], steps[-1]
    num = sum(step[1] for step in steps[skip:])
    return {
        "tokens_per_s": num / (last[0] - first[0]),
        "tokens_per_cpu_s": num / (last[2] - first[2]),
        "tokens": float(sum(step[1] for step in every)),
        "first_step_s": every[0][0] - start,
    }


def spread(values: Sequence[float]) -> str:
    """Return a median with its lowest and highest."""
    return f"{statistics.median(values):.2f}x ({min(values):.2f}-{max(values):.2f})"


def table(rows: list[dict[str, Any]]) -> str:
    """Return all figures as Markdown."""
    lines = [
        "| documents, T x G, precision | way | tokens/s | MFU | ours: steps | tokens/CPU-s "
        "| ours: CPU | first step s | wall s | our wall | CPU s | peak GiB |",
        "| --- " * 12 + "|",
    ]
    for row in rows:
        case, ours = row["case"], row["runs"]["ours"]
        name = f"{case['documents']}, {case['block_size']} x {case['batch']}, {case['precision']}"
        for way, runs in row["runs"].items():
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            pairs = list(zip(ours, runs, strict=True))
            faster = [own["tokens_per_s"] / other["tokens_per_s"] for own, other in pairs]
            cheaper = [own["tokens_per_cpu_s"] / other["tokens_per_cpu_s"] for own, other in pairs]
            shorter = [own["wall_s"] / other["wall_s"] for own, other in pairs]
            lines.append(
                f"| {name} | {way} | {middle['tokens_per_s']:.0f} "
                f"| {middle['tokens_per_s'] * row['flop_per_token'][way] / row['peak']:.0%} "
                f"| {'' if way == 'ours' else spread(faster)} "
                f"| {middle['tokens_per_cpu_s']:.0f} | {'' if way == 'ours' else spread(cheaper)} "
                f"| {middle['first_step_s']:.1f} "
                f"| {middle['wall_s']:.1f} | {'' if way == 'ours' else spread(shorter)} "
                f"| {middle['cpu_s']:.1f} | {middle['peak_memory_gib']:.2f} |"
            )
    return "\n".join(lines)


def measure(case: Case, posts: list[str], base: Path | str, args: Any) -> dict[str, Any]:
    """Run all ways alternately."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in args.peers}
    load = []
    for turn in range(args.repeat):
        for way in args.peers if turn % 2 == 0 else args.peers[::-1]:
            load.append(os.getloadavg()[0])
            with tempfile.TemporaryDirectory() as name:
                one = run_once(way, case, posts, str(base), Path(name), args)
            runs[way].append(one)
            shown = {key: round(value, 2) for key, value in one.items()}
            print(case, way, json.dumps(shown), file=sys.stderr, flush=True)
    alone = arithmetic(base, mean_context(posts, base, case))
    joined = arithmetic(base, (case.block_size + 1) / 2)
    return {
        "case": vars(case),
        "peak": matmul_peak(case.precision, args.device),
        "flop_per_token": {way: alone if way in ("ours", "trl") else joined for way in args.peers},
        "load_average": load,
        "runs": runs,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--peers", default="ours,trainer,trl,nanogpt-style")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--account", help="of the shared posts; else CoryBooker")
    parser.add_argument("--posts", type=int, default=600, help="0: all")
    parser.add_argument("--blocks", type=int, nargs="+", default=[128])
    parser.add_argument("--batch", type=int, default=4, help="blocks per step")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--documents", nargs="+", default=["isolated"])
    parser.add_argument("--lr", type=float, default=1.372e-4)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON here, Markdown beside it")
    parser.add_argument("overrides", nargs="*", help="further key=value of train.py")
    args = parser.parse_args()
    args.peers = args.peers.split(",")
    posts = choose_posts(args.posts, args.account)
    with tempfile.TemporaryDirectory() as name:
        base = find_model(args.model, Path(name), max(args.blocks))
        rows = [
            measure(Case(*one), posts, base, args)
            for one in product(args.blocks, [args.batch], args.precisions, args.documents)
        ]
    text = table(rows)
    print(text)
    loads = [load for row in rows for load in row["load_average"]]
    print(f"\n{args.model}, {len(posts)} posts, {args.repeat} runs each alternately, ", end="")
    print(f"load average {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} cores")
    if args.out:
        about = {"command": sys.argv, "machine": platform.platform(), "versions": versions()}
        args.out.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(text + "\n")


def versions() -> dict[str, str]:
    """Return those of the packages that matter."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "accelerate", "trl")}


if __name__ == "__main__":
    main()
