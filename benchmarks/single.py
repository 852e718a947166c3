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

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from harness import (
    PLAIN,
    ROOT,
    add_training,
    build_parser,
    choose_posts,
    find_model,
    markdown,
    run_python,
    write_posts,
    write_report,
)

WARM_UP = 3
"""Steps that do not count."""


@dataclass(frozen=True)
class Case:
    """One row of work for all ways."""

    block_size: int
    batch: int
    precision: str
    documents: str


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
    write_posts(folder / "someone.jsonl", posts)
    command = [str(ROOT / "benchmarks" / "peers.py"), way, str(folder / "spec.json")]
    start = time.time()
    ended = run_python(command, cwd=folder, device=args.device, TOKENIZERS_PARALLELISM="false")
    [line] = [line for line in ended.printed.splitlines() if line.startswith("STEPS ")]
    found = vars(ended) | read_steps(json.loads(line.removeprefix("STEPS ")), start)
    del found["printed"]
    return found


def our_arguments(case: Case, base: str, folder: Path, args: Any) -> list[str]:
    """Return train.py's arguments for the same work."""
    return [
        "user=someone", "source=jsonl", f"source.path={folder}", f"model.path={base}",
        f"output_dir={folder / 'out'}", "recipe=tweets", *PLAIN, f"recipe.lr={args.lr}",
        "recipe.warmup_frac=0",
        f"recipe.isolate_documents={'true' if case.documents == 'isolated' else 'false'}",
        f"recipe.block_size={case.block_size}", f"recipe.global_batch_size={case.batch}",
        "engine=single", f"engine.precision={case.precision}",
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
    lines = []
    for row in rows:
        case, ours = row["case"], row["runs"]["ours"]
        name = f"{case['documents']}, {case['block_size']} x {case['batch']}, {case['precision']}"
        for way, runs in row["runs"].items():
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            speed = middle["tokens_per_s"]
            ratios = dict.fromkeys(RATIOS, "")
            if way != "ours":
                pairs = list(zip(ours, runs, strict=True))
                ratios = {key: spread([own[key] / other[key] for own, other in pairs])
                          for key in RATIOS}  # fmt: skip
            lines.append([
                name, way, f"{speed:.0f}",
                f"{speed * row['flop_per_token'][way] / row['peak']:.0%}",
                ratios["tokens_per_s"], f"{middle['tokens_per_cpu_s']:.0f}",
                ratios["tokens_per_cpu_s"], f"{middle['first_step_s']:.1f}",
                f"{middle['wall_s']:.1f}", ratios["wall_s"], f"{middle['cpu_s']:.1f}",
                f"{middle['peak_memory_gib']:.2f}",
            ])  # fmt: skip
    head = [
        "documents, T x G, precision", "way", "tokens/s", "MFU", "ours: steps", "tokens/CPU-s",
        "ours: CPU", "first step s", "wall s", "our wall", "CPU s", "peak GiB",
    ]  # fmt: skip
    return markdown(head, lines, left=2)


RATIOS = ("tokens_per_s", "tokens_per_cpu_s", "wall_s")
"""Figures of which the table also has ours over theirs."""


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
    parser = build_parser(__doc__)
    parser.add_argument("--peers", default="ours,trainer,trl,nanogpt-style")
    add_training(parser)
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
    args = parser.parse_args()
    args.peers = args.peers.split(",")
    posts = choose_posts(args.posts, args.account)
    with tempfile.TemporaryDirectory() as name:
        base = find_model(args.model, Path(name), max(args.blocks))
        rows = [
            measure(Case(*one), posts, base, args)
            for one in product(args.blocks, [args.batch], args.precisions, args.documents)
        ]
    loads = [load for row in rows for load in row["load_average"]]
    text = (
        f"{table(rows)}\n\n{args.model}, {len(posts)} posts, {args.repeat} runs each alternately, "
        f"load average {min(loads):.1f} to {max(loads):.1f}, {os.cpu_count()} cores"
    )
    write_report(args.out, text, rows=rows)


if __name__ == "__main__":
    main()
