"""How the cost of a single job grows: with the block, accumulation, processes, and slots.

    python benchmarks/scaling.py                    # this machine's CPU, a table on stdout
    python benchmarks/scaling.py --model gpt2 --device cuda --processes 1 8 --precision bf16

Every row is a run of train.py on the same posts; speeds are useful tokens per second of its steps
after the first, over all processes. Blocks and accumulation change what a step is, so they are told
beside the first row of their kind; so are processes (under torchrun) and slots (the fused engine,
that many users at once, against one).
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
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


def run(
    folder: Path, base: Path | str, *, processes: int, slots: int, args: Any, own: Sequence[str]
) -> float:
    """Train and return tokens per second."""
    launcher = []
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    names = [f"someone_{number}" for number in range(slots)]
    (folder / "users.txt").write_text("\n".join(names) + "\n")
    engine = ["engine=fused", f"engine.slots={slots}"] if slots > 1 else ["engine=single"]
    user = f"user=file:{folder / 'users.txt'}" if slots > 1 else f"user={names[0]}"
    words = [
        *launcher, str(ROOT / "train.py"), user, "source=jsonl", f"source.path={folder}",
        f"model.path={base}", f"output_dir={folder / 'out'}", *engine, "recipe=tweets", *PLAIN,
        f"engine.precision={args.precision}", "engine.log_every=2", *own, *args.overrides,
    ]  # fmt: skip
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    variables = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    run_python(words, cwd=folder, device=args.device, **variables)
    speeds: list[float] = []
    for name in names:
        text = (folder / "out" / name / "metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        late = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line][1:]
        if not late:
            raise SystemExit(f"{' '.join(own)}: too few steps to tell a speed; take more --posts")
        speeds.append(statistics.harmonic_mean(late))
    return sum(speeds)


def main() -> None:
    """Measure and print."""
    parser = build_parser(__doc__)
    add_training(parser)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--posts", type=int, default=250)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--tokens", type=int, default=1024, help="a step's, where blocks vary")
    parser.add_argument("--blocks", type=int, nargs="*", default=[128, 256, 512, 1024])
    parser.add_argument("--accumulation", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--slots", type=int, nargs="*", default=[1, 4, 8])
    args = parser.parse_args()
    posts = choose_posts(args.posts)
    rows: list[tuple[str, int]] = [("block", size) for size in args.blocks]
    rows += [("documents joined, block", size) for size in args.blocks]
    rows += [("accumulation", num) for num in args.accumulation]
    rows += [("processes", num) for num in args.processes]
    rows += [("slots", num) for num in args.slots]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        base = find_model(args.model, Path(place) / "base", 1024)
        for kind, value in rows:
            block, batch, micro = 128, 16, 16
            if kind.endswith("block"):
                block, batch = value, max(1, args.tokens // value)
                micro = batch
            elif kind in ("accumulation", "processes"):
                micro = batch // value
            else:
                batch = micro = 4
            own = [
                f"recipe.block_size={block}", f"recipe.global_batch_size={batch}",
                f"engine.micro_batch_size={micro}",
                f"recipe.isolate_documents={'false' if 'joined' in kind else 'true'}",
            ]  # fmt: skip
            processes, slots = (value if kind == name else 1 for name in ("processes", "slots"))
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                for number in range(slots):
                    write_posts(folder / f"someone_{number}.jsonl", posts)
                speed = run(folder, base, processes=processes, slots=slots, args=args, own=own)
            load = os.getloadavg()[0]
            found.append({"kind": kind, "value": value, "tokens_per_s": speed, "load": load})
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    write_report(args.out, table(found), rows=found)


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown, each beside the first of its kind."""
    first: dict[str, float] = {}
    rows = []
    for one in found:
        speed = one["tokens_per_s"]
        start = first.setdefault(one["kind"], speed)
        rows.append([one["kind"], one["value"], f"{speed:.0f}", f"{speed / start:.2f}x"])
    return markdown(["what grows", "to", "tokens/s", "against the first"], rows)


if __name__ == "__main__":
    main()
