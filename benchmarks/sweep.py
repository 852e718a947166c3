"""The original's search space, 32 trials: side by side in one process against a process per trial.

    python benchmarks/sweep.py --posts ../shared/tweets --user MaxineWaters
    python benchmarks/sweep.py --parts pruning --trials 32

- fused: `huggingtweets sweep`, trials side by side in the fused engine;
- process: a fresh `train.py` for each of the same trials, one after another.

The two take turns: the whole sweep, then a part of the processes, and so on, on the same cores.
Objective values are compared trial by trial; dropout is 0, as the engines draw it differently. The
part `pruning` runs the same trials (a random trial depends on its number alone) without a pruner
and with each, and counts steps.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT, Ended, build_parser, run_python

SWEEP = ROOT / "conf" / "sweep" / "huggingtweets.yaml"


@dataclass
class Cost:
    """What commands took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, ended: Ended) -> None:
        """Count one more."""
        self.wall_s += ended.wall_s
        self.cpu_s += ended.cpu_s


def shared_arguments(args: argparse.Namespace) -> list[str]:
    """What every trial is given."""
    source = ["source=demo"]
    if args.posts:
        source = ["source=jsonl", f"source.path={Path(args.posts).resolve()}"]
    return [
        f"user={args.user}",
        *source,
        "model=tiny",
        "engine.precision=fp32",
        f"recipe.block_size={args.block_size}",
        "recipe.dropout=0",
        "consent=public-figure-research",
        "tracking=none",
        *args.overrides,
    ]


def run_sweep(args: argparse.Namespace, folder: Path, *settings: str) -> tuple[Ended, Any]:
    """Run the whole sweep into a new folder; return what it took, and what became of it."""
    command = ["-m", "huggingtweets.cli", "sweep"]
    given = [*shared_arguments(args), f"output_dir={folder}", f"sweep.trials={args.trials}"]
    ended = run_python([*command, str(SWEEP), *given, *settings], cwd=ROOT)
    status = run_python([*command, "status", str(folder), "--json"], cwd=ROOT)
    return ended, json.loads(status.printed)


def run_process(folder: Path, number: int, out: Path) -> tuple[Ended, float]:
    """Train one trial of a sweep by a process of its own; return also its objective value."""
    config = [f"--config-path={folder / f'trial-{number:04d}'}", "--config-name=config"]
    words = [str(ROOT / "train.py"), *config, f"output_dir={out}", "engine.kind=single"]
    ended = run_python(words, cwd=ROOT)
    (result,) = out.glob("*/result.json")
    return ended, json.loads(result.read_text())["eval"]["bits_per_byte"]


def compare_ways(args: argparse.Namespace, root: Path) -> None:
    """Take turns, and print what each way took."""
    fused: list[Ended] = []
    process = Cost()
    differences = []
    status: dict[str, Any] = {}
    num = args.processes or args.trials
    chosen = [index * args.trials // num for index in range(num)]
    for turn in range(args.turns):
        folder = root / f"fused-{turn}"
        cost, status = run_sweep(args, folder, "sweep.way=fused")
        fused.append(cost)
        print(f"fused {turn}: wall {cost.wall_s:.1f} s, CPU {cost.cpu_s:.1f} s", flush=True)
        values = {row["number"]: row["values"][0] for row in status["rows"]}
        for number in chosen[turn :: args.turns]:
            cost, value = run_process(folder, number, root / f"process-{number}")
            process.add(cost)
            differences.append(abs(value - values[number]))
        print(
            f"processes so far: wall {process.wall_s:.1f} s, CPU {process.cpu_s:.1f} s", flush=True
        )
    scale = args.trials / num
    process = Cost(process.wall_s * scale, process.cpu_s * scale)
    wall = statistics.median(cost.wall_s for cost in fused)
    cpu = statistics.median(cost.cpu_s for cost in fused)
    steps = sum(row["steps"] for row in status["rows"])
    if num < args.trials:
        part = sum(row["steps"] for row in status["rows"] if row["number"] in chosen)
        print(f"{num} processes ({part / steps:.0%} of the steps), scaled to {args.trials}")
    print(f"\n{args.trials} trials, {steps} steps, load {os.getloadavg()[0]:.1f}\n")
    print("| way | wall s | CPU s | a trial, CPU s |\n| --- | --- | --- | --- |")
    for name, one in (("process", process), ("fused", Cost(wall, cpu))):
        print(f"| {name} | {one.wall_s:.1f} | {one.cpu_s:.1f} | {one.cpu_s / args.trials:.2f} |")
    print(f"\nratio: wall {process.wall_s / wall:.2f}x, CPU {process.cpu_s / cpu:.2f}x")
    print(f"largest difference of an objective value: {max(differences):.2e} bits per byte")


def compare_pruners(args: argparse.Namespace, root: Path) -> None:
    """Run the same trials with and without pruning."""
    print("| pruner | whole | pruned | steps | of all | best | wall s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    whole = 0
    for pruner in ("none", "median", "asha", "hyperband"):
        cost, status = run_sweep(
            args, root / f"pruner-{pruner}", "sweep.way=fused", f"sweep.pruner={pruner}",
            *args.settings,
        )  # fmt: skip
        steps = sum(row["steps"] for row in status["rows"])
        whole = whole or steps
        best = min(row["values"][0] for row in status["rows"] if row["values"])
        counts = status["counts"]
        print(
            f"| {pruner} | {counts.get('complete', 0)} | {counts.get('pruned', 0)} | {steps} | "
            f"{steps / whole:.0%} | {best:.4f} | {cost.wall_s:.1f} | {cost.cpu_s:.1f} |",
            flush=True,
        )


def main() -> None:
    """Run the parts asked for."""
    parser = build_parser(__doc__)
    parser.add_argument("--posts", help="folder of posts, a file per person; without: the demo")
    parser.add_argument("--user", default="demo")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--turns", type=int, default=2, help="runs of the whole sweep")
    parser.add_argument("--processes", type=int, help="of this many trials, scaled up (all)")
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--parts", nargs="+", default=["ways", "pruning"])
    parser.add_argument("--settings", nargs="*", default=[], help="of the sweeps that prune")
    parser.add_argument("--dir", help="keep everything there")
    parser.add_argument("overrides", nargs="*", help="as given to train.py")
    args = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        root = Path(args.dir or name).resolve()
        root.mkdir(parents=True, exist_ok=True)
        if "ways" in args.parts:
            compare_ways(args, root)
        if "pruning" in args.parts:
            compare_pruners(args, root)


if __name__ == "__main__":
    main()
