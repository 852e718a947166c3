"""An older revision against this checkout: stacked training steps, or whole batches of people.

    python benchmarks/against.py 803f918
    python benchmarks/against.py 803f918 --widths 128 --precisions fp32 --vocab-size 50257
    python benchmarks/against.py 803f918 --people ../shared/tweets recipe.max_steps=60

The older revision is checked out beside this one, for as long as it takes. Steps: each trains in a
process of its own by its own `fused_steps.py`: the same users, blocks and start. The two take
turns, who goes first changes each time; a ratio above 1 says that this checkout is faster. The
losses must agree. People: each runs its own train.py once on a folder with a file of posts per
person, with `model=tiny` and all other settings as they are by default, or as given.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from fused_steps import add_shape, numbers
from harness import ROOT, build_parser

LOSS_RTOL = {"fp32": 1e-4, "bf16": 1e-2}
"""Most that mean losses may differ, against their size."""

OWN = ("revision", "people", "overrides")
"""Options that the child does not have."""

CHILD = """
import argparse, json, os, sys, time
import torch
import fused_steps

args = argparse.Namespace(**json.loads(sys.argv[1]))
if args.threads:
    torch.set_num_threads(args.threads)
known = {}
for line in sys.stdin:
    if line not in known:
        case = fused_steps.Case(**json.loads(line))
        known = {line: fused_steps.build_ways(case, args, torch.device(args.device))["fused"]}
    wall, cpu = time.perf_counter(), time.process_time()
    losses = known[line]()
    found = [time.perf_counter() - wall, time.process_time() - cpu, sum(losses) / len(losses)]
    print("FOUND", json.dumps(found), flush=True)
"""


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Have a revision in a folder of its own for a while."""
    with tempfile.TemporaryDirectory(prefix="against-") as name:
        folder = Path(name) / "old"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


class Trainer:
    """A process that trains when it is told to."""

    def __init__(self, root: Path, args: argparse.Namespace) -> None:
        """Start it, with the package and the benchmarks of a checkout."""
        path = os.pathsep.join((str(root), str(root / "benchmarks")))
        options = {name: value for name, value in vars(args).items() if name not in OWN}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(options)],
            env=os.environ | {"PYTHONPATH": path},
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, case: dict[str, Any]) -> tuple[float, float, float]:
        """Return wall and CPU seconds of a case, and the mean loss."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(case) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("FOUND "):
                wall, cpu, loss = json.loads(line.removeprefix("FOUND "))
                return wall, cpu, loss
        raise SystemExit("against: one of the two ended before its time; its words stand above")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(old: Trainer, new: Trainer, case: dict[str, Any], repeats: int) -> str:
    """Train a case in turns and return its row of the table."""
    found: dict[Trainer, list[tuple[float, float, float]]] = {old: [], new: []}
    for repeat in range(repeats + 1):
        for one in (old, new) if repeat % 2 else (new, old):
            outcome = one.run(case)
            if repeat:  # the first warms up
                found[one].append(outcome)
    before, now = found[old][-1][2], found[new][-1][2]
    if not abs(before - now) <= LOSS_RTOL[case["precision"]] * abs(before):
        raise SystemExit(f"{case}: the loss was {before} and is {now}; expected the same")
    columns = []
    for part in (0, 1):
        was, are = ([outcome[part] for outcome in found[one]] for one in (old, new))
        medians = statistics.median(was) / statistics.median(are)
        columns.append(f"{min(was):.2f} | {min(are):.2f} | {min(was) / min(are):.2f}")
        columns.append(f"{medians:.2f}")
    return f"| {case['width']} | {case['precision']} | {' | '.join(columns)} |"


def train_people(root: Path, posts: Path, out: Path, overrides: list[str]) -> tuple[float, float]:
    """Train everybody who has a file of posts by a checkout; return wall and CPU seconds."""
    names = sorted(path.name.partition(".")[0] for path in posts.glob("*.jsonl*"))
    users = out.with_suffix(".txt")
    users.write_text("".join(f"{name}\n" for name in names))
    words = [f"user=file:{users}", "source=jsonl", f"source.path={posts.resolve()}", "model=tiny"]
    words += ["tracking=none", "engine.precision=fp32", f"output_dir={out}", *overrides]
    start, before = time.monotonic(), os.times()
    subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,  # 1: some have too few posts, in either revision
    )
    after = os.times()
    return time.monotonic() - start, sum(after[2:4]) - sum(before[2:4])


def compare_people(old: Path, posts: Path, overrides: list[str]) -> None:
    """Print what the same people take by both revisions."""
    print(
        "| revision | people | wall s | people/hour | CPU s |\n| --- |" + " --: |" * 4, flush=True
    )
    walls = []
    with tempfile.TemporaryDirectory(prefix="against-") as name:
        for way, root in (("old", old), ("new", ROOT)):
            wall, cpu = train_people(root, posts, Path(name) / way, overrides)
            num = len(list((Path(name) / way).glob("*/result.json")))
            walls.append(wall / max(1, num))
            print(
                f"| {way} | {num} | {wall:.1f} | {3600 * num / wall:.0f} | {cpu:.1f} |", flush=True
            )
    print(f"\n{walls[0] / walls[1]:.2f}x; load now {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Print the table, row by row."""
    parser = build_parser(__doc__)
    parser.add_argument("revision", help="of git, to be compared with")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU; 0: all")
    parser.add_argument("--engines", type=int, default=1, help="to share the slots, a thread each")
    parser.add_argument("--widths", type=numbers, default=[128, 256, 384])
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--slots", type=int, default=8)
    add_shape(parser)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--people", type=Path, metavar="DIR", help="of posts; instead of steps")
    parser.add_argument("overrides", nargs="*", help="of train.py, for --people")
    args = parser.parse_intermixed_args()
    with checked_out(args.revision) as folder:
        if args.people:
            compare_people(folder, args.people, args.overrides)
            return
        old, new = Trainer(folder, args), Trainer(ROOT, args)
        print("| width | precision | wall s, old | new | old / new | medians | CPU s, old | new "
              "| old / new | medians |")  # fmt: skip
        print("| --: | --- |" + " --: |" * 8, flush=True)
        for width, precision in product(args.widths, args.precisions.split(",")):
            case = {
                "width": width,
                "slots": args.slots,
                "precision": precision,
                "dropout": args.dropout,
                "block_size": args.block_size,
                "blocks_per_step": args.blocks_per_step,
                "isolated": args.isolated,
            }
            print(measure(old, new, case, args.repeats), flush=True)
        old.close()
        new.close()


if __name__ == "__main__":
    main()
