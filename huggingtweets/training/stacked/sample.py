"""Sampling from K models at once: K users' prompts decoded together, with a key/value cache.

A user's samples depend on the user's weights, prompts and seed alone, not on who is decoded beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.kernels.rows import num_draws
from huggingtweets.models.stack import Stack
from huggingtweets.ops.dropout import site_keys
from huggingtweets.runtime.device import is_cpu, is_cuda
from huggingtweets.runtime.graphs import Replay
from huggingtweets.training.stacked.decode import build_cache, decode_step, draw_tokens

LOOK_EVERY = 8
"""Steps on a GPU between two looks at which sequences have ended: each look waits for it."""
_ENDLESS = 1 << 40
"""Characters of a text that may go on for ever."""


@dataclass(frozen=True)
class TextEnds:
    """Where a post ends beside its EOS, told by its tokens."""

    chars: Tensor
    """(V,) int64: at least this many characters does a token add to the text."""
    is_break: Tensor
    """(V,) booleans: tokens with a line break, after which nothing is read."""
    limits: Sequence[Sequence[int]]
    """User -> sequence -> characters of new text after which it need not go on."""


@dataclass
class _Batch:
    """S sequences of each of K users on the device; those that have ended are dropped.

    Changed in place only, but by `keep`, so that a step can be a CUDA graph.
    """

    step: Tensor
    """(1,) int64: position of the next input."""
    tokens: Tensor
    """(K, S) the next input of each."""
    prompts: Tensor
    """(K, S, longest)."""
    lengths: Tensor
    """(K, S) of the prompts."""
    places: Tensor
    """(K, S) which sequence of the user this is."""
    is_done: Tensor
    chars: Tensor
    """(K, S) of new text that are still to come."""
    uniforms: Tensor
    """(K, S, positions, draws)."""
    temperatures: Tensor
    top_ps: Tensor
    """(K, S) fp32."""

    def keep(self, chosen: Tensor) -> None:
        """Keep only the chosen (K, n) sequences."""
        users = torch.arange(len(chosen), device=chosen.device).unsqueeze(1)
        for name, value in vars(self).items():
            if name != "step":
                setattr(self, name, value[users, chosen])


@torch.no_grad()
def sample_stacked(
    stack: Stack,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    config: SamplingConfig,
    eos_id: int,
    seeds: Sequence[int],
    ends: TextEnds | None = None,
    token_limits: Sequence[int] | None = None,
) -> list[list[list[int]]]:
    """Sample one continuation of every prompt by nucleus sampling.

    On a CPU users are decoded one after another: their products are apart anyway, and side by side
    those with few sequences left would be filled up with nothing.

    Args:
        stack: K models with weights of their own.
        prompts: user -> sequence -> ids, begun with BOS; repeat a prompt to sample it again.
        config: temperature, top_p, least and most new tokens.
        eos_id: ends a sequence.
        seeds: one for each user.
        ends: what ends it earlier.
        token_limits: most new tokens of each user; None: the config's.

    Returns:
        User -> sequence -> new ids, without prompt and EOS.
    """
    most = token_limits or [config.token_limit] * len(prompts)
    if ends is None:  # at EOS alone
        nothing = torch.zeros(stack.shape.vocab_size, dtype=torch.int64)
        ends = TextEnds(nothing, nothing.bool(), [[_ENDLESS] * len(own) for own in prompts])
    if not is_cpu(stack.rows.device):
        return _Sampler(stack, prompts, config, eos_id, seeds, ends, most).run()
    found = []
    for user in range(len(prompts)):
        own = slice(user, user + 1)
        model, until = stack.slots(user, user + 1), replace(ends, limits=ends.limits[own])
        found += _Sampler(model, prompts[own], config, eos_id, seeds[own], until, most[own]).run()
    return found


class _Sampler:
    """Decodes side by side; see `sample_stacked`."""

    def __init__(
        self,
        stack: Stack,
        prompts: Sequence[Sequence[Sequence[int]]],
        config: SamplingConfig,
        eos_id: int,
        seeds: Sequence[int],
        ends: TextEnds,
        most: Sequence[int],
    ) -> None:
        device = stack.rows.device
        lengths = [len(prompt) for own in prompts for prompt in own]
        self._stack, self._config, self._eos_id = stack, config, eos_id
        self._prompts = prompts
        self._longest, self._shortest = max(lengths, default=1), min(lengths, default=1)
        self._num_positions = min(self._longest + max(most), stack.shape.num_positions)
        room = [self._num_positions - max(map(len, own), default=1) for own in prompts]
        # A matter of one's own prompts, not of those decoded beside.
        limits = [min(pair) for pair in zip(most, room, strict=True)]
        self._most = torch.tensor(limits, device=device).unsqueeze(1)
        num = max(1, *map(len, prompts))
        self._batch = self._start(num, seeds, ends)
        self._cache = build_cache(stack, num, self._num_positions)
        self._new = torch.full((len(prompts), num, self._num_positions + 1), eos_id, device=device)
        self._chars_of, self._is_break = ends.chars.to(device), ends.is_break.to(device)
        self._users = torch.arange(len(prompts), device=device).unsqueeze(1)

    def run(self) -> list[list[list[int]]]:
        """Decode until all have ended."""
        device = self._stack.rows.device
        replay = Replay(enabled=is_cuda(device))
        look_every = LOOK_EVERY if is_cuda(device) else 1
        for step in range(self._num_positions - 1):
            draws = step + 1 >= self._shortest
            key = (self._batch.tokens.shape, draws)
            replay.run(key, partial(self._advance, draws=draws))
            if draws and step % look_every == 0 and not self._drop_ended():
                break
        new = self._new[:, :, : self._num_positions].tolist()  # sync: the samples
        return [
            [_cut(row[len(p) :], self._eos_id) for row, p in zip(rows, own, strict=False)]
            for rows, own in zip(new, self._prompts, strict=True)
        ]

    def _drop_ended(self) -> bool:
        """Drop what has ended, where that makes the batch smaller; return whether any is left."""
        is_done = self._batch.is_done
        left = int((~is_done).sum(1).max())  # sync: what is left to come
        size = is_done.shape[1]
        # A smaller batch is another graph on CUDA; on a CPU it costs nothing.
        if left and left < size and (is_cpu(is_done.device) or left <= size // 2):
            chosen = is_done.long().argsort(dim=1, stable=True)[:, :left]
            self._batch.keep(chosen)
            self._cache.keep(chosen)
        return left > 0

    def _start(self, num: int, seeds: Sequence[int], ends: TextEnds) -> _Batch:
        """Return the batch before its first step."""
        prompts, config, device = self._prompts, self._config, self._stack.rows.device
        size = (len(prompts), num)
        ids = torch.full((*size, self._longest), self._eos_id)
        lengths, is_done = torch.ones(size, dtype=torch.int64), torch.ones(size, dtype=torch.bool)
        chars = torch.full(size, _ENDLESS)
        for user, own in enumerate(prompts):
            is_done[user, : len(own)] = False
            chars[user, : len(own)] = torch.tensor(ends.limits[user])
            for place, prompt in enumerate(own):
                ids[user, place, : len(prompt)] = torch.tensor(prompt)
                lengths[user, place] = len(prompt)
        uniforms = draw_uniforms(
            np.array(seeds, dtype=np.int64),
            num,
            positions=self._num_positions,
            draws=num_draws(config.top_p),
        )
        return _Batch(
            step=torch.zeros(1, dtype=torch.int64, device=device),
            tokens=ids[:, :, 0].to(device),
            prompts=ids.to(device),
            lengths=lengths.to(device),
            places=torch.arange(num, device=device).expand(size).contiguous(),
            is_done=is_done.to(device),
            chars=chars.to(device),
            uniforms=uniforms.to(device),
            temperatures=torch.full(size, config.temperature, device=device),
            top_ps=torch.full(size, config.top_p, device=device),
        )

    def _advance(self, *, draws: bool) -> None:
        """Take one decoding step: the same kernels every time, and no look at a value."""
        batch, config, eos_id = self._batch, self._config, self._eos_id
        positions = torch.where(batch.is_done, -1, batch.step)
        logits = decode_step(self._stack, self._cache, batch.tokens, positions, with_logits=draws)
        following = batch.step + 1
        count = following - batch.lengths  # new tokens before the one to come
        is_forced = count < 0
        tokens = batch.prompts.index_select(2, following.clamp(max=self._longest - 1)).squeeze(2)
        if logits is not None:
            drawn = draw_tokens(
                self._cache,
                logits,
                temperatures=batch.temperatures,
                top_ps=batch.top_ps,
                banned=torch.where(count < config.min_new_tokens, eos_id, -1),
                uniforms=batch.uniforms.index_select(2, batch.step).squeeze(2),
            )
            tokens = torch.where(is_forced, tokens, drawn)
            batch.chars.sub_(self._chars_of[tokens].masked_fill_(is_forced, 0))
            is_last = (tokens == eos_id) | self._is_break[tokens] | (batch.chars <= 0)
            tokens = torch.where(batch.is_done, eos_id, tokens)
            batch.is_done |= ~is_forced & is_last | (count + 1 >= self._most)
        self._new.index_put_((self._users, batch.places, following), tokens)
        batch.tokens.copy_(tokens)
        batch.step.add_(1)


def draw_uniforms(
    seeds: npt.NDArray[np.int64], num_rows: int, *, positions: int, draws: int
) -> Tensor:
    """Return the random numbers of each user's rows, (K, S, positions, draws) fp64, 0 to below 1.

    A function of seed, row, position and draw alone, whatever is decoded beside it.
    """
    size = (len(seeds), num_rows, positions)
    user, row, position = (grid.ravel() for grid in np.indices(size))
    keys = site_keys(seeds[user], position, row, draws)
    bits = keys.view(torch.int64).squeeze(-1)  # sites first
    uniforms = (bits >> 11 & (1 << 53) - 1).double() / 2**53
    return uniforms.T.reshape(*size, draws).contiguous()


def _cut(ids: list[int], eos_id: int) -> list[int]:
    """Return what comes before the first EOS."""
    return ids[: ids.index(eos_id)] if eos_id in ids else ids
