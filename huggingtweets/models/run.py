"""Losses, gradients and logits of K models: a family's forward pass from end to end."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from huggingtweets.kernels.rows import RowOps, num_scored
from huggingtweets.models.families import FAMILIES
from huggingtweets.models.forward import MicroBatch, Pass, begin
from huggingtweets.models.stack import Stack
from huggingtweets.ops.head import Head, normed_loss
from huggingtweets.ops.linear import product
from huggingtweets.ops.reference import Ops
from huggingtweets.ops.residual import Stream
from huggingtweets.runtime.device import is_cpu


def hidden_states(run: Pass) -> Tensor:
    """Return what the output embedding reads (K, R, C)."""
    return run.norm(stream(run).settled(run.batch.ops), "norm_f")


def stream(run: Pass, *, recompute: bool = False) -> Stream:
    """Return the residual stream after the last layer.

    With `recompute` the backward pass keeps only the input of each layer and computes the rest
    again. Reentrant: what a layer's operators keep hangs on a graph that is not made before.
    """
    family = FAMILIES[run.stack.shape.family]
    x = Stream(family.embed(run))
    for index in range(run.stack.shape.num_layers):
        step = partial(family.layer, run, index)
        if recompute:
            args = run.batch.ops, step, x.x
            kept = checkpoint(_on_copy, *args, use_reentrant=True, preserve_rng_state=False)
            x = Stream(kept)
        else:
            x = step(x)
    return x


def _on_copy(ops: Ops, step: Callable[[Stream], Stream], x: Tensor) -> Tensor:
    # A layer adds to its input in place, and that is kept.
    return step(Stream(x.clone())).settled(ops)


def loss_and_gradients(
    stack: Stack,
    grads: Stack,
    batch: MicroBatch,
    weight: Tensor,
    *,
    accumulate: bool,
    recompute: bool = False,
) -> Tensor:
    """Run one micro-batch forward and backward.

    Args:
        stack: the models.
        grads: another stack, fp32; receives the gradients of each slot's summed loss times its
            weight.
        batch: what to learn.
        weight: (K,) fp32; one over the targets of the slot's optimizer step.
        accumulate: add to what is in `grads` instead of replacing it.
        recompute: keep only the input of each layer for the backward pass, and compute the rest
            again.

    Returns:
        (K,) summed losses in nats, fp32.
    """
    grad_table = None if grads.adapters is not None else grads.head
    with torch.enable_grad():
        run = begin(stack, batch, grads, accumulate=accumulate)
        loss = normed_loss(
            stream(run, recompute=recompute),
            run.norm_named("norm_f"),
            Head(stack.head, stack.shape.vocab_size, grad_table, accumulate),
            batch.targets.flatten(1),
            weight,
            batch.ops,
        )
        # A scalar: given a gradient of more, PyTorch 2.13 imports sympy, half a second.
        loss.sum().backward()  # type: ignore[no-untyped-call]
    return loss.detach()


@torch.no_grad()
def target_scores(stack: Stack, batch: MicroBatch, rows: RowOps) -> tuple[Tensor, Tensor]:
    """Return the nats (K, B, T) fp32 of every target, and whether each is the likeliest token.

    Without gradients, and never with all logits at once. 0 and false where there is no target;
    of a lone model on a CPU the output embedding is not computed there.
    """
    hidden = hidden_states(begin(stack, batch))
    targets = batch.targets.flatten(1)
    counts = targets >= 0
    nats, hits = torch.zeros_like(targets, dtype=torch.float32), torch.zeros_like(counts)
    chosen = slice(None)
    # The choice has a length of its own: with K models it would differ, and on CUDA be read back.
    if len(hidden) == 1 and is_cpu(hidden.device):
        chosen = counts[0].nonzero().squeeze(1)  # type: ignore[assignment]
    found = score_rows(stack, hidden[:, chosen], targets[:, chosen].clamp(min=0), rows)
    nats[:, chosen], hits[:, chosen] = found
    nats = torch.where(counts, nats, 0.0)
    return nats.view_as(batch.targets), (hits & counts).view_as(batch.targets)


@torch.no_grad()
def score_rows(
    stack: Stack, hidden: Tensor, targets: Tensor, rows: RowOps
) -> tuple[Tensor, Tensor]:
    """Return the nats (K, R) fp32 of targets (K, R), and whether each is the likeliest token.

    `hidden` (K, R, C) is what the output embedding reads; never all logits are held at once.
    """
    nats = torch.empty_like(targets, dtype=torch.float32)
    hits = torch.empty_like(targets, dtype=torch.bool)
    table = stack.head.transpose(1, 2)
    size = num_scored(hidden.device, len(hidden) * table.shape[2])
    for start in range(0, hidden.shape[1], size):
        part = slice(start, start + size)
        logits = product(hidden[:, part], table)[..., : stack.shape.vocab_size]
        one, other = rows.score(logits.flatten(0, 1), targets[:, part].flatten())
        nats[:, part], hits[:, part] = one.view(len(hidden), -1), other.view(len(hidden), -1)
    return nats, hits


@torch.no_grad()
def logits(stack: Stack, batch: MicroBatch) -> Tensor:
    """Return all logits, (K, B, T, vocabulary) in the compute precision."""
    scores = product(hidden_states(begin(stack, batch)), stack.head.transpose(1, 2))
    return scores.view(*batch.input_ids.shape, -1)[..., : stack.shape.vocab_size]
