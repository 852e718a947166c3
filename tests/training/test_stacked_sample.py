from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation.logits_process import TopPLogitsWarper

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.kernels.compiled import compiled_ops
from huggingtweets.kernels.rows import CompiledRowOps, RowOps, choose_row_ops, num_draws
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.stack import Stack, build_stack
from huggingtweets.ops.dropout import MAX_COLUMNS
from huggingtweets.training.stacked import sample
from huggingtweets.training.stacked.decode import build_cache, decode_step
from huggingtweets.training.stacked.sample import TextEnds, draw_uniforms, sample_stacked

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
    ours = sample_stacked(stack_of(models), PROMPTS, config=config, eos_id=EOS, seeds=[1, 2, 3])
    for model, own, samples in zip(models, PROMPTS, ours, strict=True):
        assert samples == [greedy(model, prompt, config) for prompt in own]


def test_a_user_s_samples_do_not_depend_on_neighbours() -> None:
    models = build_models(3)
    config = config_of()
    together = sample_stacked(stack_of(models), PROMPTS, config=config, eos_id=EOS, seeds=[1, 2, 3])
    for user in range(3):
        alone = sample_stacked(
            stack_of(models[user : user + 1]),
            PROMPTS[user : user + 1],
            config=config,
            eos_id=EOS,
            seeds=[user + 1],
        )
        assert alone[0] == together[user]


def test_a_neighbour_s_long_prompt_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side, as on a GPU."""
    monkeypatch.setattr(sample, "is_cpu", lambda device: False)
    stack, config = stack_of(build_models(2)), config_of()
    long = [EOS] * (stack.shape.num_positions - 3)
    alone = sample_stacked(stack.slots(0, 1), [[[EOS]]], config=config, eos_id=EOS, seeds=[1])
    beside = sample_stacked(stack, [[[EOS]], [long]], config=config, eos_id=EOS, seeds=[1, 2])
    assert beside[0] == alone[0]
    assert len(alone[0][0]) > 3
    assert len(beside[1][0]) <= 3


def test_seeds_and_sequences_draw_differently() -> None:
    models = build_models(1)
    prompts = [[[EOS, 5]] * 3]
    first, second = (
        sample_stacked(stack_of(models), prompts, config=config_of(), eos_id=EOS, seeds=[seed])[0]
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
    samples = sample_stacked(stack_of(models), prompts, config=config, eos_id=EOS, seeds=[1, 2])
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
    samples = sample_stacked(stack, many, config=config, eos_id=EOS, seeds=[1, 2])
    few = [own[:3] for own in many]
    first = sample_stacked(stack, few, config=config, eos_id=EOS, seeds=[1, 2])
    assert first == [own[:3] for own in samples]


def test_posts_end_where_positions_end() -> None:
    models = build_models(1)
    config = config_of(min_new_tokens=500, max_new_tokens=500)
    prompts = [[[EOS, 5, 6], [EOS]]]
    samples = sample_stacked(stack_of(models), prompts, config=config, eos_id=EOS, seeds=[1])
    assert [len(ids) for ids in samples[0]] == [POSITIONS - 3] * 2


def test_bf16_samples() -> None:
    models = build_models(2)
    stack = stack_of(models, torch.bfloat16)
    samples = sample_stacked(stack, PROMPTS[:2], config=config_of(), eos_id=EOS, seeds=[1, 2])
    assert [len(own) for own in samples] == [3, 1]


def row_ops(kind: str) -> RowOps:
    """PyTorch's operators, or the C++ where there is a compiler."""
    if kind == "reference":
        return RowOps()
    if compiled_ops() is None:
        pytest.skip("no C++ compiler")
    found = choose_row_ops(torch.device("cpu"), num_positions=MAX_COLUMNS, head_width=64)
    assert isinstance(found, CompiledRowOps)
    return found


@pytest.mark.parametrize("kind", ["reference", "compiled"])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_draws_follow_the_nucleus(top_p: float, kind: str) -> None:
    """Chi-square against what transformers' filter leaves."""
    num = 40000
    scores = 2 * torch.randn(30, generator=torch.Generator().manual_seed(1))
    expected = torch.softmax(scores, -1)
    if top_p < 1:
        warper = TopPLogitsWarper(top_p)
        expected = torch.softmax(warper(torch.zeros(1, 1, dtype=torch.int64), scores[None])[0], -1)
    uniforms = draw_uniforms(np.array([7]), num, positions=1, draws=num_draws(top_p))
    drawn = row_ops(kind).draw(
        scores.expand(num, -1).contiguous(),
        torch.ones(num),
        torch.full((num,), top_p),
        torch.full((num,), -1),
        uniforms.view(num, -1),
    )
    counts = torch.bincount(drawn.flatten(), minlength=30).double()
    assert counts[expected == 0].sum() == 0
    inside = expected > 0
    chi_square = ((counts - num * expected)[inside] ** 2 / (num * expected)[inside]).sum()
    freedom = int(inside.sum()) - 1
    assert float(chi_square) <= freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_rows_equal_pytorch_s(dtype: torch.dtype) -> None:
    ops, reference = row_ops("compiled"), RowOps()
    torch.manual_seed(3)
    num, heads, limit, width, vocab_size = 7, 3, 20, 16, 2000
    qkv = torch.randn(1, num, 3 * heads * width).to(dtype)
    positions = torch.tensor([0, 5, -1, 19, 7, 1, 2])
    caches = [torch.randn(2, num, heads, limit, width).to(dtype)]
    caches.append(caches[0].clone())
    rows = torch.arange(num)
    ours, theirs = (
        one.attend(qkv, cache, rows, positions, 0.25)
        for one, cache in zip((ops, reference), caches, strict=True)
    )
    live = positions >= 0
    assert torch.allclose(ours[:, live].float(), theirs[:, live].float(), rtol=1e-5, atol=1e-2)
    if dtype == torch.float32:
        assert torch.allclose(ours[:, live], theirs[:, live], rtol=1e-5, atol=1e-6)
    assert torch.equal(caches[0][:, live], caches[1][:, live])

    logits = (3 * torch.randn(400, vocab_size)).to(dtype)
    settings = (torch.full((400,), 0.8), torch.full((400,), 0.9))
    banned = logits.argmax(1).where(torch.arange(400) % 2 == 0, -1)
    uniforms = draw_uniforms(np.array([1]), 400, positions=1, draws=8).view(400, -1)
    drawn = [one.draw(logits.clone(), *settings, banned, uniforms) for one in (ops, reference)]
    assert (drawn[0] != drawn[1]).sum() <= 4, "sums round otherwise at the edge of a token"
    assert not (drawn[0] == banned).any()

    targets = torch.where(torch.arange(400) % 3 == 0, logits.argmax(1), drawn[0])
    (nats, hits), (nats_of_theirs, hits_of_theirs) = (
        one.score(logits.clone(), targets) for one in (ops, reference)
    )
    assert torch.allclose(nats, nats_of_theirs, rtol=1e-4, atol=1e-4)
    assert torch.equal(hits, hits_of_theirs)


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    """In bf16 many are equal; a greedy choice takes one of them."""
    logits = torch.full((2, 8), -80.0, dtype=torch.bfloat16)
    logits[:, 3], logits[:, 5] = -70.1, -70.0
    assert logits[0, 3] == logits[0, 5]
    rows = choose_row_ops(torch.device("cpu"), num_positions=0, head_width=0)
    for one in (RowOps(), rows):
        assert one.score(logits.clone(), torch.tensor([3, 5]))[1].tolist() == [True, False]


def test_uniforms_are_uniform_and_of_row_and_position_alone() -> None:
    many = draw_uniforms(np.array([3, 4]), 50, positions=30, draws=6)
    few = draw_uniforms(np.array([4]), 5, positions=7, draws=2)
    assert torch.equal(many[1:, :5, :7, :2], few)
    assert float(many.min()) >= 0
    assert float(many.max()) < 1
    assert len(many.unique()) == many.numel()
    counts = torch.histc(many, 16, 0, 1)
    expected = many.numel() / 16
    assert float(((counts - expected) ** 2 / expected).sum()) < 50


def test_rows_join_and_leave_at_positions_of_their_own() -> None:
    """A step over rows at unlike positions gives each what it gets alone."""
    model = build_models(1)[0]
    stack = stack_of([model])
    first, second = [0, 5, 9, 30, 7, 11], [0, 8, 8, 2]
    cache = build_cache(stack, 2, 16)
    found: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    for step in range(9):
        # The second begins while the first is under way, in a place that somebody left.
        inputs = [first[step] if step < 6 else 0, second[step - 3] if 3 <= step < 7 else 3]
        positions = [step if step < 6 else -1, step - 3 if 3 <= step < 7 else step + 5]
        logits = decode_step(stack, cache, torch.tensor([inputs]), torch.tensor([positions]))
        assert logits is not None
        for row, is_in in ((0, step < 6), (1, 3 <= step < 7)):
            if is_in:
                found[row].append(logits[0, row])
    for row, ids in ((0, first), (1, second)):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids])).logits[0]
        assert torch.allclose(torch.stack(found[row]), expected, atol=1e-4)


def test_samples_end_where_their_text_does() -> None:
    stack = stack_of(build_models(1))
    prompts, config = [[[EOS, 5, 6]] * 30], config_of(min_new_tokens=0, max_new_tokens=40)
    chars = torch.arange(VOCAB) % 7
    is_break = torch.arange(VOCAB) % 40 == 3
    ends = TextEnds(chars, is_break, [[20] * 30])
    plain, ended = (
        sample_stacked(stack, prompts, config=config, eos_id=EOS, seeds=[1], ends=one)[0]
        for one in (None, ends)
    )
    num_short = 0
    for whole, short in zip(plain, ended, strict=True):
        assert whole[: len(short)] == short
        sums = chars[short].cumsum(0)
        assert not is_break[short[:-1]].any()
        assert (sums[:-1] < 20).all()
        if len(short) < len(whole):
            assert int(sums[-1]) >= 20 or bool(is_break[short[-1]])
            num_short += 1
    assert num_short > 20


def test_a_decoding_step_is_few_operators() -> None:
    """Each costs microseconds of the interpreter, whatever the width of the model."""
    row_ops("compiled")

    class Count(TorchDispatchMode):
        num = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            Count.num += not func.is_view
            return func(*args, **(kwargs or {}))

    config = GPT2Config(vocab_size=500, n_positions=64, n_embd=24, n_layer=12, n_head=12)
    stack = stack_of([GPT2LMHeadModel(config)])
    with Count():
        sample_stacked(
            stack,
            [[[0, 1, 2]] * 50],
            config=SamplingConfig(min_new_tokens=40, max_new_tokens=41),
            eos_id=0,
            seeds=[1],
        )
    assert Count.num / 43 <= 128
