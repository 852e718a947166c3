"""Triton's kernels beside the reference, in Triton's interpreter: fp32 on a CPU.

`test_triton.py` runs this file in a process of its own, as Triton asks TRITON_INTERPRET once, when
it is imported.
"""

import os
from dataclasses import replace

assert os.environ["TRITON_INTERPRET"] == "1"

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, LlamaConfig, LlamaForCausalLM

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.kernels.triton_launchers import attention as launch_attention
from huggingtweets.kernels.triton_launchers import drop
from huggingtweets.kernels.triton_ops import TritonOps
from huggingtweets.models.adapter_rows import build_adapter_stack, row_size
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.ops.adamw import (
    Controls,
    adam_step,
    adam_step_by_rows,
    build_adam,
    constants_of,
)
from huggingtweets.ops.attention import WINDOW, Heads, attention, view_of
from huggingtweets.ops.dropout import (
    Dropout,
    ScaledSite,
    keep_mask,
    num_sites,
    site_keys,
    thresholds_and_scales,
)
from huggingtweets.ops.linear import Gradients, Linear, LowRank
from huggingtweets.ops.reference import PYTORCH, Joining, Norm, Ops
from huggingtweets.training.stacked.grouped import GroupedBase, GroupedTuning
from huggingtweets.training.stacked.slots import (
    MicroKind,
    add_micro_batch,
    build_slots,
    finish_step,
    micro_inputs,
    step_inputs,
)

torch.set_num_threads(1)
CPU = torch.device("cpu")
TRITON = TritonOps()
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(WINDOW, "cpu", 8)  # the reference has several in these short blocks


def close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert ours.shape == theirs.shape
    if theirs.numel():
        atol = 1e-5 * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape)


def like(kind: str, *shape: int) -> Tensor:
    """Random values, or such among others in memory."""
    if kind == "contiguous":
        return randn(*shape)
    return randn(*shape[:-1], 2 * shape[-1] + 3)[..., 1 : 2 * shape[-1] + 1 : 2]


def dropout_of(num: int, num_heads: int, rate: float) -> Dropout:
    place = np.arange(num)
    thresholds, scales = thresholds_and_scales(np.full((3, num), rate))
    return Dropout(site_keys(place, place + 3, place, num_sites(2, num_heads)), thresholds, scales)


def parts(K: int, C: int, num: int) -> list[Tensor]:
    """Vectors (K, C) as in a stack: parts of longer rows."""
    row = randn(K, num * C + 5)
    return [row[:, C * index : C * (index + 1)] for index in range(num)]


# Blocks, tokens, heads, heads of keys, head width, documents, dropout, most tokens seen.
ATTENTIONS = [
    (2, 19, 4, 2, 24, True, 0.3, None),
    pytest.param(2, 1, 1, 1, 32, False, 0.1, None, marks=SLOW),
    pytest.param(3, 37, 2, 2, 64, False, 0.0, None, marks=SLOW),
    pytest.param(2, 40, 6, 2, 48, True, 0.1, 7, marks=SLOW),
    pytest.param(1, 75, 2, 1, 128, True, 0.5, None, marks=SLOW),
    pytest.param(9, 16, 1, 1, 33, True, 0.0, None, marks=SLOW),
    pytest.param(2, 140, 3, 1, 64, True, 0.1, 20, marks=SLOW),
    *(pytest.param(n, 2 * n - 5, 1, 1, 32, True, 0.2, None, marks=SLOW) for n in range(4, 9)),
]


@pytest.mark.parametrize("kind", ["contiguous", "strided"])
@pytest.mark.parametrize(
    ("n", "T", "num", "num_kv", "width", "isolate", "rate", "sliding"), ATTENTIONS
)
def test_attention(
    n: int, T: int, num: int, num_kv: int, width: int, isolate: bool, rate: float,
    sliding: int | None, kind: str,
) -> None:  # fmt: skip
    positions = torch.arange(T).repeat(n, 1)
    if isolate:  # documents of five, one, one and seven tokens, then empty ones: their end alone
        lengths = (5, 1, 1, 7, 8, *[1] * T)
        positions = torch.cat([torch.arange(length) for length in lengths])[:T].repeat(n, 1)
    heads = Heads(num, num_kv, width**-0.5, 1)
    dropout = dropout_of(n, num, rate) if rate else None
    qkv, grad = like(kind, n, T, (num + 2 * num_kv) * width), like(kind, n, T, num * width)
    found = []
    for ops in (TRITON, PYTORCH):
        view = view_of(
            positions.view(n, 1, T), isolate=isolate, reach=T, width=8, use_fused=False,
            use_spans=ops.flash is not None, sliding=sliding,
        )  # fmt: skip
        x = qkv.detach().requires_grad_()
        out = attention(x.view_as(x), view, heads, dropout, ops)
        found.append((out.detach(), *torch.autograd.grad(out, x, grad)))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


# Models, blocks, tokens of a block, width.
SIZES = pytest.mark.parametrize(
    ("K", "B", "T", "C"),
    [
        (2, 2, 5, 24),
        pytest.param(1, 1, 1, 3, marks=SLOW),
        pytest.param(9, 1, 2, 16, marks=SLOW),
        pytest.param(3, 2, 37, 130, marks=SLOW),
        *(pytest.param(K, 1, 13 - K, 2 * K + 3, marks=SLOW) for K in range(4, 9)),
    ],
)


@SIZES
def test_dropout_masks_are_those_of_the_cpu_to_the_bit(K: int, B: int, T: int, C: int) -> None:
    site = dropout_of(K * B, 1, 0.3).residual(1, T, C)
    ones = torch.ones(K, B * T, C)
    ours = drop(ones, site.keys, site.thresholds, site.scales, T, torch.float32)
    mask = keep_mask(site.keys, site.thresholds, range(T), range(C))
    assert torch.equal((ours > 0).view(mask.shape).float(), mask)
    assert torch.equal(ours.view(mask.shape), site.scaled_mask())


def test_attention_masks_are_those_of_the_cpu_to_the_bit() -> None:
    """Of weights that are all equal and values that are a unit each, the output is the mask."""
    n, T, num = 2, 16, 2
    dropout, qkv = dropout_of(n, num, 0.4), torch.zeros(n, T, 3 * num, T)
    qkv[:, :, 2 * num :] = torch.eye(T).unsqueeze(1)
    out, _ = launch_attention(qkv.view(n, T, -1), None, *dropout.all_heads(1, num), num, num, 1.0)
    kept = out.view(n, T, num, T).transpose(1, 2).reshape(n * num, T, T) > 0
    mask = dropout.heads(1, num, range(T), range(T)).mask(torch.float32)
    assert torch.equal(kept.float(), mask.tril())


@pytest.mark.parametrize("has_bias", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("joins", [True, False], ids=["joined", "alone"])
@SIZES
def test_norm(K: int, B: int, T: int, C: int, joins: bool, has_bias: bool) -> None:
    R, rate = B * T, 0.3 if has_bias else 0.0
    site = dropout_of(K * B, 1, rate).residual(1, T, C) if rate else None
    weight, norm_bias, bias = parts(K, C, 3)
    branch, grad_out, before = (randn(K, R, C) for _ in range(3))
    x, found = like("strided", K, R, C), []
    for ops in (TRITON, PYTORCH):
        written = [torch.full((K, 3 * C), 0.5)[:, C * i : C * (i + 1)] for i in range(3)]
        out = Gradients(written[0], written[1] if has_bias else None)
        of = Norm(weight, norm_bias if has_bias else None, 1e-5, out, accumulate=has_bias)
        joining = Joining(site, bias if joins else None, written[2] if joins else None)
        if not ops.joins_bias:
            joining = Joining(site)
        added = branch if ops.joins_bias else branch + bias.unsqueeze(1)
        stream, normed, saved = ops.add_norm(
            x if ops is TRITON else x.clone(),
            added if joins else None,
            joining,
            of,
            torch.float32,
        )
        stream = stream.clone()
        grad = before.clone() if joins else None
        dtype = torch.float32 if joins else None
        grads = ops.add_norm_backward(grad, grad_out.clone(), saved, joining, of, dtype)
        if joins and grads[1] is not None and not ops.joins_bias:
            ops.column_sums(grads[1], written[2], accumulate=has_bias)
        found.append((stream, normed, *(part for part in grads if part is not None), *written))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("gated", [False, True], ids=["gelu", "swiglu"])
@SIZES
def test_activation(K: int, B: int, T: int, C: int, gated: bool) -> None:
    R = B * T
    inner, grad = 3 * randn(K, R, 2 * C if gated else C), randn(K, R, C)
    (bias,) = parts(K, C, 1)
    found = []
    for ops in (TRITON, PYTORCH):
        given, written = (None if gated else bias), torch.full((K, C), 0.5)
        if not ops.activates_bias and given is not None:
            out, saved = ops.activate(
                inner + given.unsqueeze(1), None, gated=gated, use_fused=False
            )
        else:
            out, saved = ops.activate(inner, given, gated=gated, use_fused=False)
        into = None if gated else written
        back = ops.activate_backward(grad.clone(), saved, into, gated=gated, accumulate=True)
        if not ops.activates_bias and not gated:
            ops.column_sums(back, written, accumulate=True)
        found.append((out, back, written))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


@SIZES
def test_column_sums(K: int, B: int, T: int, C: int) -> None:
    grad, found = randn(K, B * T, C), []
    for ops in (TRITON, PYTORCH):
        row = torch.full((K, C + 3), 0.5)
        ops.column_sums(grad, row[:, :C], accumulate=True)
        found.append(row)
    close(*found)


@pytest.mark.parametrize(
    ("K", "R", "words", "padded"),
    [
        (2, 5, 50, 64),
        pytest.param(1, 1, 1, 64, marks=SLOW),
        pytest.param(3, 7, 9000, 9024, marks=SLOW),
        *(pytest.param(K, 10 - K, 8 * K + 1, 128, marks=SLOW) for K in range(4, 10)),
    ],
)
def test_cross_entropy(K: int, R: int, words: int, padded: int) -> None:
    logits, weight = 3 * randn(K, R, padded), torch.rand(K)
    targets = torch.randint(0, words, (K, 2 * R))[:, :R]  # not contiguous
    targets[:, 0] = -100
    found = []
    for ops in (TRITON, PYTORCH):
        loss = ops.cross_entropy(logits.clone(), targets, vocab_size=words, weight=weight)
        scale = 1.0 if loss.scale is None else loss.scale
        found.append((loss.total, loss.gradient * scale))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@SIZES
def test_embedding(K: int, B: int, T: int, C: int, rate: float) -> None:
    table, site = randn(11, C), None
    places = [torch.randint(0, 11, (B * T, K)).T for _ in range(2)]  # not contiguous
    if rate:
        site = dropout_of(K * B, 1, rate).residual(0, T, C)
    for chosen in (places, places[:1]):
        close(TRITON.embed(chosen, table, site)[0], PYTORCH.embed(chosen, table, site)[0])


# Models, rows, inputs, outputs, rank.
@pytest.mark.parametrize(
    ("K", "R", "C", "F", "rank"),
    [
        (2, 19, 24, 40, 8),
        pytest.param(1, 1, 3, 5, 1, marks=SLOW),
        pytest.param(9, 2, 16, 130, 16, marks=SLOW),
        pytest.param(3, 70, 130, 65, 64, marks=SLOW),
        pytest.param(2, 33, 96, 300, 13, marks=SLOW),
        *(pytest.param(K, 11 - K, 4 * K + 1, 50 - K, K, marks=SLOW) for K in range(4, 9)),
    ],
)
@pytest.mark.parametrize("kind", ["contiguous", "strided"])
def test_adapters(K: int, R: int, C: int, F: int, rank: int, kind: str) -> None:
    """Forward and backward; weights that lie turned, adapters in a row, rows that are not whole."""
    strided = kind == "strided"
    weight = (randn(F, C).T if strided else randn(C, F)).unsqueeze(0)
    row = randn(K, rank * (C + F) + 3)[:, 3:]
    down = row[:, : rank * C].view(K, C, rank)
    up = row[:, rank * C :].view(K, rank, F)
    x = randn(K, R, 2 * C)[..., :C] if strided else randn(K, R, C)
    grad = randn(R, K, F).transpose(0, 1) if strided else randn(K, R, F)
    bias = None if strided else randn(1, F)
    layer = Linear(weight, bias, LowRank(down, up), torch.rand(K))
    found = []
    for ops in (TRITON, PYTORCH):
        into = torch.full((K, rank * (C + F) + 3), 0.5)
        out = Gradients(
            into[:, : rank * C].view(K, C, rank),
            into[:, rank * C : rank * (C + F)].view(K, rank, F),
        )
        given = ops.project_backward(grad, x, layer, out, accumulate=strided, with_bias=False)
        found.append((ops.project(x, layer), ops.project(x, layer, with_bias=False), given, into))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


def test_an_adapter_of_a_model_does_not_depend_on_the_others() -> None:
    x, weight, row, scale = randn(5, 37, 24), randn(1, 24, 40), randn(5, 8 * 64), torch.rand(5)

    def one(models: slice) -> tuple[Tensor, ...]:
        own = row[models]
        adapter = LowRank(own[:, : 8 * 24].view(-1, 24, 8), own[:, 8 * 24 :].view(-1, 8, 40))
        layer = Linear(weight, None, adapter, scale[models])
        out = Gradients(*(torch.zeros_like(part) for part in adapter.tensors()))
        y = TRITON.project(x[models], layer)
        given = TRITON.project_backward(
            y.clone(), x[models], layer, out, accumulate=False, with_bias=False
        )
        assert out.second is not None
        return y, given, out.first, out.second

    for alone, together in zip(one(slice(3, 4)), one(slice(0, 5)), strict=True):
        assert torch.equal(alone[0], together[3])


GPT2 = GPT2Config(
    vocab_size=60, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
)
LLAMA = LlamaConfig(
    vocab_size=60, hidden_size=32, intermediate_size=20, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "recompute", "num", "rank"),
    [
        (GPT2, False, 2, 0),
        pytest.param(GPT2, True, 9, 0, marks=SLOW),
        pytest.param(GPT2, False, 3, 8, marks=SLOW),
        pytest.param(LLAMA, False, 1, 0, marks=SLOW),
        pytest.param(LLAMA, True, 3, 0, marks=SLOW),
    ],
    ids=["gpt2", "gpt2-recomputed", "gpt2-lora", "llama", "llama-recomputed"],
)
def test_a_step_is_that_of_the_reference(
    config: GPT2Config | LlamaConfig, recompute: bool, num: int, rank: int
) -> None:
    """Losses, gradients, moments, weights; micro-steps that add; a slot that takes no step."""
    layout, B, T = layout_of(shape_of(config)), 1, 9
    shape, base = layout.shape, 0.1 * randn(layout.size)
    start = base if not rank else 0.1 * randn(row_size(layout, rank))
    num_decayed = len(start) if rank else layout.num_decayed
    ids = torch.randint(0, shape.vocab_size, (num, B, T))
    targets = ids.roll(-1, -1)
    targets[:, :, -2:] = -100
    sites = num_sites(shape.num_layers, shape.num_heads)
    place = np.arange(num * B)
    thresholds, scales = thresholds_and_scales(np.full((3, num * B), 0.2))
    recipe = RecipeConfig(weight_decay=0.1, max_grad_norm=0.5)

    def learn(ops: Ops) -> tuple[Tensor, ...]:
        slots = build_slots(layout, base, num, torch.float32, rank=rank)
        for slot in range(num):
            slots.load(slot, start * (1 + 0.1 * slot))
        micro, step = micro_inputs(num, B, T, sites, CPU), step_inputs(num, B, CPU)
        positions = torch.cat([torch.arange(4), torch.arange(1), torch.arange(4)])
        micro.tensors["tokens"].copy_(torch.stack([ids, targets, positions.expand_as(ids)]))
        micro.tensors["keys"].copy_(site_keys(place, place, place, sites))
        step.tensors["thresholds"].copy_(thresholds)
        step.tensors["scales"].copy_(scales)
        controls = step.tensors["controls"]
        settings = (1 / T, 1, T, 1e-2, 0.5, 0.1, recipe.beta1, recipe.beta2, recipe.adam_eps)
        controls.copy_(torch.tensor(settings).unsqueeze(1).expand_as(controls))
        if num > 1:
            controls[1, -1] = 0  # idle
        kind = MicroKind(False, True, T, True, False, recompute, ops)
        add_micro_batch(slots, micro.tensors, step.tensors, kind)
        add_micro_batch(slots, micro.tensors, step.tensors, replace(kind, accumulate=True))
        grads = slots.grads.rows.clone()
        constants = None if ops.adamw else constants_of([recipe] * num, CPU)
        for _ in range(2):
            finish_step(slots, step, constants, num_decayed=num_decayed, ops=ops)
            slots.grads.rows.copy_(grads)  # PyTorch's clips them in place
        return slots.totals.float(), grads, slots.adam.first, slots.stack.rows - start

    *ours, our_change = learn(TRITON)
    *theirs, their_change = learn(PYTORCH)
    for mine, other in zip(ours, theirs, strict=True):
        close(mine, other)
    # Where a gradient is nothing but rounding, AdamW makes a whole step of it.
    assert float((our_change - their_change).norm() / their_change.norm()) < 1e-3


@pytest.mark.slow
def test_adapters_in_transformers_modules_are_those_of_the_reference() -> None:
    tuning = GroupedTuning(LlamaForCausalLM(LLAMA).eval(), 8, CPU, bos_id=1, block_size=9)
    layout, weight = tuning.layout, torch.rand(3)
    rows, ids = 0.1 * randn(3, layout.size), torch.randint(2, 60, (3, 1, 9))
    blocks, found = (ids, ids.roll(-1, 2), torch.arange(9).expand_as(ids)), []
    for ops in (TRITON, PYTORCH):
        base = GroupedBase(tuning, CPU, torch.float32, ops)
        stack = build_adapter_stack(layout, rows, torch.float32)
        grads = build_adapter_stack(layout, torch.zeros_like(rows), torch.float32)
        with base.grouped.computing(stack, grads):
            losses = base.losses(blocks, weight, None, ops)
            losses.backward(weight)
        found.append((losses.detach(), grads.rows))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(
    ("K", "N"),
    [
        (3, 1030),
        pytest.param(9, 2500, marks=SLOW),
        *(pytest.param(K, 1 + 173 * K, marks=SLOW) for K in (1, 2, 4, 5, 6, 7, 8)),
    ],
)
def test_adamw(K: int, N: int) -> None:
    """Every slot by its own settings; clipped, idle, and with a gradient that is not finite."""
    rows, grads = randn(K, N), randn(K, N)
    grads[1:2, 7] = torch.nan
    recipes = [RecipeConfig(beta1=0.9 - 0.1 * slot, weight_decay=0.1 * slot) for slot in range(K)]
    controls = Controls(
        *torch.tensor([
            (1.0, float(slot != 2), 5.0, 1e-2 * (slot + 1), 0.5 if slot % 2 else float("inf"),
             recipe.weight_decay, recipe.beta1, recipe.beta2, recipe.adam_eps)
            for slot, recipe in enumerate(recipes)
        ]).T.contiguous()
    )  # fmt: skip
    mine, theirs = rows.clone(), rows.clone()
    copies = mine.bfloat16()
    ours, other = build_adam(mine), build_adam(theirs)
    constants = constants_of(recipes, CPU)
    for _ in range(3):
        taken = adam_step_by_rows(
            mine, copies, grads.clone(), ours, controls, TRITON, num_decayed=500
        )
        expected = adam_step(theirs, grads.clone(), other, controls, constants, num_decayed=500)
        assert torch.equal(taken[1], expected[1])
    assert torch.equal(mine[1:3], rows[1:3])
    for one, reference in ((mine, theirs), (ours.first, other.first), (ours.second, other.second)):
        close(one, reference)
    # The interpreter cuts what a GPU rounds.
    torch.testing.assert_close(copies.float(), mine, rtol=2**-7, atol=0)


def test_what_is_left_out_is_the_reference() -> None:
    none, x = TritonOps(()), randn(1, 2, 4)
    of = Norm(torch.ones(1, 4), torch.zeros(1, 4), 1e-5)
    site = ScaledSite(*dropout_of(1, 1, 0.5).residual(1, 2, 4).__dict__.values())
    ours = none.add_norm(x.clone(), x, Joining(site), of, torch.float32)[1]
    theirs = PYTORCH.add_norm(x.clone(), x, Joining(site), of, torch.float32)[1]
    assert torch.equal(ours, theirs)
    assert [TritonOps(names).hashes for names in ((), ("attention",), TRITON.names)] == [0, 0, 1]
    kinds = none.flash, none.adamw, none.joins_bias, none.activates_bias, none.overwrites_logits
    assert not any(kinds)
