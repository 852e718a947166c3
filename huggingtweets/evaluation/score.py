"""What a model makes of each of many posts: likelihood, and whether it has memorised them."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from huggingtweets.data.tokens import Codec
from huggingtweets.training.records import PostScore

IGNORED = -100
BATCH_TOKENS = 4096
"""Tokens a forward pass, padding included: 0.8 GB of GPT-2's logits."""


def score_posts(
    model: PreTrainedModel,
    codec: Codec,
    posts: Sequence[str],
    *,
    max_positions: int,
) -> list[PostScore]:
    """Score each post alone, in evaluation mode, in batches of posts of like length.

    Args:
        model: any causal LM, on any device.
        codec: of the model.
        posts: cleaned texts.
        max_positions: of the model; a longer post is cut into pieces, each scored alone.
    """
    documents = [[codec.bos_id, *ids, codec.eos_id] for ids in codec.encode(posts)]
    pieces = [
        (index, ids[start : start + max_positions + 1])
        for index, ids in enumerate(documents)
        for start in range(0, len(ids) - 1, max_positions)
    ]
    found: list[tuple[list[float], list[bool]]] = [([], [])] * len(pieces)
    was_training = model.training
    model.eval()
    for batch in _batches([len(ids) for _, ids in pieces]):
        nats, greedy = _forward(model, [pieces[number][1] for number in batch], codec.eos_id)
        for row, number in enumerate(batch):
            length = len(pieces[number][1]) - 1
            found[number] = (nats[row][:length], greedy[row][:length])
    model.train(was_training)
    of_post: list[tuple[list[float], list[bool]]] = [([], []) for _ in posts]
    for (index, _), (nats_of_piece, greedy_of_piece) in zip(pieces, found, strict=True):
        of_post[index][0].extend(nats_of_piece)
        of_post[index][1].extend(greedy_of_piece)
    return [
        PostScore(
            math.fsum(each), len(each), len(post.encode("utf-8", "replace")), tuple(is_greedy)
        )
        for post, (each, is_greedy) in zip(posts, of_post, strict=True)
    ]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Cut the indices, sorted by length, into batches of at most `BATCH_TOKENS`."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches


@torch.inference_mode()
def _forward(
    model: PreTrainedModel, documents: Sequence[list[int]], eos_id: int
) -> tuple[list[list[float]], list[list[bool]]]:
    """Return nats and greediness of every target, (B, T) with padding on the right."""
    longest = max(map(len, documents)) - 1
    inputs = torch.full((len(documents), longest), eos_id)
    targets = torch.full((len(documents), longest), IGNORED)
    for row, ids in enumerate(documents):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[row, : len(ids) - 1] = torch.tensor(ids[1:])
    inputs, targets = inputs.to(model.device), targets.to(model.device)
    # Causal attention: what comes after the end of a post, padding, changes nothing in it.
    mask = torch.ones_like(inputs)
    logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits.float()
    nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    greedy = logits.argmax(-1) == targets
    return nats.double().tolist(), greedy.tolist()
