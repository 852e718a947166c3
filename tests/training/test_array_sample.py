from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation.logits_process import TopPLogitsWarper

from huggingtweets.config.schema import SamplingConfig
from huggingtweets.training.array.layout import layout_of, shape_of
from huggingtweets.training.array.models import Stack, build_stack
from huggingtweets.training.array.sample import _draw, sample_array

VOCAB, EOS, POSITIONS = 320, 0, 48

PROMPTS = [
    [[EOS, 5, 6], [EOS, 7], [EOS, 8, 9, 10, 11, 12]],
    [[EOS, 5, 6]],
    [[EOS], [EOS, 30]],
]


def build_models(num: int) -> list[GPT2LMHeadModel]:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    models = [GPT2LMHeadModel(config).eval() for _ in range(num)]
    for model in models:
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return models


def stack_of(models: Sequence[GPT2LMHeadModel], dtype: torch.dtype = torch.float32) -> Stack:
    layout = layout_of(shape_of(models[0].config))
    rows = torch.stack([layout.pack(model.state_dict()) for model in models])
    return build_stack(layout, rows, dtype)


def config_of(**changes: object) -> SamplingConfig:
    settings: dict[str, object] = {"min_new_tokens": 3, "max_new_tokens": 12}
    return SamplingConfig(**(settings | changes))  # type: ignore[arg-type]


def greedy(model: GPT2LMHeadModel, prompt: list[int], config: SamplingConfig) -> list[int]:
    """Greedy decoding by transformers, without a cache."""
    ids = list(prompt)
    for count in range(config.max_new_tokens):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        if count < config.min_new_tokens:
            scores[EOS] = -torch.inf
        if int(scores.argmax()) == EOS:
            break
        ids.append(int(scores.argmax()))
    return ids[len(prompt) :]


def test_the_likeliest_tokens_are_those_of_transformers() -> None:
    models = build_models(3)
    config = config_of(top_p=1e-9)
    ours = sample_array(stack_of(models), PROMPTS, config=config, eos_id=EOS, seeds=[1, 2, 3])
    for model, own, samples in zip(models, PROMPTS, ours, strict=True):
        assert samples == [greedy(model, prompt, config) for prompt in own]


def test_a_user_s_samples_do_not_depend_on_neighbours() -> None:
    models = build_models(3)
    config = config_of()
    together = sample_array(stack_of(models), PROMPTS, config=config, eos_id=EOS, seeds=[1, 2, 3])
    for user in range(3):
        alone = sample_array(
            stack_of(models[user : user + 1]),
            PROMPTS[user : user + 1],
            config=config,
            eos_id=EOS,
            seeds=[user + 1],
        )
        assert alone[0] == together[user]


def test_seeds_and_sequences_draw_differently() -> None:
    models = build_models(1)
    prompts = [[[EOS, 5]] * 3]
    first, second = (
        sample_array(stack_of(models), prompts, config=config_of(), eos_id=EOS, seeds=[seed])[0]
        for seed in (1, 2)
    )
    assert len({tuple(ids) for ids in [*first, *second]}) == 6


def ending_models(num: int) -> list[GPT2LMHeadModel]:
    """Models that end about every fifth token."""
    models = build_models(num)
    for model in models:
        model.transformer.ln_f.bias.data = model.transformer.wte.weight.data[EOS] * 3.6
        model.transformer.ln_f.weight.data *= 0.1
        model.transformer.wte.weight.data[EOS] *= 4
    return models


def test_samples_end_at_eos_within_their_bounds() -> None:
    models = ending_models(2)
    prompts = [[[EOS, 5, 6]] * 40, [[EOS, 7]] * 40]
    config = config_of(min_new_tokens=2, max_new_tokens=20)
    samples = sample_array(stack_of(models), prompts, config=config, eos_id=EOS, seeds=[1, 2])
    lengths = [len(ids) for own in samples for ids in own]
    assert min(lengths) >= 2
    assert max(lengths) <= 20
    assert len(set(lengths)) > 4
    assert all(EOS not in ids for own in samples for ids in own)


def test_dropping_sequences_that_ended_changes_nothing() -> None:
    models = ending_models(2)
    many = [[[EOS, 5, 6]] * 40, [[EOS, 7]] * 40]
    config = config_of(min_new_tokens=0, max_new_tokens=20)
    stack = stack_of(models)
    samples = sample_array(stack, many, config=config, eos_id=EOS, seeds=[1, 2])
    few = [own[:3] for own in many]
    first = sample_array(stack, few, config=config, eos_id=EOS, seeds=[1, 2])
    assert first == [own[:3] for own in samples]


def test_posts_end_where_positions_end() -> None:
    models = build_models(1)
    config = config_of(min_new_tokens=500, max_new_tokens=500)
    prompts = [[[EOS, 5, 6], [EOS]]]
    samples = sample_array(stack_of(models), prompts, config=config, eos_id=EOS, seeds=[1])
    assert [len(ids) for ids in samples[0]] == [POSITIONS - 3] * 2


def test_bf16_samples() -> None:
    models = build_models(2)
    stack = stack_of(models, torch.bfloat16)
    samples = sample_array(stack, PROMPTS[:2], config=config_of(), eos_id=EOS, seeds=[1, 2])
    assert [len(own) for own in samples] == [3, 1]


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_draws_follow_the_nucleus(top_p: float) -> None:
    """Chi-square against what transformers' filter leaves."""
    num = 40000
    scores = 2 * torch.randn(30, generator=torch.Generator().manual_seed(1))
    expected = torch.softmax(scores, -1)
    if top_p < 1:
        warper = TopPLogitsWarper(top_p)
        expected = torch.softmax(warper(torch.zeros(1, 1, dtype=torch.int64), scores[None])[0], -1)
    drawn = _draw(
        scores.expand(1, num, -1).contiguous(), top_p, np.array([7]), 3, np.arange(num)[None]
    )
    counts = torch.bincount(drawn.flatten(), minlength=30).double()
    assert counts[expected == 0].sum() == 0
    inside = expected > 0
    chi_square = ((counts - num * expected)[inside] ** 2 / (num * expected)[inside]).sum()
    freedom = int(inside.sum()) - 1
    assert float(chi_square) <= freedom + 5 * (2 * freedom) ** 0.5
