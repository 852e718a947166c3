"""Every backward pass, gradients of parameters included, by finite differences in fp64.

And the C++ beside the reference: through whole models in tests/models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.ops.attention import Heads, attention, view_of
from huggingtweets.ops.dropout import Dropout, num_sites, site_keys, thresholds_and_scales
from huggingtweets.ops.embedding import embedding
from huggingtweets.ops.head import Head, normed_loss
from huggingtweets.ops.linear import Gradients, Linear, LowRank
from huggingtweets.ops.norm import norm
from huggingtweets.ops.reference import PYTORCH, Norm
from huggingtweets.ops.residual import Activation, Branch, Projection, Stream, branch_out
from huggingtweets.ops.rotary import angles_of, rotary

torch.set_num_threads(1)

K, R, C, OUT, RANK = 2, 6, 4, 4, 2
UNIT = Norm(torch.ones(1, C, dtype=torch.float64), None, 1e-5)
"""A norm without gradients of its own."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


class _Written(torch.autograd.Function):
    """Makes an operator that writes its parameters' gradients into one that returns them."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], num: int, *tensors: Tensor) -> Any:
        inputs = [t.detach().clone().requires_grad_() for t in tensors[:num]]
        parameters = [t.detach().clone() for t in tensors[num:]]
        ctx.written = [torch.full_like(t, 0.0) for t in parameters]
        with torch.enable_grad():
            # No leaf, as inside a model: operators may change the stream in place.
            out = run([t * 1 for t in inputs], parameters, ctx.written)
        ctx.inputs, ctx.out = inputs, out if isinstance(out, tuple) else (out,)
        found = tuple(t.detach().clone() for t in ctx.out)
        return found if isinstance(out, tuple) else found[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        own = [grad.clone() for grad in grads]
        found = torch.autograd.grad(ctx.out, ctx.inputs, own, retain_graph=True)
        return None, None, *found, *(t.clone() for t in ctx.written)


def check(
    run: Callable[[list[Tensor], list[Tensor], list[Tensor]], Any],
    inputs: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
) -> None:
    """Hold gradients of inputs and parameters against finite differences."""

    def function(*tensors: Tensor) -> Any:
        return _Written.apply(run, len(inputs), *tensors)

    assert torch.autograd.gradcheck(function, (*inputs, *parameters), atol=1e-6)


def layer_of(parameters: list[Tensor], written: list[Tensor]) -> tuple[Linear, Gradients]:
    bias = parameters[1] if len(parameters) > 1 else None
    return Linear(parameters[0], bias), Gradients(*written[:2], *[None] * (2 - len(written[:2])))


ACTIVATIONS = pytest.mark.parametrize("gated", [None, False, True], ids=["none", "gelu", "swiglu"])


def activation_of(gated: bool | None) -> Activation | None:
    return None if gated is None else Activation(gated, use_fused=False)


@ACTIVATIONS
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
def test_linear(has_bias: bool, gated: bool | None) -> None:
    def run(x: list[Tensor], parameters: list[Tensor], written: list[Tensor]) -> Tensor:
        layer, out = layer_of(parameters, written)
        to = Projection(layer, out, False, activation_of(gated))
        return branch_out(Stream(x[0].clone()), UNIT, to, PYTORCH)[1]

    check(run, [randn(K, R, C)], [randn(K, C, OUT), *([randn(K, OUT)] if has_bias else [])])


@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no-bias"])
def test_linear_with_adapters_on_a_frozen_base(has_bias: bool) -> None:
    weight, bias = randn(1, C, OUT).detach(), randn(1, OUT).detach() if has_bias else None
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)

    def run(x: list[Tensor], parameters: list[Tensor], written: list[Tensor]) -> Tensor:
        layer = Linear(weight, bias, LowRank(*parameters), scale)
        to = Projection(layer, Gradients(*written), False)
        return branch_out(Stream(x[0].clone()), UNIT, to, PYTORCH)[1]

    check(run, [randn(K, R, C)], [randn(K, C, RANK), randn(K, RANK, OUT)])


@pytest.mark.parametrize("has_bias", [True, False], ids=["layer", "rms"])
def test_norm(has_bias: bool) -> None:
    def run(x: list[Tensor], parameters: list[Tensor], written: list[Tensor]) -> Tensor:
        weight, bias = (*parameters, None)[:2]
        out = Gradients(*(*written, None)[:2])  # type: ignore[arg-type]
        return norm(x[0], Norm(weight, bias, 1e-5, out), torch.float64, PYTORCH)

    parameters = [randn(K, C), *([randn(K, C)] if has_bias else [])]
    check(run, [randn(K, R, C)], parameters)
    x, weight = randn(K, R, C), parameters[0]
    ours = norm(x, Norm(weight, *([*parameters[1:], None][:1]), 1e-5), torch.float64, PYTORCH)
    for slot in range(K):
        if has_bias:
            theirs = F.layer_norm(x[slot], (C,), weight[slot], parameters[1][slot])
        else:
            theirs = F.rms_norm(x[slot], (C,), weight[slot], 1e-5)
        torch.testing.assert_close(ours[slot], theirs)


@pytest.mark.parametrize("has_bias", [True, False], ids=["layer-norm", "rms-norm"])
@pytest.mark.parametrize("is_followed", [True, False], ids=["by-a-norm", "alone"])
def test_a_branch_leaves_the_stream_and_comes_back(has_bias: bool, is_followed: bool) -> None:
    """As in a model, where the stream's gradient is added to in place."""
    site = dropout_of(0.3).residual(1, R, C)

    def run(x: list[Tensor], parameters: list[Tensor], written: list[Tensor]) -> Tensor:
        of = Norm(parameters[0], parameters[1] if has_bias else None, 1e-5)
        out = Gradients(written[0], written[1] if has_bias else None)
        of = Norm(of.weight, of.bias, of.eps, out)
        first, second = 2 if has_bias else 1, 4 if has_bias else 3
        there, at = layer_of(parameters[first : first + 2], written[first : first + 2])
        back, to = layer_of(parameters[second : second + 1], written[second : second + 1])
        stream, h = branch_out(
            Stream(x[0].clone()), of, Projection(there, at, is_followed), PYTORCH
        )
        branch = Branch(Projection(back, to, False), site)
        again = Stream(stream.x, torch.tanh(h), branch)
        if not is_followed:
            return again.settled(PYTORCH)
        # Its backward pass comes first.
        stream, h = branch_out(again, UNIT, Projection(there, at, False), PYTORCH)
        return stream.x.sum() + h.sum()

    norms = [randn(K, C), *([randn(K, C)] if has_bias else [])]
    check(run, [randn(K, R, C)], [*norms, randn(K, C, OUT), randn(K, OUT), randn(K, OUT, C)])


def dropout_of(rate: float) -> Dropout:
    thresholds, scales = thresholds_and_scales(np.full((3, K), rate))
    keys = site_keys(np.arange(K), np.zeros(K, np.int64), np.zeros(K, np.int64), num_sites(2, 4))
    return Dropout(keys, thresholds, scales)


def test_activations() -> None:
    x = randn(K, R, 2 * C).detach()
    gate, up = x.chunk(2, -1)
    for gated, theirs in ((False, F.gelu(x, approximate="tanh")), (True, F.silu(gate) * up)):
        ours, _ = PYTORCH.activate(x, None, gated=gated, use_fused=False)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_embedding_adds_to_the_rows_looked_up(rate: float) -> None:
    places = [torch.tensor([[0, 1, 1], [2, 1, 3]]), torch.tensor([[4, 4, 5], [6, 4, 4]])]
    table = randn(7, C)
    out = torch.ones(7, C, dtype=torch.float64)
    site = dropout_of(rate).residual(0, 3, C) if rate else None
    x = embedding(places, table.detach(), out, site, PYTORCH)
    grad = torch.randn_like(x)
    expected = F.embedding(places[0], table) + F.embedding(places[1], table)
    if site is not None:
        expected = expected * site.scaled_mask()
    torch.testing.assert_close(x, expected)
    x.backward(grad)
    expected.backward(grad)
    assert table.grad is not None
    torch.testing.assert_close(out, table.grad + 1)


@pytest.mark.parametrize("num_kv", [4, 2])
@pytest.mark.parametrize("case", ["joined", "isolated", "sliding", "both"])
@pytest.mark.parametrize(
    ("rate", "use_fused"), [(0.0, False), (0.3, False), (0.0, True)],
    ids=["windows", "dropout", "fused"],
)  # fmt: skip
def test_attention(case: str, num_kv: int, rate: float, use_fused: bool) -> None:
    width, num, T = 2, 4, 6
    positions = torch.tensor([0, 1, 0, 1, 2, 3] if case in ("isolated", "both") else range(T))
    sliding = 3 if case in ("sliding", "both") else None
    view = view_of(
        positions.expand(K, 1, T),
        isolate=case in ("isolated", "both"),
        reach=4,
        width=3,
        use_fused=use_fused,
        sliding=sliding,
    )
    heads, dropout = Heads(num, num_kv, 0.6, 1), dropout_of(rate) if rate else None
    qkv = randn(K, T, (num + 2 * num_kv) * width)
    check(lambda x, *_: attention(x[0], view, heads, dropout, PYTORCH), [qkv])
    if rate:
        return
    place = torch.arange(T)
    starts = place - positions
    if sliding:
        starts = starts.maximum(place - sliding + 1)
    allowed = (place <= place[:, None]) & (place >= starts[:, None])
    q, k, v = qkv.view(K, T, -1, width).transpose(1, 2).split([num, num_kv, num_kv], 1)
    plain = F.scaled_dot_product_attention(q, k, v, allowed, scale=0.6, enable_gqa=True)
    ours = attention(qkv, view, heads, None, PYTORCH)
    torch.testing.assert_close(ours, plain.transpose(1, 2).reshape(K, T, -1))


def test_rotary() -> None:
    positions = torch.arange(5).expand(K, 5)
    angles = angles_of(
        positions, torch.tensor([1.0, 0.1]).double(), factor=1.2, dtype=torch.float64
    )
    x = randn(K, 5, 3, 4)
    check(lambda x, *_: rotary(x[0], angles, 2), [x])
    turned = rotary(x, angles, 2)
    assert torch.equal(turned[:, :, 2], x[:, :, 2])
    torch.testing.assert_close(turned[:, :, :2].norm(dim=-1), 1.2 * x[:, :, :2].norm(dim=-1))


@pytest.mark.parametrize("has_bias", [True, False], ids=["layer-norm", "rms-norm"])
def test_normed_loss(has_bias: bool) -> None:
    targets = torch.tensor([[0, 4, -100, 2, 1, 1], [3, 3, 0, -100, -100, 2]])
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    x, table = randn(K, R, C), randn(K, 8, C)  # three rows of the table are padding
    parameters = [randn(K, C), *([randn(K, C)] if has_bias else [])]
    written = [torch.full_like(part, 7.0).detach() for part in (table, *parameters)]
    out = Gradients(written[1], written[2] if has_bias else None)
    bias = parameters[1].detach() if has_bias else None
    loss = normed_loss(
        Stream(x),
        Norm(parameters[0].detach(), bias, 1e-5, out),
        Head(table.detach(), 5, written[0], accumulate=False),
        targets,
        weight,
        PYTORCH,
    )
    loss.backward(weight)
    ours = [x.grad, *written]
    x.grad = None
    plain = []
    for slot in range(K):
        if has_bias:
            hidden = F.layer_norm(x[slot], (C,), parameters[0][slot], parameters[1][slot])
        else:
            hidden = F.rms_norm(x[slot], (C,), parameters[0][slot], 1e-5)
        plain.append(F.cross_entropy(hidden @ table[slot, :5].T, targets[slot], reduction="sum"))
    torch.testing.assert_close(loss, torch.stack(plain))
    (torch.stack(plain) * weight).sum().backward()
    for mine, theirs in zip(ours, (x, table, *parameters), strict=True):
        torch.testing.assert_close(mine, theirs.grad)
