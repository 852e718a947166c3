"""Training steps of K users: side by side in the fused engine, against taking turns.

    python benchmarks/fused_steps.py                     # this machine's device, a table on stdout
    python benchmarks/fused_steps.py --widths 128 --slots 8 --precisions fp32 --dropouts 0.1
    python benchmarks/fused_steps.py --widths 128 --slots 16 --threads 2 --engines 2

Four ways do the same work, the same users with the same blocks, recipe and start:

- turns: one user after another, a plain loop around transformers' GPT2LMHeadModel with PyTorch's
  fused AdamW and attention kernels;
- alone: the fused engine with one slot, one user after another: what is gained without fusing;
- operators: the fused engine with K slots, PyTorch's operators between the matrix products;
- fused: the fused engine as it is: on a CPU with its own C++ in their place.

They run alternately, repeatedly; speeds are medians. Without dropout the losses must agree. With
`--operators` a fused step of each case is taken apart instead.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from harness import build_parser, markdown
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import Blocks, TrainingSet
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.layout import Layout
from huggingtweets.ops.reference import PYTORCH
from huggingtweets.training.modules.attention import document_mask
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.stacked import tuning as stacked_tuning
from huggingtweets.training.stacked.pool import train_stacks
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

EOS = 0
NUM_OPERATORS = 40


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    width: int
    slots: int
    precision: str
    dropout: float
    block_size: int
    blocks_per_step: int
    isolated: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


def build_jobs(case: Case, *, vocab_size: int, steps: int, users: int) -> list[TrainingJob]:
    """Users of random ids; isolated documents are of 8 to 40 tokens, as posts are."""
    rng = np.random.default_rng(0)
    recipe = RecipeConfig(
        epochs=1,
        block_size=case.block_size,
        global_batch_size=case.blocks_per_step,
        isolate_documents=case.isolated,
        dropout=case.dropout,
    )
    shape = (steps * case.blocks_per_step, case.block_size)
    jobs = []
    for user in range(users):
        ids = rng.integers(1, vocab_size, (shape[0], shape[1] + 1), dtype=np.int32)
        positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy()
        if case.isolated:
            for row in positions:
                lengths = rng.integers(8, 40, shape[1])
                starts = np.concatenate([[0], np.cumsum(lengths)])
                for start in starts[starts < shape[1]]:
                    row[start:] = np.arange(shape[1] - start)
        blocks = Blocks(ids[:, :-1].copy(), ids[:, 1:].copy(), positions)
        jobs.append(
            TrainingJob(f"user-{user}", TrainingSet(blocks, (len(blocks),)), None, recipe, user)
        )
    return jobs


def train_in_turns(
    base: GPT2LMHeadModel, job: TrainingJob, case: Case, device: torch.device
) -> float:
    """Train one user with a plain loop and return the mean loss."""
    recipe, blocks = job.recipe, job.training_set.blocks
    model = GPT2LMHeadModel(base.config).to(device)
    model.load_state_dict(base.state_dict())
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.0, fused=True)
    parts = [
        torch.from_numpy(part).long().to(device)
        for part in (blocks.input_ids, blocks.targets, blocks.position_ids)
    ]
    size, total = recipe.global_batch_size, torch.zeros((), device=device)
    steps = len(blocks) // size
    for step in range(steps):
        ids, targets, positions = (part[step * size : (step + 1) * size] for part in parts)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe=recipe, total_steps=steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            logits = model(
                input_ids=ids,
                attention_mask=document_mask(positions) if case.isolated else None,
                position_ids=positions if case.isolated else None,
                use_cache=False,
            ).logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach()
    return float(total) / steps


def train_fused(
    layout: Layout,
    base: torch.Tensor,
    jobs: list[TrainingJob],
    case: Case,
    device: torch.device,
    *,
    slots: int,
    micro: int,
    engines: int,
) -> list[float]:
    """Train all users with the fused engine and return their mean losses."""
    settings = StackedSettings(
        slots=slots,
        micro_batch_size=micro,
        block_size=case.block_size,
        dtype=case.dtype,
        log_every=1 << 30,
        engines=engines,
    )
    losses = {}
    for result in train_stacks(
        FullTuning(layout, base), iter(jobs), settings=settings, device=device
    ):
        if result.error is not None or result.trained is None:
            raise SystemExit(f"{result.slug}: {result.error}")
        losses[result.slug] = result.trained.final_loss
    return [losses[job.slug] for job in jobs]


def micro_batch_size(case: Case, args: argparse.Namespace) -> int:
    """Return how many blocks of each slot are computed at once."""
    fitting = min(case.blocks_per_step, 2048 // (case.slots * case.block_size))
    return args.micro or max(1, fitting)


def build_ways(
    case: Case, args: argparse.Namespace, device: torch.device
) -> dict[str, Callable[[], list[float]]]:
    """Return the ways to train the users of a case, each giving their mean losses."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=args.vocab_size,
        n_positions=case.block_size,
        n_embd=case.width,
        n_layer=args.layers,
        n_head=max(1, case.width // args.head_width),
        attn_pdrop=case.dropout,
        resid_pdrop=case.dropout,
        embd_pdrop=case.dropout,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    model = GPT2LMHeadModel(config)
    layout = layout_of(shape_of(config))
    base = layout.pack(model.state_dict())
    users = case.slots * args.users_per_slot
    jobs = build_jobs(case, vocab_size=args.vocab_size, steps=args.steps, users=users)
    micro = micro_batch_size(case, args)

    def operators() -> list[float]:
        with mock.patch.object(stacked_tuning, "choose_ops", return_value=PYTORCH):
            return fused(case.slots, micro, args.engines)

    def fused(slots: int, micro: int, engines: int = 1) -> list[float]:
        return train_fused(
            layout, base, jobs, case, device, slots=slots, micro=micro, engines=engines
        )

    return {
        "turns": lambda: [train_in_turns(model, job, case, device) for job in jobs],
        "alone": lambda: fused(1, case.blocks_per_step),
        "operators": operators,
        "fused": lambda: fused(case.slots, micro, args.engines),
    }


def measure(case: Case, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time the ways alternately."""
    ways = build_ways(case, args, device)
    losses: dict[str, Any] = {}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(args.repeats + 1):
        for way, run in ways.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            losses[way] = run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first warms up
                wall[way].append(time.perf_counter() - start)
                cpu[way].append(time.process_time() - cpu_start)
    tokens = case.slots * args.users_per_slot * args.steps * case.blocks_per_step * case.block_size
    error = max(abs(a - b) for a, b in zip(losses["fused"], losses["turns"], strict=True))
    limit = {"fp32": 1e-4, "bf16": 3e-2}[case.precision]
    if case.dropout == 0 and not error < limit:
        raise SystemExit(f"{case}: losses differ by {error}; expected less than {limit}")
    row: dict[str, Any] = vars(case) | {
        "micro": micro_batch_size(case, args),
        "loss_error": error,
    }
    for way in ways:
        row[f"{way}_tokens_per_s"] = tokens / statistics.median(wall[way])
        row[f"{way}_cpu_s"] = statistics.median(cpu[way])
    for way in ("turns", "alone", "operators"):
        ratios = [a / b for a, b in zip(wall[way], wall["fused"], strict=True)]
        row[f"vs_{way}"] = statistics.median(ratios)
        row[f"vs_{way}_range"] = [min(ratios), max(ratios)]
        row[f"vs_{way}_cpu"] = statistics.median(
            a / b for a, b in zip(cpu[way], cpu["fused"], strict=True)
        )
    return row


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the seconds of each operator, by name and shapes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        took = time.perf_counter() - start
        shapes = [list(arg.shape) for arg in args if isinstance(arg, torch.Tensor)]
        self.seconds[f"{func} {' '.join(map(str, shapes))}"] += took
        return result


def show_operators(case: Case, args: argparse.Namespace, device: torch.device) -> None:
    """Print the dearest operators of a fused step; on a CPU, where they end when they return."""
    fused = build_ways(case, args, device)["fused"]
    fused()
    with _Operators() as operators:
        fused()
    total = sum(operators.seconds.values())
    print(f"{case}: {1e3 * total / args.steps:.1f} ms of a step")
    dearest = sorted(operators.seconds.items(), key=lambda item: -item[1])
    for name, seconds in dearest[:NUM_OPERATORS]:
        print(f"{1e3 * seconds / args.steps:8.2f}  {name}")


def as_markdown(rows: list[dict[str, Any]], machine: str) -> str:
    """Return the table."""
    cells = []
    for row in rows:
        low, high = row["vs_turns_range"]
        form = "isolated" if row["isolated"] else "joined"
        cells.append([
            row["width"], row["slots"], row["precision"], f"{row['dropout']:g}",
            f"{row['blocks_per_step']} x {row['block_size']} {form}",
            *(f"{row[f'{way}_tokens_per_s']:,.0f}" for way in ("turns", "alone", "fused")),
            f"{row['vs_turns']:.2f} ({low:.2f}-{high:.2f})", f"{row['vs_turns_cpu']:.2f}",
            f"{row['vs_alone']:.2f}", f"{row['vs_operators']:.2f}",
        ])  # fmt: skip
    head = [
        "width", "K", "precision", "dropout", "blocks", "turns, tokens/s", "alone", "fused",
        "fused / turns", "in CPU seconds", "fused / alone", "fused / operators",
    ]  # fmt: skip
    return f"Training steps, {machine}.\n\n{markdown(head, cells, left=5)}\n"


def numbers(text: str) -> list[int]:
    """Read `1,2,3`."""
    return [int(part) for part in text.split(",")]


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add what users, blocks and steps are like."""
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--head-width", type=int, default=32)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--blocks-per-step", type=int, default=1)
    parser.add_argument("--isolated", action="store_true", help="documents of 8 to 40 tokens")
    parser.add_argument("--micro", type=int, default=0, help="blocks per slot at once; 0: choose")
    parser.add_argument("--steps", type=int, default=10, help="of each user")
    parser.add_argument("--users-per-slot", type=int, default=1)


def main() -> None:
    """Measure every combination and write the tables."""
    parser = build_parser(__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0: all")
    parser.add_argument("--engines", type=int, default=1, help="to share the slots, a thread each")
    parser.add_argument("--widths", type=numbers, default=[64, 128, 256])
    parser.add_argument("--slots", type=numbers, default=[4, 8])
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--dropouts", default="0,0.1")
    add_shape(parser)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--operators", action="store_true", help="of a fused step, instead")
    parser.add_argument("--out", type=Path, help="folder for fused_steps.json and .md")
    args = parser.parse_args()
    if args.operators and args.engines > 1:
        parser.error("--operators sees one thread; expected --engines 1 beside it")
    transformers_logging.set_verbosity_error()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    machine = (
        f"{name or platform.machine()}, {torch.get_num_threads()} threads, "
        f"{args.engines} engine(s), {args.layers} layers"
    )
    rows = []
    for width, slots, precision, dropout in product(
        args.widths, args.slots, args.precisions.split(","), map(float, args.dropouts.split(","))
    ):
        case = Case(
            width, slots, precision, dropout, args.block_size, args.blocks_per_step, args.isolated
        )
        if args.operators:
            show_operators(case, args, device)
            continue
        rows.append(measure(case, args, device))
        print(json.dumps(rows[-1]), flush=True)
    if args.operators:
        return
    mean = math.exp(statistics.fmean(math.log(row["vs_turns"]) for row in rows))
    table = as_markdown(rows, machine) + f"\nGeometric mean of fused / turns: {mean:.2f}\n"
    print(table)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "fused_steps.md").write_text(table)
        report = {"machine": machine, "torch": torch.__version__, "rows": rows}
        (args.out / "fused_steps.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
