"""What lies between the products in Triton, one pass over memory each; see `reference`.

Tensors are (K, R, C): K models with R tokens each. Sums over the tokens of a model are taken in two
steps of fixed order, so that they do not depend on K: by RUN tokens, then over the runs.
"""

import triton
import triton.language as tl

from huggingtweets.kernels.triton_attention import kept

RUN = 32
"""Tokens a program sums over."""
# 2 sqrt(2 / pi), and the same times 0.044715; see `reference`.
_GELU_1: tl.constexpr = tl.constexpr(1.5957691216057308)
_GELU_3: tl.constexpr = tl.constexpr(0.044715 * 1.5957691216057308)


@triton.jit
def _scaled_mask(
    keys, thresholds, scales, row, T, DROPS: tl.constexpr, BC: tl.constexpr, COLUMNS: tl.constexpr
):
    """What the elements of a row of the stream are multiplied by, (BC,)."""
    if DROPS:
        block = row // T
        threshold = tl.load(thresholds + block).to(tl.int32)
        place = tl.zeros([1, 1], tl.int32) + row % T
        key_1, key_2 = tl.load(keys + 2 * block), tl.load(keys + 2 * block + 1)
        keep = kept(place, 0, key_1, key_2, threshold, BC, COLUMNS)
        return tl.where(tl.reshape(keep, [BC]), tl.load(scales + block), 0.0)
    else:
        return tl.full([BC], 1.0, tl.float32)


@triton.jit
def norm_kernel(
    out, out_x, means, inverses, x, branch, bias, keys, thresholds, scales, weight, norm_bias,
    R, T, bias_stride, weight_stride, norm_bias_stride, eps, C: tl.constexpr, BC: tl.constexpr,
    JOINS: tl.constexpr, HAS_BIAS: tl.constexpr, DROPS: tl.constexpr, CENTRES: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Add a branch with its bias and dropout to a row of the stream, and norm the sum."""
    row = tl.program_id(0)
    model, at = row // R, row.to(tl.int64) * C
    columns = tl.arange(0, BC)
    inside = columns < C
    value = tl.load(x + at + columns, mask=inside, other=0.0).to(tl.float32)
    if JOINS:
        added = tl.load(branch + at + columns, mask=inside, other=0.0).to(tl.float32)
        if HAS_BIAS:
            added += tl.load(bias + model * bias_stride + columns, mask=inside, other=0.0)
        value += added * _scaled_mask(keys, thresholds, scales, row, T, DROPS, BC, COLUMNS)
        tl.store(out_x + at + columns, value.to(out_x.dtype.element_ty), mask=inside)
    if CENTRES:
        mean = tl.sum(value, 0) / C
        value = tl.where(inside, value - mean, 0.0)
        tl.store(means + row, mean)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / C + eps)
    tl.store(inverses + row, inverse)
    value *= inverse
    value *= tl.load(weight + model * weight_stride + columns, mask=inside, other=0.0)
    if CENTRES:
        value += tl.load(norm_bias + model * norm_bias_stride + columns, mask=inside, other=0.0)
    tl.store(out + at + columns, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_backward_kernel(
    grad, grad_branch, partial, grad_out, x, means, inverses, keys, thresholds, scales, weight,
    R, T, weight_stride, C: tl.constexpr, BC: tl.constexpr, RUN: tl.constexpr, ADDS: tl.constexpr,
    JOINS: tl.constexpr, DROPS: tl.constexpr, CENTRES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of RUN rows: of the stream, of the branch, and sums for weight and two biases."""
    run, model = tl.program_id(0), tl.program_id(1)
    columns = tl.arange(0, BC)
    inside = columns < C
    factor = tl.load(weight + model * weight_stride + columns, mask=inside, other=0.0)
    of_weight, of_bias = tl.zeros([BC], tl.float32), tl.zeros([BC], tl.float32)
    of_branch = tl.zeros([BC], tl.float32)
    for one in range(run * RUN, tl.minimum(run * RUN + RUN, R)):
        row = model * R + one
        at = row.to(tl.int64) * C + columns
        inverse = tl.load(inverses + row)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if CENTRES:
            value = tl.where(inside, value - tl.load(means + row), 0.0)
        value *= inverse
        given = tl.load(grad_out + at, mask=inside, other=0.0).to(tl.float32)
        of_weight += given * value
        of_bias += given
        given *= factor
        found = given - value * (tl.sum(given * value, 0) / C)
        if CENTRES:
            found -= tl.sum(given, 0) / C
        found *= inverse
        if ADDS:
            found += tl.load(grad + at, mask=inside, other=0.0)
        tl.store(grad + at, found.to(grad.dtype.element_ty), mask=inside)
        if JOINS:
            found *= _scaled_mask(keys, thresholds, scales, row, T, DROPS, BC, COLUMNS)
            tl.store(grad_branch + at, found.to(grad_branch.dtype.element_ty), mask=inside)
            of_branch += found
    into = partial + (model * tl.num_programs(0) + run).to(tl.int64) * 3 * C + columns
    tl.store(into, of_weight, mask=inside)
    tl.store(into + C, of_bias, mask=inside)
    tl.store(into + 2 * C, of_branch, mask=inside)


@triton.jit
def sum_runs_kernel(
    first, second, third, partial, runs, first_stride, second_stride, third_stride,
    C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, NUM: tl.constexpr, HAS_1: tl.constexpr,
    HAS_2: tl.constexpr, HAS_3: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    """Sum the runs' (runs, NUM, C) of a model into up to three places."""
    model, which = tl.program_id(1), tl.program_id(2)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = columns < C
    acc = tl.zeros([BC], tl.float32)
    base = partial + model.to(tl.int64) * runs * NUM * C + which * C
    for at in range(0, runs, BR):
        rows = at + tl.arange(0, BR)
        mask = (rows < runs)[:, None] & inside[None, :]
        acc += tl.sum(
            tl.load(base + rows[:, None] * (NUM * C) + columns[None, :], mask=mask, other=0.0), 0
        )
    if HAS_1 and which == 0:
        _add_to(first + model * first_stride + columns, acc, inside, ADDS)
    if HAS_2 and which == 1:
        _add_to(second + model * second_stride + columns, acc, inside, ADDS)
    if HAS_3 and which == 2:
        _add_to(third + model * third_stride + columns, acc, inside, ADDS)


@triton.jit
def _add_to(at, values, inside, ADDS: tl.constexpr):
    if ADDS:
        values += tl.load(at, mask=inside, other=0.0)
    tl.store(at, values, mask=inside)


@triton.jit
def column_sums_kernel(
    out, grad, R, out_stride, C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr,
    ADDS: tl.constexpr,
):  # fmt: skip
    """Sum the rows of a model: the gradient of a bias."""
    model = tl.program_id(1)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = columns < C
    base = grad + model.to(tl.int64) * R * C
    acc = tl.zeros([BC], tl.float32)
    for at in range(0, R, BR):
        rows = at + tl.arange(0, BR)
        mask = (rows < R)[:, None] & inside[None, :]
        values = tl.load(base + rows[:, None] * C + columns[None, :], mask=mask, other=0.0)
        acc += tl.sum(values.to(tl.float32), 0)
    _add_to(out + model * out_stride + columns, acc, inside, ADDS)


@triton.jit
def _gate(x):
    """The s with GELU(x) = x s; tanh(z) = 2 sigmoid(2 z) - 1."""
    return tl.sigmoid(x * (_GELU_1 + _GELU_3 * x * x))


@triton.jit
def activation_kernel(
    out, inner, bias, R, bias_stride, F: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    HAS_BIAS: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """GELU by tanh of (R, F) with its bias, or SwiGLU of gate and up side by side."""
    model = tl.program_id(2)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    rows = tl.program_id(1) * BR + tl.arange(0, BR)
    mask = (rows < R)[:, None] & (columns < F)[None, :]
    at = (model.to(tl.int64) * R + rows[:, None]) * F + columns[None, :]
    if GATED:
        wide = at + (model.to(tl.int64) * R + rows[:, None]) * F
        gate = tl.load(inner + wide, mask=mask, other=0.0).to(tl.float32)
        up = tl.load(inner + wide + F, mask=mask, other=0.0).to(tl.float32)
        value = gate * tl.sigmoid(gate) * up
    else:
        x = tl.load(inner + at, mask=mask, other=0.0).to(tl.float32)
        if HAS_BIAS:
            x += tl.load(bias + model * bias_stride + columns, mask=columns < F, other=0.0)[None, :]
        value = x * _gate(x)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def activation_backward_kernel(
    grad_inner, partial, grad, inner, bias, R, bias_stride, F: tl.constexpr, BR: tl.constexpr,
    BC: tl.constexpr, HAS_BIAS: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """The gradient of what `activation_kernel` was given, and a run's sums for the bias."""
    run, model = tl.program_id(1), tl.program_id(2)
    columns = tl.program_id(0) * BC + tl.arange(0, BC)
    rows = run * BR + tl.arange(0, BR)
    mask = (rows < R)[:, None] & (columns < F)[None, :]
    at = (model.to(tl.int64) * R + rows[:, None]) * F + columns[None, :]
    given = tl.load(grad + at, mask=mask, other=0.0).to(tl.float32)
    kind = grad_inner.dtype.element_ty
    if GATED:
        wide = at + (model.to(tl.int64) * R + rows[:, None]) * F
        gate = tl.load(inner + wide, mask=mask, other=0.0).to(tl.float32)
        up = tl.load(inner + wide + F, mask=mask, other=0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        of_gate = given * up * share * (1 + gate * (1 - share))
        tl.store(grad_inner + wide, of_gate.to(kind), mask=mask)
        tl.store(grad_inner + wide + F, (given * gate * share).to(kind), mask=mask)
    else:
        x = tl.load(inner + at, mask=mask, other=0.0).to(tl.float32)
        if HAS_BIAS:
            x += tl.load(bias + model * bias_stride + columns, mask=columns < F, other=0.0)[None, :]
        share = _gate(x)
        slope = x * (_GELU_1 + 3 * _GELU_3 * x * x)
        found = given * share * (1 + slope * (1 - share))
        tl.store(grad_inner + at, found.to(kind), mask=mask)
        if HAS_BIAS:
            into = partial + (model * tl.num_programs(1) + run).to(tl.int64) * F + columns
            tl.store(into, tl.sum(found, 0), mask=columns < F)


@triton.jit
def embed_kernel(
    out, table, first, second, keys, thresholds, scales, T, C: tl.constexpr, BC: tl.constexpr,
    TWO: tl.constexpr, DROPS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A row of the table, or the sum of two, with dropout."""
    row, columns = tl.program_id(0), tl.arange(0, BC)
    inside = columns < C
    value = tl.load(table + tl.load(first + row) * C + columns, mask=inside, other=0.0)
    if TWO:
        value += tl.load(table + tl.load(second + row) * C + columns, mask=inside, other=0.0)
    value *= _scaled_mask(keys, thresholds, scales, row, T, DROPS, BC, COLUMNS)
    tl.store(out + row.to(tl.int64) * C + columns, value, mask=inside)


@triton.jit
def drop_kernel(
    out, x, keys, thresholds, scales, T, C: tl.constexpr, BC: tl.constexpr, COLUMNS: tl.constexpr
):
    """A row with elements dropped and the others scaled."""
    row = tl.program_id(0)
    at = row.to(tl.int64) * C + tl.arange(0, BC)
    inside = tl.arange(0, BC) < C
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value *= _scaled_mask(keys, thresholds, scales, row, T, True, BC, COLUMNS)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def loss_kernel(
    nats, logits, targets, weight, R, target_stride, row_stride, VOCAB: tl.constexpr,
    PADDED: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """A row's cross-entropy; its logits become their gradient, in place.

    The second reading comes out of the L2 cache: 32 warps leave room for two rows per
    multiprocessor, which is 26 MB of GPT-2's logits on an H100.
    """
    row = tl.program_id(0)
    model = row // R
    target = tl.load(targets + model * target_stride + row % R)
    base = logits + row.to(tl.int64) * row_stride
    most = tl.full([BV], -1e30, tl.float32)
    total = tl.zeros([BV], tl.float32)
    for at in range(0, VOCAB, BV):
        columns = at + tl.arange(0, BV)
        values = tl.load(base + columns, mask=columns < VOCAB, other=-1e30).to(tl.float32)
        new = tl.maximum(most, values)
        total = total * tl.exp(most - new) + tl.where(columns < VOCAB, tl.exp(values - new), 0.0)
        most = new
    # Each of BV lanes has had its own largest value until now.
    peak = tl.max(most, 0)
    sums = tl.log(tl.sum(total * tl.exp(most - peak), 0)) + peak
    counts = target >= 0
    of_target = tl.load(base + tl.maximum(target, 0)).to(tl.float32)
    tl.store(nats + row, tl.where(counts, sums - of_target, 0.0))
    factor = tl.where(counts, tl.load(weight + model), 0.0)
    tl.debug_barrier()  # the target's logit is read before it is written over
    for at in range(0, PADDED, BV):
        columns = at + tl.arange(0, BV)
        inside = columns < VOCAB
        values = tl.load(base + columns, mask=inside, other=-1e30).to(tl.float32)
        share = tl.where(inside, tl.exp(values - sums), 0.0)
        found = tl.where(columns == target, share - 1, share) * factor
        tl.store(base + columns, found.to(base.dtype.element_ty), mask=columns < PADDED)


@triton.jit
def adamw_kernel(
    rows, copies, grads, firsts, seconds, controls, N, NUM_DECAYED, K, B: tl.constexpr,
    COPIES: tl.constexpr,
):  # fmt: skip
    """B values of a slot: clip, decay, moments, weights, and their copy for the products.

    `controls` is (9, K): whether the step is taken, divisor of the gradient, lr, weight decay, both
    betas, 1 - beta1^t, the root of 1 - beta2^t, and eps.
    """
    slot = tl.program_id(1)
    at = tl.program_id(0) * B + tl.arange(0, B)
    inside = at < N
    place = slot.to(tl.int64) * N + at
    if tl.load(controls + slot) > 0:
        divisor = tl.load(controls + K + slot)
        lr = tl.load(controls + 2 * K + slot)
        decay = tl.load(controls + 3 * K + slot)
        beta_1, beta_2 = tl.load(controls + 4 * K + slot), tl.load(controls + 5 * K + slot)
        left_1, left_2 = tl.load(controls + 6 * K + slot), tl.load(controls + 7 * K + slot)
        eps = tl.load(controls + 8 * K + slot)
        grad = tl.load(grads + place, mask=inside, other=0.0) / divisor
        value = tl.load(rows + place, mask=inside, other=0.0)
        value *= tl.where(at < NUM_DECAYED, 1 - lr * decay, 1.0)
        first = tl.load(firsts + place, mask=inside, other=0.0)
        first += (grad - first) * (1 - beta_1)
        second = tl.load(seconds + place, mask=inside, other=0.0)
        second = second * beta_2 + grad * grad * (1 - beta_2)
        value -= lr / left_1 * first / (tl.sqrt(second) / left_2 + eps)
        tl.store(rows + place, value, mask=inside)
        tl.store(firsts + place, first, mask=inside)
        tl.store(seconds + place, second, mask=inside)
        if COPIES:
            tl.store(copies + place, value.to(copies.dtype.element_ty), mask=inside)
