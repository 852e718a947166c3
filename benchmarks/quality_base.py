"""A small English GPT-2 for `benchmarks/quality.py`: trained once, on accounts it never tests.

Like GPT-2 it learns from one stream of documents, attention running on over their ends. Most of
the stream comes in blocks of 256 ids and the rest in blocks of 1024, which cost more.
"""

import argparse
import gzip
import json
import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from huggingtweets.bases.tiny import EOS
from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import IGNORED, build_training_set
from huggingtweets.data.corpus import epoch_documents
from huggingtweets.data.duplicates import group_near_duplicates
from huggingtweets.data.tokens import encode_documents
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.records import Post, Timeline
from huggingtweets.runtime.device import has_bf16
from huggingtweets.storage.paths import cache_dir
from huggingtweets.training.launch import Batch
from huggingtweets.training.modules.loss import SummedLoss
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.parallel.step import (
    ParallelModel,
    dropout_seed,
    train_step,
)
from huggingtweets.training.schedule import lr_at

logger = logging.getLogger("quality_base")

CHOICE_ACCOUNTS = ("MedvedevRussiaE", "QueenNoor", "RepKevinHern", "USRepLong")
"""On these the defaults of `recipe=tweets` were chosen."""
TEST_ACCOUNTS = (
    "BennieGThompson", "JDMahama", "LisaForCongress", "MichelleSteelCA", "NASA", "RepDonBeyer",
    "RepLucyMcBath", "SteveScalise", "TheOnion", "TomOHalleran", "kaikahele", "realDonaldTrump",
)  # fmt: skip
"""On these the recipes are compared."""
BASE_ACCOUNTS = (
    "CarbajalSalud", "ChuckGrassley", "CoryBooker", "David_Cameron", "GuamCongressman",
    "JoshGottheimer", "MaxineWaters", "MikeforWI", "Number10gov", "Oreo", "PMOIndia", "PaulKagame",
    "RepAdrianSmith", "RepDLesko", "RepEdCase", "RepJasonCrow", "RepKimSchrier", "RepMcKinley",
    "RepRickCrawford", "RepVeasey", "RonnyJacksonTX", "SenGillibrand", "SenShelby",
    "SenSherrodBrown", "SenTinaSmith", "SenToomey", "SenWhitehouse", "SenatorRounds",
    "WarrenDavidson", "noynoyaquino",
)  # fmt: skip
LAYERS, WIDTH, HEADS, VOCAB, POSITIONS = 4, 128, 4, 4096, 1024
POSTS_AN_ACCOUNT = 1000


def unlike(posts: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the posts that say nearly the same as none of the others, in their order."""
    groups = group_near_duplicates([*others, *posts])
    known = set(groups[: len(others)])
    return [
        post for post, group in zip(posts, groups[len(others) :], strict=True) if group not in known
    ]


def read_timeline(shared: Path, account: str) -> Timeline:
    """Read an account of the shared posts, as received."""
    data = gzip.decompress((shared / "tweets" / f"{account}.jsonl.gz").read_bytes()).decode()
    posts = tuple(Post(**json.loads(line)) for line in data.split("\n") if line)
    return Timeline(account.lower(), account, posts)


def quality_base(shared: Path) -> Path:
    """Return the folder of the base, making it first where it is not cached (half an hour)."""
    folder = cache_dir() / "quality-base-1"
    if folder.is_dir():
        return folder
    posts = []
    for account in BASE_ACCOUNTS:
        users, _ = clean_timeline(read_timeline(shared, account), CleaningConfig())
        posts += [post.text for post in users.posts[:POSTS_AN_ACCOUNT]]
    random.Random(0).shuffle(posts)
    tokenizer = _train_tokenizer(posts)
    eos_id = tokenizer.eos_token_id
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS,
        n_head=HEADS, bos_token_id=eos_id, eos_token_id=eos_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    cut = len(posts) // 6
    documents = encode_documents(tokenizer, posts)
    logger.info("base: %d posts, %d tokens", len(posts), sum(map(len, documents)))
    short = RecipeConfig(epochs=2, lr=2e-3, warmup_frac=0.05, block_size=256, global_batch_size=8)
    long = RecipeConfig(epochs=1, lr=4e-4, warmup_frac=0.1, block_size=1024, global_batch_size=4)
    _train(model, documents[cut:], eos_id, short)
    _train(model, documents[:cut], eos_id, long)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _train(
    model: GPT2LMHeadModel, documents: list[list[int]], eos_id: int, recipe: RecipeConfig
) -> None:
    orders = [
        epoch_documents([["x"] * len(documents)], epoch=epoch, seed=0)
        for epoch in range(recipe.epochs)
    ]
    training_set = build_training_set(
        [documents], orders, block_size=recipe.block_size, eos_id=eos_id, isolate=False
    )
    # A CPU without instructions for bf16 emulates it, many times as slowly.
    accelerator = Accelerator(mixed_precision="bf16" if has_bf16() else "no")
    module = SummedLoss(model, isolate=False)
    optimizer = build_optimizer(module, recipe)
    parallel = ParallelModel(accelerator, *accelerator.prepare(module, optimizer))
    batch = Batch(recipe.global_batch_size, 1, 1, recipe.global_batch_size)
    blocks = DeviceBlocks(training_set.blocks, batch, rank=0, device=accelerator.device)
    parallel.module.train()
    start = time.perf_counter()
    for step in range(blocks.num_groups):
        lr = lr_at(step, recipe=recipe, total_steps=blocks.num_groups)
        group = blocks.group(step)
        num_targets = sum(int((targets != IGNORED).sum()) for _, targets, _ in group)
        seeds = [dropout_seed(0, step, 0, 0)]
        loss_sum, _ = train_step(
            parallel, group, num_targets=num_targets, lr=lr, max_grad_norm=1.0, seeds=seeds
        )
        if step % 25 == 0:
            loss = float(loss_sum) / num_targets
            elapsed = time.perf_counter() - start
            logger.info("step=%d/%d loss=%.3f s=%.0f", step, blocks.num_groups, loss, elapsed)
    accelerator.free_memory()


def _train_tokenizer(posts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(posts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS, unk_token=EOS,
        model_max_length=POSITIONS,
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    print(quality_base(parser.parse_args().shared))
