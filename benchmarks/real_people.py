"""LoRA of a real base for several people: stacked in one process against a process each.

    make real-base && python benchmarks/real_people.py --posts-from ../shared/tweets

Trains the first accounts both ways, by the same commands that a user would type, and compares
losses and time. Then trains all accounts stacked, and scores each one's held-out posts with each
one's adapters: everybody should be better than the base, and better on their own posts than others
are. Needs `pip install 'huggingtweets[gguf,lora]'`. Prints Markdown.
"""

import argparse
import gzip
import json
import tempfile
from itertools import islice, permutations
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, build_parser, markdown, run_python
from safetensors.torch import load_file

from huggingtweets.bases.model import find_base, load_model
from huggingtweets.config.schema import Adapter, ModelConfig, RecipeConfig
from huggingtweets.data.blocks import pack_posts
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.models.adapter_rows import build_adapter_stack
from huggingtweets.training.stacked.grouped import GroupedBase, GroupedTuning

ACCOUNTS = (
    "NASA", "TheOnion", "realDonaldTrump", "Oreo", "SenWhitehouse", "ChuckGrassley", "PaulKagame",
    "David_Cameron",
)  # fmt: skip
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
CPU = torch.device("cpu")


def write_posts(source: Path, folder: Path, num: int) -> None:
    """Write the first posts of each account, one file per person."""
    folder.mkdir(parents=True)
    for name in ACCOUNTS:
        with gzip.open(source / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            text = "".join(islice(lines, num))
        (folder / f"{name.lower()}.jsonl").write_text(text, encoding="utf-8")


def train(folder: Path, user: str, output: str, args: argparse.Namespace, steps: int) -> float:
    """Run train.py as a user would; return its seconds."""
    words = [
        str(ROOT / "train.py"), f"user={user}", "source=jsonl",
        f"source.path={folder / 'posts'}", "consent=public-figure-research",
        f"model.path={BASE}", "recipe.adapter=lora", f"recipe.lr={args.lr}", "recipe.dropout=0",
        f"recipe.block_size={args.block_size}", "recipe.global_batch_size=1", "recipe.epochs=1",
        f"recipe.max_steps={steps}", "engine.precision=fp32", "engine.micro_batch_size=1",
        "sampling.num=0", "tracking=none", "publish.lora=adapter", f"output_dir={folder / output}",
    ]  # fmt: skip
    return run_python(words, cwd=folder).wall_s


def losses(folder: Path) -> tuple[float, float]:
    """Return the bits per byte of held-out posts, before and after."""
    found = json.loads((folder / "result.json").read_text())["eval"]
    return found["base_bits_per_byte"], found["bits_per_byte"]


def compare_ways(folder: Path, args: argparse.Namespace) -> None:
    """Train some accounts in one process, and in one process each, one after another."""
    chosen = [name.lower() for name in ACCOUNTS[: args.compared]]
    (folder / "some.txt").write_text("\n".join(chosen))
    together = train(folder, "file:some.txt", "together", args, args.compared_steps)
    alone = [train(folder, name, "alone", args, args.compared_steps) for name in chosen]
    rows = []
    for name in chosen:
        base, one = losses(folder / "alone" / name)
        _, other = losses(folder / "together" / name)
        rows.append([name, f"{base:.4f}", f"{one:.4f}", f"{other:.4f}"])
    print(markdown(["account", "base", "one process each", "stacked"], rows))
    ratio = sum(alone) / together
    print(
        f"\nOne process each {sum(alone):.0f} s, stacked {together:.0f} s: {ratio:.2f} times as "
        "fast.\n",
        flush=True,
    )


def heldout_of(folder: Path, base_codec: object, eos_id: int) -> HeldoutSet:
    """Return the held-out posts of a finished job."""
    with gzip.open(folder / "dataset.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = [row["text"] for row in rows if row["side"] == "heldout"]
    ids = base_codec.encode(texts)  # type: ignore[attr-defined]
    blocks, pieces = pack_posts(ids, block_size=256, eos_id=eos_id)
    sizes = tuple(map(_bytes, texts))
    return HeldoutSet(blocks, sum(sizes), pieces, sizes)


def _bytes(text: str) -> int:
    return len(text.encode())


def compare_people(folder: Path, args: argparse.Namespace) -> None:
    """Train all accounts stacked, and score everybody's posts with everybody's adapters."""
    names = [name.lower() for name in ACCOUNTS]
    (folder / "all.txt").write_text("\n".join(names))
    seconds = train(folder, "file:all.txt", "all", args, args.steps)
    base = find_base(ModelConfig(path=BASE))
    recipe = RecipeConfig(adapter=Adapter.lora)
    tuning = GroupedTuning(
        load_model(base, recipe), recipe.lora_rank, CPU, bos_id=base.codec.bos_id, block_size=256
    )
    grouped = GroupedBase(tuning, CPU, torch.float32)
    adapters = torch.stack([
        tuning.layout.row_of(load_file(folder / "all" / name / "model/adapter_model.safetensors"))
        for name in names
    ])  # fmt: skip
    stack = build_adapter_stack(tuning.layout, adapters, torch.float32)
    stack.scale.fill_(recipe.lora_alpha / recipe.lora_rank)
    figures = np.zeros((len(names), len(names) + 1))
    for row, name in enumerate(names):
        posts = heldout_of(folder / "all" / name, base.codec, base.eos_id)
        for column in range(len(names) + 1):
            with grouped.grouped.computing(
                stack.slots(column, column + 1) if column < len(names) else None
            ):
                figures[row, column] = grouped.score(posts).loss.bits_per_byte
    rows = []
    for row, name in enumerate(names):
        others = np.delete(figures[row, :-1], row)
        cells = (figures[row, -1], figures[row, row], others.min())
        rows.append([name, *(f"{value:.3f}" for value in cells)])
    head = ["held-out posts of", "base", "own adapter", "best of the others"]
    print(markdown(head, rows))
    own = figures.diagonal()
    better = int((own < figures[:, -1]).sum())
    pairs = [
        figures[one, one] < figures[one, other] for one, other in permutations(range(len(names)), 2)
    ]
    print(
        f"\nBetter than the base: {better} of {len(names)}. Own adapter better than another's: "
        f"{sum(pairs)} of {len(pairs)} pairs. Training, all of it: {seconds:.0f} s."
    )


def main() -> None:
    """Run both parts, or one."""
    parser = build_parser(__doc__)
    parser.add_argument("--posts-from", type=Path, required=True, help="folder of NAME.jsonl.gz")
    parser.add_argument("--posts", type=int, default=120, help="of each account")
    parser.add_argument("--block-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--compared", type=int, default=4, help="accounts trained both ways; 0: none"
    )
    parser.add_argument("--compared-steps", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16, help="of each of the eight; 0: none")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_posts(args.posts_from.resolve(), folder / "posts", args.posts)
        if args.compared:
            compare_ways(folder, args)
        if args.steps:
            compare_people(folder, args)


if __name__ == "__main__":
    main()
