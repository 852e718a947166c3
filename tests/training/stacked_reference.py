"""Small jobs, and a plain training loop to hold the fused engine against.

The loop is as plain as can be: transformers' GPT2LMHeadModel and torch.optim.AdamW, one job.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.config.schema import Keep, RecipeConfig, Schedule
from huggingtweets.data.blocks import IGNORED, build_training_set, pack_posts
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.training.modules.attention import document_mask
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.schedule import lr_at

torch.set_num_threads(1)  # on a busy machine threads wait for each other longer than they compute

VOCAB, EOS, T = 320, 0, 32
CPU = torch.device("cpu")
LLAMA = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": EOS, "eos_token_id": EOS,
}  # fmt: skip
"""A small model of Llama's kind."""


def build_base() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return GPT2LMHeadModel(config).eval()


BASE = build_base()
LAYOUT = layout_of(shape_of(BASE.config))
ROW = LAYOUT.pack(BASE.state_dict())

PLAIN = RecipeConfig(epochs=2, lr=1e-3, block_size=T, dropout=0.0)
RECIPES = {
    "joined": PLAIN,
    "isolated": replace(PLAIN, isolate_documents=True, global_batch_size=2, warmup_frac=0.2),
    "long": replace(PLAIN, epochs=3, schedule=Schedule.linear, weight_decay=0.1),
    "large-batch": replace(PLAIN, global_batch_size=5, lr=2e-3, max_grad_norm=0.0),
    "short-blocks": replace(PLAIN, block_size=16, schedule=Schedule.constant, beta1=0.8),
    "best": replace(PLAIN, epochs=3, isolate_documents=True, keep=Keep.best, lr=6e-3),
    "stopped": replace(PLAIN, max_steps=2, max_grad_norm=0.1),
}


def build_job(slug: str, recipe: RecipeConfig, *, posts: int, seed: int) -> TrainingJob:
    rng = np.random.default_rng(seed)
    documents = [rng.integers(1, VOCAB, rng.integers(2, 25)).tolist() for _ in range(posts)]
    orders = [[(0, int(index)) for index in rng.permutation(posts)] for _ in range(recipe.epochs)]
    training_set = build_training_set(
        [documents],
        orders,
        block_size=recipe.block_size,
        eos_id=EOS,
        isolate=recipe.isolate_documents,
    )
    others = [rng.integers(1, VOCAB, rng.integers(2, 20)).tolist() for _ in range(3 + seed % 4)]
    blocks, pieces = pack_posts(others, block_size=recipe.block_size, eos_id=EOS)
    heldout = HeldoutSet(blocks, 1000, pieces, (9,) * len(others))
    return TrainingJob(slug, training_set, heldout, recipe, seed)


def build_jobs() -> list[TrainingJob]:
    jobs = [
        build_job(slug, recipe, posts=9 + 4 * index, seed=index)
        for index, (slug, recipe) in enumerate(RECIPES.items())
    ]
    return [*jobs, replace(build_job("unscored", PLAIN, posts=30, seed=11), heldout=None)]


@dataclass(frozen=True)
class Plain:
    """What the plain loop makes of a job."""

    weights: dict[str, Tensor]
    losses: list[float]
    """Of every step, per target."""
    norms: list[float]
    heldout: list[float]
    """Nats, of the base and after each epoch."""


def summed_loss(model: torch.nn.Module, arrays: Sequence[Tensor], *, isolate: bool) -> Tensor:
    """Cross-entropy over the targets of blocks: ids, targets and positions, (B, T) each."""
    ids, targets, positions = arrays
    scores = model(
        input_ids=ids,
        attention_mask=document_mask(positions) if isolate else None,
        position_ids=positions if isolate else None,
        use_cache=False,
    ).logits
    return F.cross_entropy(
        scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def train_plainly(job: TrainingJob, build: Callable[[], torch.nn.Module] = build_base) -> Plain:
    model = build()
    recipe, blocks = job.recipe, job.training_set.blocks
    size = recipe.global_batch_size
    total = -(-len(blocks) // size)
    total = min(total, recipe.max_steps or total)
    ends = [-(-int(n) // size) for n in np.cumsum(job.training_set.blocks_per_epoch)]
    groups = [
        {
            "params": [p for p in model.parameters() if p.ndim >= 2],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (recipe.beta1, recipe.beta2)
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, eps=recipe.adam_eps)

    def evaluate() -> float:
        if job.heldout is None:
            return math.nan
        with torch.no_grad():
            return float(summed_loss(model, tensors(job.heldout.blocks), isolate=True))

    losses, norms, heldout, best, kept = [], [], [evaluate()], math.inf, None
    for step in range(total):
        chosen = slice(step * size, (step + 1) * size)
        arrays = [part[chosen] for part in tensors(blocks)]
        count = int((arrays[1] != IGNORED).sum())
        loss = summed_loss(model, arrays, isolate=recipe.isolate_documents) / count
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe=recipe, total_steps=total)
        optimizer.step()
        losses.append(loss.item() * count)
        norms.append(float(norm))
        if step + 1 in ends or step + 1 == total:
            heldout.append(evaluate())
            if heldout[-1] < best:
                best, kept = heldout[-1], {n: t.clone() for n, t in model.state_dict().items()}
    is_best = recipe.keep is Keep.best and kept is not None
    return Plain(kept if is_best and kept else model.state_dict(), losses, norms, heldout)


def tensors(blocks: object) -> list[Tensor]:
    names = ("input_ids", "targets", "position_ids")
    return [torch.from_numpy(getattr(blocks, name)).long() for name in names]
