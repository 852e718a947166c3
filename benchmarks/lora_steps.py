"""LoRA of a GPT-2: our own forward pass against transformers' modules with grouped adapters.

    python benchmarks/lora_steps.py

Both train the same eight jobs in eight slots on one thread; CPU seconds, the least of three turns
taken alternately. Where transformers' modules are no slower by a tenth, our own pass has no reason.
"""

import time

import numpy as np
import torch
from harness import build_parser, markdown
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.blocks import build_training_set
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.grouped import GroupedTuning
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings, Tuning

CPU = torch.device("cpu")
SLOTS, T, RANK = 8, 128, 8
SIZES = ((128, 4, 2048, 12), (256, 4, 8192, 4), (384, 6, 50257, 3))
"""Width, layers, words, steps."""


def job(index: int, words: int, recipe: RecipeConfig) -> TrainingJob:
    """Return a job of random posts."""
    random = np.random.default_rng(index)
    posts = [random.integers(1, words, 20).tolist() for _ in range(100)]
    order = [[(0, number) for number in range(len(posts))]]
    blocks = build_training_set([posts], order, block_size=T, eos_id=0, isolate=True)
    return TrainingJob(str(index), blocks, None, recipe, index)


def seconds(tuning: Tuning, words: int, recipe: RecipeConfig) -> float:
    """Return the CPU seconds of training all jobs."""
    jobs = iter([job(index, words, recipe) for index in range(SLOTS)])
    settings = StackedSettings(slots=SLOTS, micro_batch_size=1, block_size=T)
    start = time.thread_time()
    for result in train_stacked(tuning, jobs, settings=settings, device=CPU):
        if result.error is not None:
            raise result.error
    return time.thread_time() - start


def main() -> None:
    """Print a table."""
    build_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    rows = []
    for width, layers, words, steps in SIZES:
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=words, n_positions=2 * T, n_embd=width, n_layer=layers, n_head=width // 64,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        model = GPT2LMHeadModel(config).eval()
        layout = layout_of(shape_of(config))
        own = FullTuning(layout, layout.pack(model.state_dict()), RANK)
        grouped = GroupedTuning(model, RANK, CPU, bos_id=0, block_size=T)
        for dropout in (0.0, 0.1):
            recipe = RecipeConfig(
                epochs=1, lr=1e-3, block_size=T, dropout=dropout, adapter=Adapter.lora,
                lora_rank=RANK, max_steps=steps, isolate_documents=True,
            )  # fmt: skip
            turns = [[seconds(one, words, recipe) for one in (own, grouped)] for _ in range(3)]
            ours, theirs = np.min(turns, axis=0)
            times = (f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.2f}")
            rows.append((width, dropout, *times))
    print(markdown(["width", "dropout", "our own", "transformers' modules", "ratio"], rows))


if __name__ == "__main__":
    main()
