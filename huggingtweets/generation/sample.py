"""Posts sampled from a trained model."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.data.tokens import Codec
from huggingtweets.generation.guards import MAX_ROUNDS, Guards, Refusal, shorten
from huggingtweets.generation.samples import Prediction, Samples
from huggingtweets.generation.token_texts import chars_left, text_ends
from huggingtweets.models.families import stack_of
from huggingtweets.models.stack import Stack
from huggingtweets.training.stacked.sample import TextEnds, sample_stacked


@dataclass(frozen=True)
class Drawn:
    """One post as it came out of a model."""

    text: str
    """Whole, prompt included."""
    score: float = 0.0
    """How likely the model held it, where the best of several is kept."""
    is_cut: bool = False
    """Whether it would have gone on, and was ended as too long."""


Draw: TypeAlias = Callable[[int, Sequence[Sequence[str]]], list[list[Drawn]]]
"""From the number of the round and each user's prompts to as many posts."""

_GLOBAL_RANDOM = threading.Lock()
"""Held while torch's global random state is ours."""


def generation_config(config: SamplingConfig, codec: Codec) -> GenerationConfig:
    """Return what is saved with the model, so that a plain pipeline samples the same way."""
    return GenerationConfig(
        do_sample=True,
        top_p=config.top_p,
        top_k=0,
        temperature=config.temperature,
        min_new_tokens=config.min_new_tokens,
        max_new_tokens=config.token_limit,
        bos_token_id=codec.bos_id,
        eos_token_id=codec.eos_id,
        pad_token_id=codec.pad_id,
    )


def sample_posts(
    model: transformers.PreTrainedModel,
    codec: Codec,
    config: SamplingConfig,
    guards: Guards,
    *,
    max_positions: int,
    seed: int,
) -> Samples:
    """Sample `config.num` posts per prompt, all in one batch, from BOS + prompt.

    A post that is too long is cut at a word. What the guards refuse is drawn again, `MAX_ROUNDS`
    times at most; then it is left out. A GPT-2 is sampled as by `sample_stack`.

    Args:
        model: on any device.
        codec: of the model.
        config: prompts, number and sampling parameters.
        guards: what may not come out.
        max_positions: of the model; longer posts are cut there.
        seed: of the sampling alone; the global random state is left as it was.
    """
    if config.best_of == 1 and (stack := stack_of(model, torch.float32)):
        [samples] = sample_stack(stack, codec, [config], [guards], seeds=[seed])
        return samples

    def draw(_: int, prompts: Sequence[Sequence[str]]) -> list[list[Drawn]]:
        return [_draw(model, codec, config, own, max_positions) for own in prompts]

    with _GLOBAL_RANDOM, torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        [samples] = _collect(draw, [config], [guards])
        return samples


def sample_stack(
    stack: Stack,
    codec: Codec,
    configs: Sequence[SamplingConfig],
    guards: Sequence[Guards],
    *,
    seeds: Sequence[int],
) -> list[Samples]:
    """Do what `sample_posts` does for K users at once, with a stack of their GPT-2s.

    `best_of` is not considered. Threads may call this side by side, each with its own codec.

    Args:
        stack: K models.
        codec: of all of them.
        configs: one for each user; they may differ in prompts, number and how long a post may be.
        guards: one for each user.
        seeds: one for each user; a user's samples do not depend on the others.
    """

    def draw(number: int, prompts: Sequence[Sequence[str]]) -> list[list[Drawn]]:
        begun = [codec.begin(own) if own else [] for own in prompts]
        limits = [
            [chars_left(prompt, config.char_limit) for prompt in own]
            for config, own in zip(configs, prompts, strict=True)
        ]
        ends = text_ends(codec, stack.shape.vocab_size, limits)
        drawn = sample_stacked(
            stack,
            begun,
            config=configs[0],
            eos_id=codec.eos_id,
            # Another round is another seed; those of jobs are below 2**31.
            seeds=[seed + (number << 32) for seed in seeds],
            ends=ends,
            token_limits=[config.token_limit for config in configs],
        )
        return [
            _read(codec, own, rows, ids, ends.chars, left)
            for own, rows, ids, left in zip(prompts, begun, drawn, limits, strict=True)
        ]

    return _collect(draw, configs, guards)


def _read(
    codec: Codec,
    prompts: Sequence[str],
    begun: Sequence[list[int]],
    ids: Sequence[list[int]],
    chars: Tensor,
    limits: Sequence[int],
) -> list[Drawn]:
    """Turn new ids into texts, and say which of them the limit ended."""
    if not prompts:
        return []
    texts = codec.whole_texts(prompts, begun, ids)
    is_cut = [int(chars[row].sum()) >= limit for row, limit in zip(ids, limits, strict=True)]
    return [Drawn(text, is_cut=cut) for text, cut in zip(texts, is_cut, strict=True)]


def _collect(
    draw: Draw, configs: Sequence[SamplingConfig], guards: Sequence[Guards]
) -> list[Samples]:
    """Draw until every place has a post that the guards let pass, within `MAX_ROUNDS`."""
    drafts = [_Draft(config, own) for config, own in zip(configs, guards, strict=True)]
    for number in range(MAX_ROUNDS):
        wanted = [draft.wanted() for draft in drafts]
        if not any(wanted):
            break
        for draft, drawn in zip(drafts, draw(number, wanted), strict=True):
            draft.take(drawn)
    return [draft.samples() for draft in drafts]


class _Draft:
    """The places of one user's posts, filled round by round."""

    def __init__(self, config: SamplingConfig, guards: Guards) -> None:
        self._prompts = [prompt for prompt in config.prompts for _ in range(config.num)]
        self._best_of = config.best_of
        self._guards = guards
        self._chosen: dict[int, str] = {}
        self._slots: list[int] = []
        """The place of each post that is asked for."""
        self._refused: Counter[str] = Counter()

    def wanted(self) -> list[str]:
        """Return the prompts to go on from."""
        pending = [index for index in range(len(self._prompts)) if index not in self._chosen]
        self._slots = [index for index in pending for _ in range(self._best_of)]
        return [self._prompts[index] for index in self._slots]

    def take(self, drawn: Sequence[Drawn]) -> None:
        """Put what the guards let pass into its place, the likeliest of several."""
        best: dict[int, float] = {}
        for index, one in zip(self._slots, drawn, strict=True):
            text = self._cut(one)
            if reason := self._guards.judge(text):
                self._refused[reason.value] += 1
            elif index not in best or one.score > best[index]:
                best[index], self._chosen[index] = one.score, text

    def samples(self) -> Samples:
        """Return what there is."""
        predictions = (Prediction(self._prompts[i], self._chosen[i]) for i in sorted(self._chosen))
        return Samples(tuple(predictions), dict(self._refused))

    def _cut(self, drawn: Drawn) -> str:
        """Return a text as it is shown; one that is too long ends at a word and is counted."""
        text, limit = self._guards.finish(drawn.text), self._guards.max_chars
        if not limit or (len(text) <= limit and not drawn.is_cut):
            return text
        self._refused[Refusal.too_long.value] += 1
        # Masked to less than the limit, it may still end within a word.
        return shorten(text, min(limit, max(1, len(text) - 1)))


def _draw(
    model: transformers.PreTrainedModel,
    codec: Codec,
    config: SamplingConfig,
    prompts: Sequence[str],
    max_positions: int,
) -> list[Drawn]:
    """Draw one batch of posts by transformers, from torch's global random state."""
    device = model.device
    rows = codec.begin(prompts)
    longest = max(map(len, rows))
    padded = torch.tensor([[codec.pad_id] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]).to(device)
    settings = generation_config(config, codec)
    settings.max_new_tokens = min(config.token_limit, max_positions - longest)
    settings.min_new_tokens = min(config.min_new_tokens, settings.max_new_tokens)
    limits = [chars_left(prompt, config.char_limit) for prompt in prompts]
    ends = text_ends(codec, model.config.get_text_config().vocab_size, [limits])
    chars, is_break = ends.chars.to(device), ends.is_break.to(device)
    most = torch.tensor(limits, device=device)

    def has_ended(input_ids: Tensor, scores: Any, **_: Any) -> Any:
        """Say which sequences end: with their line, or as longer than a post may be."""
        new = input_ids[:, longest:]
        return (chars[new].sum(1) >= most) | is_break[new].any(1)

    output = model.generate(
        padded.to(device),
        attention_mask=mask,
        generation_config=settings,
        stopping_criteria=[has_ended],
    )
    drawn = output[:, longest:]
    new = [
        _until_end(ids, codec.eos_id, ends, limit)
        for ids, limit in zip(drawn.tolist(), limits, strict=True)  # sync: the texts
    ]
    posts = _read(codec, prompts, rows, new, ends.chars, limits)
    if config.best_of > 1:
        scores = _score(model, output, mask, drawn, codec.eos_id)
        posts = [replace(post, score=s) for post, s in zip(posts, scores, strict=True)]
    return posts


def _until_end(ids: list[int], eos_id: int, ends: TextEnds, limit: int) -> list[int]:
    """Return what comes before the first EOS, or up to the end of the text."""
    if eos_id in ids:
        ids = ids[: ids.index(eos_id)]
    is_end = (ends.chars[ids].cumsum(0) >= limit) | ends.is_break[ids]
    return ids[: int(is_end.int().argmax()) + 1] if is_end.any() else ids


def _score(model: Any, output: Tensor, mask: Tensor, drawn: Tensor, eos_id: int) -> list[float]:
    """Return the mean log-likelihood of the drawn tokens, the first end-of-text included."""
    mask = torch.cat([mask, torch.ones_like(drawn)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(
        input_ids=output, attention_mask=mask, position_ids=positions, use_cache=False
    ).logits[:, -drawn.shape[1] - 1 : -1]
    each = logits.float().log_softmax(-1).gather(2, drawn.unsqueeze(2)).squeeze(2)
    is_end = drawn == eos_id
    num_ends = is_end.cumsum(1)
    # Beyond the first EOS a row is padding.
    counts = (num_ends == 0) | ((num_ends == 1) & is_end)
    total: list[float] = ((each * counts).sum(1) / counts.sum(1).clamp(min=1)).tolist()
    return total
