"""Measure what background checkpoints of a GPT-2 cost training: rounds with and without in turn.

    python benchmarks/checkpoint_overhead.py --rounds 3 --dir /tmp

A round trains until a save that began with it has ended; the same number of steps without a save is
its yardstick. The difference, over the interval between saves, is the overhead.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.config.schema import EngineConfig, RecipeConfig
from huggingtweets.training.checkpoints.checkpoint import CheckpointState, Writer
from huggingtweets.training.checkpoints.saver import Saver
from huggingtweets.training.modules.loss import SummedLoss
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.shards import GROUPS, local_pieces
from huggingtweets.training.parallel.step import ParallelModel, train_step


def main() -> None:
    """Print one JSON line a round and one in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--dir", default=tempfile.gettempdir())
    options = parser.parse_args()
    interval_s = EngineConfig().save_every_s

    accelerator = Accelerator(mixed_precision="bf16")
    module = SummedLoss(GPT2LMHeadModel(GPT2Config(n_layer=options.layers)), isolate=False)
    optimizer = build_optimizer(module, RecipeConfig())
    module, optimizer = accelerator.prepare(module, optimizer)
    pieces = local_pieces(module, optimizer)
    ids = torch.randint(0, 50257, (1, options.block_size), device=accelerator.device)
    positions = torch.arange(options.block_size, device=accelerator.device)[None]

    def step() -> None:
        train_step(
            ParallelModel(accelerator, module, optimizer),
            [(ids, ids, positions)],
            num_targets=options.block_size,
            lr=1e-5,
            max_grad_norm=1.0,
            seeds=[0],
        )
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    folder = Path(tempfile.mkdtemp(dir=options.dir))
    saver = Saver(folder, Writer({}), every_s=interval_s)
    for _ in range(3):
        step()
    costs, blocked = [], []
    try:
        for number in range(options.rounds + 1):
            tensors = {g: {piece.name: piece.views[g] for piece in pieces} for g in GROUPS}
            started, cpu = time.perf_counter(), time.process_time()
            saver.save(CheckpointState(number + 1, tensors, {}))
            foreground_s = time.perf_counter() - started
            steps = 0
            while saver._save is not None and not saver._save.done():
                step()
                steps += 1
            with_s, with_cpu_s = time.perf_counter() - started, time.process_time() - cpu
            started, cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                step()
            without_s, without_cpu_s = time.perf_counter() - started, time.process_time() - cpu
            row = {
                "steps": steps,
                "foreground_s": foreground_s,
                "with_s": with_s,
                "without_s": without_s,
                "extra_s": with_s - without_s,
                "extra_cpu_s": with_cpu_s - without_cpu_s,
            }
            print(json.dumps({key: round(value, 3) for key, value in row.items()}), flush=True)
            if number:  # the first save also makes the copy's memory
                costs.append(row["extra_s"])
                blocked.append(row["extra_cpu_s"])
        saver.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary = {
        "gib": round(sum(p.numel() for p in module.parameters()) * 12 / 2**30, 2),
        "interval_s": interval_s,
        "overhead_percent": round(100 * statistics.median(costs) / interval_s, 2),
        "cpu_percent_of_one_core": round(100 * statistics.median(blocked) / interval_s, 2),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
