"""Thousands of tiny users through the real runner: is memory flat, and what does a user cost?

    python benchmarks/many_users_flat.py --users 10000 --dir /tmp/flat

Makes up the users, runs train.py's own code in this process, and says where its CPU time went: into
preparing (read, clean, tokenise, pack), training, writing, and the rest, which is the runner's own.
Afterwards it holds the ledger and `huggingtweets status` against the folders on the disk.
"""

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clock import Clock
from harness import build_parser, read_jobs, write_posts

WORDS = ("red", "blue", "green", "fast", "slow", "river", "mountain", "cloud", "window", "paper")
ARGUMENTS = (
    "model=tiny",
    "model.num_layers=2",
    "model.width=32",
    "model.num_heads=2",
    "model.vocab_size=300",
    "model.max_positions=64",
    "recipe.block_size=32",
    "recipe.global_batch_size=4",
    "recipe.max_steps=4",
    "cleaning.min_chars=0",
    "cleaning.warn_chars=0",
    "engine=fused",
    "engine.precision=fp32",
    "sampling.num=0",
    "tracking=none",
    "publish=none",
    "source=jsonl",
)
PAGE = os.sysconf("SC_PAGE_SIZE")


def write_users(folder: Path, num: int) -> None:
    """Write 50 to 100 posts for each of some made-up people."""
    posts = folder / "posts"
    posts.mkdir(parents=True, exist_ok=True)
    names = [f"user{number:06d}" for number in range(num)]
    for number, name in enumerate(names):
        rng = random.Random(number)
        texts = (
            " ".join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(rng.randint(50, 100))
        )
        write_posts(posts / f"{name}.jsonl", texts)
    (folder / "users.txt").write_text("\n".join(names) + "\n")


def watch(rows: list[dict[str, float]], num_done: Callable[[], int], every_s: float) -> None:
    """Note the memory of this process now and then, on a thread of its own."""
    started = time.monotonic()

    def look() -> None:
        while True:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            rows.append(
                {
                    "seconds": round(time.monotonic() - started, 1),
                    "done": num_done(),
                    "rss_mib": round(pages * PAGE / 2**20, 1),
                    "threads": threading.active_count(),
                }
            )
            time.sleep(every_s)

    threading.Thread(target=look, daemon=True).start()


def run(folder: Path, num: int, every_s: float, extra: list[str]) -> dict[str, Any]:
    """Train all users in this process."""
    os.chdir(folder)
    from huggingtweets.jobs import fused, runner
    from huggingtweets.logs import setup_logging
    from huggingtweets.training.stacked import pool as stacked_pool

    setup_logging()
    clock = Clock()
    clock.patch("prepare", fused, "begin_job", "prepare_job")
    clock.patch("write", fused, "finish_job")
    clock.patch("write", fused.Recorder, "start")
    clock.patch("load", fused, "open_base")
    pool: Any = stacked_pool
    train = stacked_pool.train_stacked
    pool.train_stacked = clock.through(
        "train",
        lambda tuning, jobs, **options: train(tuning, clock.drawn("drawing", jobs), **options),
    )
    finished: list[str] = []
    tally: Any = fused.Tally
    done = tally.done

    def noted(self: Any, plan: Any, **options: Any) -> None:
        finished.append(plan.job.slug)
        done(self, plan, **options)

    tally.done = noted
    rows: list[dict[str, float]] = []
    words = ["user=file:users.txt", "source.path=posts", "output_dir=out", *ARGUMENTS, *extra]
    config, jobs = read_jobs(words)
    watch(rows, lambda: len(finished), every_s)
    start, cpu = time.monotonic(), time.process_time()
    code = runner.run_jobs(config, jobs)
    wall, total = time.monotonic() - start, time.process_time() - cpu
    spent = dict(clock.seconds)
    spent["train"] -= spent.pop("drawing")
    spent["runner"] = total - sum(spent.values())
    return {
        "users": num,
        "exit_code": code,
        "wall_s": round(wall, 1),
        "users_per_hour": round(num / wall * 3600),
        "cpu_ms_a_user": {name: round(1000 * s / num, 2) for name, s in spent.items()},
        "load_average": os.getloadavg()[1],
        "memory": rows[:: max(1, len(rows) // 24)],
        "finished_once": len(finished) == len(set(finished)) == num,
    }


def hold_against_disk(folder: Path) -> dict[str, Any]:
    """Compare the ledger with the folders."""
    from huggingtweets.jobs.status import as_json, read_states

    start = time.monotonic()
    states = read_states(folder / "out")
    status = as_json(states)
    took = time.monotonic() - start
    del status["jobs"]
    on_disk = {path.parent.name for path in (folder / "out").glob("*/result.json")}
    lines = Counter(
        json.loads(line)["status"]
        for path in (folder / "out" / "ledger").glob("*.jsonl")
        for line in path.read_text().splitlines()
    )
    return {
        "status": status,
        "status_took_s": round(took, 2),
        "ledger_lines": dict(lines),
        "done_in_ledger_equals_disk": on_disk
        == {slug for slug, state in states.items() if state.status == "done"},
    }


def main() -> None:
    """Run and print JSON."""
    parser = build_parser(__doc__)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--dir", type=Path, required=True, help="an empty folder to work in")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between looks at memory")
    parser.add_argument("--out", type=Path, help="where to write the JSON, beside stdout")
    parser.add_argument("overrides", nargs="*", help="further key=value of train.py")
    args = parser.parse_args()
    out = args.out.resolve() if args.out else None
    folder = args.dir.resolve()
    write_users(folder, args.users)
    found = run(folder, args.users, args.every, args.overrides) | hold_against_disk(folder)
    text = json.dumps(found, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")
    sys.exit(0 if found["finished_once"] else 1)


if __name__ == "__main__":
    main()
