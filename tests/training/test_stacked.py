"""The stacked models against transformers' GPT2LMHeadModel, one by one."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.data.blocks import IGNORED
from huggingtweets.kernels.compiled import compiled_ops
from huggingtweets.kernels.rows import RowOps
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.forward import MicroBatch
from huggingtweets.models.layout import Layout
from huggingtweets.models.run import logits, loss_and_gradients, target_scores
from huggingtweets.models.stack import Stack, build_stack
from huggingtweets.ops import head as stacked_head
from huggingtweets.ops.attention import view_of
from huggingtweets.ops.dropout import (
    Dropout,
    num_sites,
    site_keys,
    thresholds_and_scales,
)
from huggingtweets.ops.reference import PYTORCH, Ops

torch.set_num_threads(1)  # on a busy machine threads wait for each other longer than they compute

K, B, T, VOCAB = 3, 2, 40, 301
LENGTHS = (13, 17, 10)
"""Of the documents in an isolated block; they fill it."""

# fp32 rounding: sums of a few hundred products of order 1, so some 1e-6 relative to the largest.
RELATIVE = 3e-6

in_use: list[Ops] = [PYTORCH]


@pytest.fixture(params=["pytorch", "compiled"], autouse=True)
def both_ops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute between the products by PyTorch's operators, and by ours in C++."""
    ops = PYTORCH if request.param == "pytorch" else compiled_ops()
    if ops is None:
        pytest.skip("no C++ compiler")
    monkeypatch.setattr("test_stacked.in_use", [ops])


def summed_losses(stack: Stack, batch: MicroBatch) -> Tensor:
    return target_scores(stack, batch, RowOps())[0].sum((1, 2))


def build_config(**changes: object) -> GPT2Config:
    settings: dict[str, object] = {
        "vocab_size": VOCAB,
        "n_positions": 64,
        "n_embd": 48,
        "n_layer": 3,
        "n_head": 4,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return GPT2Config(**(settings | changes))


def build_models(config: GPT2Config, num: int = K) -> list[GPT2LMHeadModel]:
    torch.manual_seed(0)
    models = [GPT2LMHeadModel(config) for _ in range(num)]
    for model in models:
        for parameter in model.parameters():  # biases and norms that matter
            parameter.data += 0.05 * torch.randn_like(parameter)
    return models


def stack_models(
    models: list[GPT2LMHeadModel], dtype: torch.dtype = torch.float32
) -> tuple[Layout, Stack, Stack]:
    layout = layout_of(shape_of(models[0].config))
    rows = torch.stack([layout.pack(model.state_dict()) for model in models])
    grads = torch.full_like(rows, 7.0)  # left over from a step before
    grads[:, layout.num_values :] = 0.0
    grads_stack = build_stack(layout, grads, torch.float32)
    return layout, build_stack(layout, rows, dtype), grads_stack


def build_batch(
    *, isolate: bool = False, width: int = 16, use_fused: bool = False, num: int = K
) -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(0, VOCAB, (num, B, T), generator=generator)
    targets = torch.randint(0, VOCAB, (num, B, T), generator=generator)
    targets[:, :, 5] = IGNORED
    position_ids = torch.arange(T)
    if isolate:
        position_ids = torch.cat([torch.arange(length) for length in LENGTHS])
    position_ids = position_ids.expand(num, B, T).contiguous()
    view = view_of(
        position_ids, isolate=isolate, reach=max(LENGTHS), width=width, use_fused=use_fused
    )
    return MicroBatch(input_ids, targets, position_ids, {None: view}, ops=in_use[-1])


def reference(model: GPT2LMHeadModel, batch: MicroBatch, slot: int) -> Tensor:
    """Logits (B, T, V) of transformers, every document in a forward pass of its own."""
    rows = []
    for ids, positions in zip(batch.input_ids[slot], batch.position_ids[slot], strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), T]
        documents = [ids[a:b] for a, b in pairwise(starts)]
        rows.append(torch.cat([model(input_ids=d[None]).logits[0] for d in documents]))
    return torch.stack(rows)


def assert_gradients_equal(
    layout: Layout, grads: Stack, models: list[GPT2LMHeadModel], batch: MicroBatch, weight: Tensor
) -> None:
    for slot, model in enumerate(models):
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            reference(model, batch, slot).flatten(0, 1),
            batch.targets[slot].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        (loss * weight[slot]).backward()
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        expected = layout.pack(named)
        largest = expected.abs().max()
        torch.testing.assert_close(
            grads.rows[slot], expected, rtol=0, atol=RELATIVE * float(largest)
        )


@pytest.mark.parametrize("width", [8, 16, 64], ids=lambda width: f"windows-of-{width}")
@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
@pytest.mark.parametrize("use_fused", [False, True], ids=["windows", "fused"])
def test_logits_equal_transformers(isolate: bool, use_fused: bool, width: int) -> None:
    models = build_models(build_config())
    _, stack, _ = stack_models(models)
    batch = build_batch(isolate=isolate, use_fused=use_fused, width=width)
    ours = logits(stack, batch)
    for slot, model in enumerate(models):
        torch.testing.assert_close(ours[slot], reference(model, batch, slot), rtol=0, atol=5e-6)


@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
@pytest.mark.parametrize("use_fused", [False, True], ids=["windows", "fused"])
@pytest.mark.parametrize("num", [1, K])
def test_gradients_equal_transformers(isolate: bool, use_fused: bool, num: int) -> None:
    models = build_models(build_config(), num)
    layout, stack, grads = stack_models(models)
    batch = build_batch(isolate=isolate, use_fused=use_fused, num=num)
    weight = torch.tensor([0.01, 0.02, 0.005][:num])
    losses = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    torch.testing.assert_close(losses, summed_losses(stack, batch))
    assert_gradients_equal(layout, grads, models, batch, weight)


def test_gradients_of_micro_batches_add_up() -> None:
    models = build_models(build_config())
    layout, stack, grads = stack_models(models)
    batch = build_batch()
    weight = torch.full((K,), 0.01)
    for index in range(B):
        one = slice(index, index + 1)
        part = replace(
            batch,
            input_ids=batch.input_ids[:, one],
            targets=batch.targets[:, one],
            position_ids=batch.position_ids[:, one],
        )
        loss_and_gradients(stack, grads, part, weight, accumulate=index > 0)
    assert_gradients_equal(layout, grads, models, batch, weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_inner": 100},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"n_embd": 36, "n_head": 3},
        {"layer_norm_epsilon": 1e-3},
    ],
    ids=str,
)
def test_other_shapes_equal_transformers(changes: dict[str, object]) -> None:
    models = build_models(build_config(**changes))
    layout, stack, grads = stack_models(models)
    batch = build_batch()
    weight = torch.full((K,), 0.01)
    loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    assert_gradients_equal(layout, grads, models, batch, weight)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_recomputing_changes_nothing(rate: float) -> None:
    models = build_models(build_config())
    _, stack, grads = stack_models(models)
    batch, weight = build_batch(isolate=True), torch.full((K,), 0.01)
    batch = replace(batch, dropout=dropout_of(rate, 1) if rate else None)
    kept = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    expected = grads.rows.clone()
    again = loss_and_gradients(stack, grads, batch, weight, accumulate=False, recompute=True)
    assert torch.equal(again, kept)
    assert torch.equal(grads.rows, expected)


def test_chunked_loss_equals_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    models = build_models(build_config())
    _, stack, grads = stack_models(models)
    batch, weight = build_batch(), torch.full((K,), 0.01)
    whole = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    expected = grads.rows.clone()
    monkeypatch.setattr(stacked_head, "MIN_ROWS", 7)
    monkeypatch.setitem(stacked_head.CHUNK_LOGITS, "cpu", 1)
    chunked = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(grads.rows, expected, rtol=1e-5, atol=1e-6)


def test_slots_do_not_see_a_neighbour_that_is_not_a_number() -> None:
    models = build_models(build_config())
    _, stack, grads = stack_models(models)
    batch, weight = build_batch(isolate=True), torch.full((K,), 0.01)
    losses = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    expected = grads.rows.clone()
    stack.rows[1] = torch.nan
    spoilt = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    assert spoilt[1].isnan()
    for slot in (0, 2):
        assert torch.equal(spoilt[slot], losses[slot])
        assert torch.equal(grads.rows[slot], expected[slot])


def test_slots_of_a_stack_share_its_memory() -> None:
    models = build_models(build_config())
    _, stack, _ = stack_models(models, torch.bfloat16)
    part = stack.slots(1, 3)
    batch = build_batch()
    some = replace(
        batch,
        input_ids=batch.input_ids[1:],
        targets=batch.targets[1:],
        position_ids=batch.position_ids[1:],
    )
    torch.testing.assert_close(summed_losses(part, some), summed_losses(stack, batch)[1:])
    stack.rows.zero_()
    stack.refresh()
    uniform = np.log(VOCAB) * int((some.targets != IGNORED).sum()) / 2
    torch.testing.assert_close(summed_losses(part, some), torch.full((2,), uniform).float())


def test_bf16_is_as_close_as_autocast() -> None:
    models = build_models(build_config())
    _, stack, grads = stack_models(models, torch.bfloat16)
    _, exact_stack, exact = stack_models(models)
    batch, weight = build_batch(), torch.full((K,), 0.01)
    loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    loss_and_gradients(exact_stack, exact, batch, weight, accumulate=False)
    layout = layout_of(stack.shape)
    for slot, model in enumerate(models):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(input_ids=batch.input_ids[slot]).logits
        loss = torch.nn.functional.cross_entropy(
            scores.flatten(0, 1).float(),
            batch.targets[slot].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        (loss * 0.01).backward()
        theirs = layout.pack({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        error = (grads.rows[slot] - exact.rows[slot]).norm()
        assert error < 1.1 * (theirs - exact.rows[slot]).norm()


def dropout_of(rate: float, seed: int, num: int = K) -> Dropout:
    thresholds, scales = thresholds_and_scales(np.full((3, num * B), rate))
    keys = site_keys(
        np.repeat(np.arange(num), B) + seed,
        np.zeros(num * B, np.int64),
        np.tile(np.arange(B), num),
        num_sites(3, 4),
    )
    return Dropout(keys, thresholds, scales)


def test_dropout_of_zero_changes_nothing() -> None:
    models = build_models(build_config())
    _, stack, _ = stack_models(models)
    batch = build_batch(isolate=True)
    plain = summed_losses(stack, batch)
    dropped = summed_losses(stack, replace(batch, dropout=dropout_of(0.0, 1)))
    torch.testing.assert_close(dropped, plain)


@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
def test_gradients_with_dropout_are_those_of_the_loss(isolate: bool) -> None:
    """A directional derivative: the masks of a step are fixed, so the loss is a smooth function."""
    models = build_models(build_config())
    layout, stack, grads = stack_models(models)
    batch = replace(build_batch(isolate=isolate), dropout=dropout_of(0.2, 1))
    weight = torch.ones(K)
    loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    direction = torch.randn(stack.rows.shape, generator=torch.Generator().manual_seed(3))
    direction[:, layout.num_values :] = 0.0
    direction *= 1e-3 / direction.norm(dim=1, keepdim=True)
    expected = 2 * (grads.rows * direction).sum(1)
    stack.rows.add_(direction)
    above = summed_losses(stack, batch)
    stack.rows.sub_(2 * direction)
    below = summed_losses(stack, batch)
    torch.testing.assert_close(above - below, expected, rtol=0.02, atol=1e-3)


def test_dropout_masks_do_not_depend_on_neighbours_or_windows() -> None:
    models = build_models(build_config())
    _, stack, _ = stack_models(models)
    batch = replace(build_batch(isolate=True), dropout=dropout_of(0.3, 1))
    together = summed_losses(stack, batch)
    for slot in range(K):
        one = slice(slot, slot + 1)
        view = view_of(batch.position_ids[one], isolate=True, reach=39, width=11, use_fused=False)
        dropout = dropout_of(0.3, 1 + slot, num=1)
        alone = MicroBatch(
            batch.input_ids[one],
            batch.targets[one],
            batch.position_ids[one],
            {None: view},
            dropout,
            in_use[-1],
        )
        loss = summed_losses(stack.slots(slot, slot + 1), alone)
        torch.testing.assert_close(loss[0], together[slot])


def test_dropout_has_the_effect_of_that_of_transformers() -> None:
    """Mean and spread of the loss over many masks."""
    config = build_config(attn_pdrop=0.3, resid_pdrop=0.3, embd_pdrop=0.3)
    models = build_models(config, 1)
    _, stack, _ = stack_models(models)
    batch = build_batch(num=1)
    ours = torch.stack(
        [
            summed_losses(stack, replace(batch, dropout=dropout_of(0.3, seed, num=1)))[0]
            for seed in range(100)
        ]
    )
    model = models[0].train()
    torch.manual_seed(5)
    theirs = torch.stack(
        [
            torch.nn.functional.cross_entropy(
                model(input_ids=batch.input_ids[0]).logits.flatten(0, 1),
                batch.targets[0].flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            ).detach()
            for _ in range(100)
        ]
    )
    deviation = float((ours.var() / 100 + theirs.var() / 100).sqrt())
    assert abs(float(ours.mean() - theirs.mean())) < 4 * deviation
    assert 0.7 < float(ours.std() / theirs.std()) < 1.4
