"""Sampling from K models at once: K users' prompts decoded together, with a key/value cache.

A user's samples depend on his weights, prompts and seed alone, not on who is decoded beside him.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.config.schema import SamplingConfig
from huggingtweets.ops.dropout import site_keys
from huggingtweets.ops.linear import project
from huggingtweets.ops.reference import PYTORCH
from huggingtweets.training.array.models import Stack

_MAX_DRAWS = 200
"""After so many refused draws in a row, which no usual top_p ever needs, the likeliest token."""


@dataclass
class _State:
    """S sequences of each of K users; those that have ended are dropped now and then."""

    tokens: Tensor
    """(K, S) the next input of each."""
    prompts: Tensor
    """(K, S, longest)."""
    lengths: Tensor
    """(K, S) of the prompts."""
    places: Tensor
    """(K, S) which sequence of the user this is."""
    is_done: Tensor
    cache: Tensor
    """(layers, 2, K, S, heads, positions, head width): keys and values."""

    def keep(self, chosen: Tensor) -> None:
        """Keep only the chosen (K, n) sequences."""
        slots = torch.arange(len(chosen), device=chosen.device).unsqueeze(1)
        for name in ("tokens", "prompts", "lengths", "places", "is_done"):
            setattr(self, name, getattr(self, name)[slots, chosen])
        self.cache = self.cache[:, :, slots, chosen]


@torch.no_grad()
def sample_array(
    stack: Stack,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    config: SamplingConfig,
    eos_id: int,
    seeds: Sequence[int],
) -> list[list[list[int]]]:
    """Sample one continuation of every prompt by nucleus sampling.

    Args:
        stack: K models with weights of their own.
        prompts: user -> sequence -> ids, with EOS in front; repeat a prompt to sample it again.
        config: temperature, top_p, least and most new tokens.
        eos_id: ends a sequence.
        seeds: one a user.

    Returns:
        User -> sequence -> new ids, without prompt and EOS.
    """
    state = _start(stack, prompts, config, eos_id)
    num_users, num_sequences, longest = state.prompts.shape
    num_new = state.cache.shape[5] - longest
    new = np.full((num_users, num_sequences, longest + num_new), eos_id, dtype=np.int64)
    seed_array = np.array(seeds, dtype=np.int64)
    for position in range(longest + num_new - 1):
        logits = _next_logits(stack, state, position) / config.temperature
        count = position + 1 - state.lengths  # new tokens so far
        logits[..., eos_id].masked_fill_(count < config.min_new_tokens, -torch.inf)
        drawn = _draw(logits, config.top_p, seed_array, position, state.places.cpu().numpy())
        state.is_done |= (count >= 0) & (drawn == eos_id) | (count >= num_new)
        if position + 1 < longest:
            forced = state.prompts[:, :, position + 1]
            drawn = torch.where(count < 0, forced, drawn)
        state.tokens = torch.where(state.is_done, eos_id, drawn)
        rows = np.arange(num_users)[:, None]
        # sync: the tokens of this step, and whether any is left to come
        new[rows, state.places.cpu().numpy(), position + 1] = state.tokens.cpu().numpy()
        most_left = int((~state.is_done).sum(1).max())
        if most_left == 0:
            break
        if most_left <= state.is_done.shape[1] // 2:
            state.keep(state.is_done.long().argsort(dim=1, stable=True)[:, :most_left])
    return [
        [_cut(row[len(p) :], eos_id) for row, p in zip(rows, own, strict=False)]
        for rows, own in zip(new.tolist(), prompts, strict=True)
    ]


def _start(
    stack: Stack, prompts: Sequence[Sequence[Sequence[int]]], config: SamplingConfig, eos_id: int
) -> _State:
    shape, device = stack.shape, stack.rows.device
    num = max(map(len, prompts))
    longest = max(len(prompt) for own in prompts for prompt in own)
    positions = min(longest + config.token_limit, shape.num_positions)
    ids = torch.full((len(prompts), num, longest), eos_id)
    lengths = torch.ones(len(prompts), num, dtype=torch.int64)
    is_done = torch.ones(len(prompts), num, dtype=torch.bool)
    for user, own in enumerate(prompts):
        is_done[user, : len(own)] = False
        for place, prompt in enumerate(own):
            ids[user, place, : len(prompt)] = torch.tensor(prompt)
            lengths[user, place] = len(prompt)
    head_width = shape.width // shape.num_heads
    return _State(
        tokens=ids[:, :, 0].to(device),
        prompts=ids.to(device),
        lengths=lengths.to(device),
        places=torch.arange(num, device=device).expand(len(prompts), num).contiguous(),
        is_done=is_done.to(device),
        cache=torch.zeros(
            (shape.num_layers, 2, len(prompts), num, shape.num_heads, positions, head_width),
            dtype=stack.compute.wte.dtype,
            device=device,
        ),
    )


def _next_logits(stack: Stack, state: _State, position: int) -> Tensor:
    """Feed one token of each sequence and return fp32 logits (K, S, V)."""
    shape, master, dtype = stack.shape, stack.master, stack.compute.wte.dtype
    K, S = state.tokens.shape

    def norm(weight: Tensor, bias: Tensor) -> Tensor:
        return PYTORCH.norm(x, weight, bias, eps=shape.norm_eps, dtype=dtype)[0]

    first = torch.arange(K, device=state.tokens.device) * (len(stack.table) // K)
    x = F.embedding(state.tokens + first.unsqueeze(1), stack.table)
    x += master.wpe[:, position].unsqueeze(1)
    for index, exact in enumerate(master.layers):
        normed = norm(exact.norm_1_weight, exact.norm_1_bias)
        qkv = project(normed, stack.linear(index, "qkv"))
        heads = qkv.view(K, S, 3, shape.num_heads, -1)
        state.cache[index, :, :, :, :, position] = heads[:, :, 1:].permute(2, 0, 1, 3, 4)
        keys, values = state.cache[index].flatten(1, 3)[:, :, : position + 1].unbind(0)
        queries = heads[:, :, 0].reshape(len(keys), 1, -1) * shape.score_scales[index]
        weights = torch.softmax(torch.bmm(queries, keys.transpose(1, 2)), -1)
        mixed = torch.bmm(weights, values).view(K, S, -1)
        x += project(mixed, stack.linear(index, "attention"))
        normed = norm(exact.norm_2_weight, exact.norm_2_bias)
        inner = project(normed, stack.linear(index, "inner"))
        activated, _ = PYTORCH.gelu(inner, use_fused=False)
        x += project(activated, stack.linear(index, "outer"))
    normed = norm(master.norm_f_weight, master.norm_f_bias)
    logits = torch.bmm(normed, stack.compute.wte.transpose(1, 2)).float()
    return logits[..., : shape.vocab_size]


def _draw(
    logits: Tensor,
    top_p: float,
    seeds: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    position: int,
    places: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> Tensor:
    """Draw a token (K, S) from the nucleus, the likeliest tokens that make up `top_p`.

    Draws from all tokens, and again where the token turns out to lie outside: what likelier
    tokens make up must be less than top_p. No sorting of a large vocabulary.
    """
    probabilities = torch.softmax(logits, -1)
    steps = probabilities.cumsum(-1)
    token = probabilities.argmax(-1, keepdim=True)
    is_open = torch.ones_like(token, dtype=torch.bool)
    owners = np.repeat(seeds, places.shape[1])
    for number in range(_MAX_DRAWS):
        keys = site_keys(owners, np.full(owners.size, position), places.ravel(), number + 1)[-1]
        uniform = (keys[:, 0].long() + 2**31).double() / 2**32
        mark = uniform.view(*places.shape, 1).to(logits.device) * steps[..., -1:]
        drawn = torch.searchsorted(steps, mark.float()).clamp_(max=logits.shape[-1] - 1)
        likelier = probabilities > probabilities.gather(-1, drawn)
        above = (probabilities * likelier).sum(-1, keepdim=True)
        token = torch.where(is_open & (above < top_p), drawn, token)
        is_open &= above >= top_p
        if not is_open.any():  # sync: mostly after the first draws
            break
    return token.squeeze(-1)


def _cut(ids: list[int], eos_id: int) -> list[int]:
    """Return what comes before the first EOS."""
    return ids[: ids.index(eos_id)] if eos_id in ids else ids
