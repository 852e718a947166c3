"""Posts sampled from a trained model."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from huggingtweets.config.schema import SamplingConfig
from huggingtweets.data.tokens import Codec
from huggingtweets.generation.guards import Guards, Refusal, shorten
from huggingtweets.training.array.layout import layout_of, shape_of, why_not_fused
from huggingtweets.training.array.models import Stack, build_stack
from huggingtweets.training.array.sample import sample_array

MAX_ROUNDS = 6
"""How often what is refused is drawn again."""

Draw: TypeAlias = Callable[[Sequence[str]], tuple[list[str], list[float]]]
"""From prompts to whole posts, and how likely the model held each."""

_GLOBAL_RANDOM = threading.Lock()
"""Held while torch's global random state is ours."""


@dataclass(frozen=True)
class Prediction:
    """One sampled post."""

    input: str
    """The prompt."""
    prediction: str
    """The whole post, prompt included, cut at the first line break."""


@dataclass(frozen=True)
class Samples:
    """What was sampled."""

    predictions: tuple[Prediction, ...]
    """Prompt after prompt; fewer than asked for where the guards refused every attempt."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Reason to how many drawn posts it refused."""

    @property
    def refusals(self) -> str:
        """What was refused, for people: `6 banned, 2 copied`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.refused.items())


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
    model: PreTrainedModel,
    codec: Codec,
    config: SamplingConfig,
    guards: Guards,
    *,
    max_positions: int,
    seed: int,
) -> Samples:
    """Sample `config.num` posts a prompt, all in one batch, from BOS + prompt.

    What the guards refuse is drawn again, `MAX_ROUNDS` times at most; then a post that is only too
    long is cut at a word, and any other is left out. A GPT-2 is sampled as by `sample_stack`.

    Args:
        model: on any device.
        codec: of the model.
        config: prompts, number and sampling parameters.
        guards: what may not come out.
        max_positions: of the model; longer posts are cut there.
        seed: of the sampling alone; the global random state is left as it was.
    """
    if config.best_of == 1 and not why_not_fused(model.config):
        layout = layout_of(shape_of(model.config))
        row = layout.pack(model.state_dict()).to(model.device)
        stack = build_stack(layout, row.unsqueeze(0), torch.float32)
        return sample_stack(stack, codec, config, guards, seed=seed)
    draw = _Drawer(model, codec, config, max_positions)
    with _GLOBAL_RANDOM, torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        return _collect(draw, config, guards)


def sample_stack(
    stack: Stack,
    codec: Codec,
    config: SamplingConfig,
    guards: Guards,
    *,
    seed: int,
) -> Samples:
    """Do what `sample_posts` does with a stack of one GPT-2, in a fraction of the time.

    `config.best_of` is not heeded. Threads may call this side by side.
    """
    rounds = 0

    def draw(prompts: Sequence[str]) -> tuple[list[str], list[float]]:
        nonlocal rounds
        rows = codec.begin(prompts)
        seeds = [seed + (rounds << 32)]
        rounds += 1
        [drawn] = sample_array(stack, [rows], config=config, eos_id=codec.eos_id, seeds=seeds)
        return codec.whole_texts(prompts, rows, drawn), [0.0] * len(prompts)

    return _collect(draw, config, guards)


def _collect(draw: Draw, config: SamplingConfig, guards: Guards) -> Samples:
    """Draw until every place has a post that the guards let pass, within `MAX_ROUNDS`."""
    prompts = [prompt for prompt in config.prompts for _ in range(config.num)]
    chosen: dict[int, str] = {}
    too_long: dict[int, str] = {}
    refused: Counter[str] = Counter()
    for _ in range(MAX_ROUNDS):
        pending = [index for index in range(len(prompts)) if index not in chosen]
        if not pending:
            break
        slots = [index for index in pending for _ in range(config.best_of)]
        texts, scores = draw([prompts[index] for index in slots])
        texts = [guards.finish(text) for text in texts]
        best: dict[int, float] = {}
        for index, text, score, reason in zip(
            slots, texts, scores, guards.judge(texts), strict=True
        ):
            if reason:
                refused[reason.value] += 1
                if reason is Refusal.too_long:
                    too_long.setdefault(index, text)
            elif index not in best or score > best[index]:
                best[index], chosen[index] = score, text
    for index, text in too_long.items():
        chosen.setdefault(index, shorten(text, guards.max_chars))
    predictions = tuple(Prediction(prompts[index], chosen[index]) for index in sorted(chosen))
    return Samples(predictions, dict(refused))


class _Drawer:
    """Draws one batch of posts, and says how likely the model held each."""

    def __init__(
        self,
        model: PreTrainedModel,
        codec: Codec,
        config: SamplingConfig,
        max_positions: int,
    ) -> None:
        self._model = model
        self._codec = codec
        self._config = config
        self._max_positions = max_positions

    def __call__(self, prompts: Sequence[str]) -> tuple[list[str], list[float]]:
        """Return whole texts, and mean log-likelihoods a token (0 when only one is drawn)."""
        device = self._model.device
        rows = self._codec.begin(prompts)
        longest = max(map(len, rows))
        padded = torch.tensor([[self._codec.pad_id] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        settings = generation_config(self._config, self._codec)
        settings.max_new_tokens = min(self._config.token_limit, self._max_positions - longest)
        settings.min_new_tokens = min(self._config.min_new_tokens, settings.max_new_tokens)
        output = self._model.generate(
            padded.to(device), attention_mask=mask.to(device), generation_config=settings
        )
        drawn = output[:, longest:]
        new = [self._until_end(ids) for ids in drawn.tolist()]  # sync: the texts
        scores = [0.0] * len(rows)
        if self._config.best_of > 1:
            scores = self._score(output, mask.to(device), drawn)
        return self._codec.whole_texts(prompts, rows, new), scores

    def _until_end(self, ids: list[int]) -> list[int]:
        """Return what comes before the first EOS; after it there is padding."""
        eos_id = self._codec.eos_id
        return ids[: ids.index(eos_id)] if eos_id in ids else ids

    def _score(self, output: Tensor, mask: Tensor, drawn: Tensor) -> list[float]:
        """Return the mean log-likelihood of the drawn tokens, the first end-of-text included."""
        mask = torch.cat([mask, torch.ones_like(drawn)], dim=1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._model(
            input_ids=output, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits[:, -drawn.shape[1] - 1 : -1]
        each = logits.float().log_softmax(-1).gather(2, drawn.unsqueeze(2)).squeeze(2)
        is_end = drawn == self._codec.eos_id
        num_ends = is_end.cumsum(1)
        counts = (num_ends == 0) | ((num_ends == 1) & is_end)
        total: list[float] = ((each * counts).sum(1) / counts.sum(1).clamp(min=1)).tolist()
        return total
