"""The linear layers of K adapters (LoRA) on one frozen base, in Triton; see `linear`.

One kernel computes y = x W + b + s (x D) U: x is read where it lies, once a tile of outputs, and
nothing but y is written. With grad, W^T, U^T and D^T in their places it is the backward pass. The
other one sums the gradients of D and U over the rows of a model, in an order that does not depend
on K.
"""

import triton
import triton.language as tl


@triton.jit
def lora_kernel(
    out, low, x, weight, bias, down, up, scales, R, weight_in, weight_out, down_model, down_in,
    down_rank, up_model, up_rank, up_out, C: tl.constexpr, F: tl.constexpr, RANK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BM rows and BN outputs of a model, and x D once, as the gradients of U read it."""
    model = tl.program_id(2).to(tl.int64)
    rows, columns = tl.program_id(1) * BM + tl.arange(0, BM), tl.program_id(0) * BN
    columns, ranks = columns + tl.arange(0, BN), tl.arange(0, BR)
    row_inside, column_inside = (rows < R)[:, None], (columns < F)[None, :]
    rank_inside = (ranks < RANK)[None, :]
    at = (model * R + rows)[:, None]
    x += at * C
    down += model * down_model
    up += model * up_model
    acc, thin = tl.zeros([BM, BN], tl.float32), tl.zeros([BM, BR], tl.float32)
    for first in range(0, C, BK):
        wide = first + tl.arange(0, BK)
        inside = wide < C
        part = tl.load(x + wide[None, :], mask=row_inside & inside[None, :], other=0.0)
        w_at = weight + wide[:, None] * weight_in + columns[None, :] * weight_out
        w = tl.load(w_at, mask=inside[:, None] & column_inside, other=0.0)
        d_at = down + wide[:, None] * down_in + ranks[None, :] * down_rank
        d = tl.load(d_at, mask=inside[:, None] & rank_inside, other=0.0)
        acc = tl.dot(part, w, acc, input_precision=PRECISION)
        thin = tl.dot(part, d, thin, input_precision=PRECISION)
    if tl.program_id(0) == 0:
        whole = thin.to(low.dtype.element_ty)
        tl.store(low + at * RANK + ranks[None, :], whole, mask=row_inside & rank_inside)
    u_at = up + ranks[:, None] * up_rank + columns[None, :] * up_out
    u = tl.load(u_at, mask=(ranks < RANK)[:, None] & column_inside, other=0.0)
    thin *= tl.load(scales + model)
    acc = tl.dot(thin.to(u.dtype), u, acc, input_precision=PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias + columns, mask=columns < F, other=0.0)[None, :]
    whole = acc.to(out.dtype.element_ty)
    tl.store(out + at * F + columns[None, :], whole, mask=row_inside & column_inside)


@triton.jit
def lora_sums_kernel(
    grad, low, wide, scales, R, grad_model, grad_wide, grad_rank, C: tl.constexpr,
    RANK: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, BT: tl.constexpr, ADDS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BC rows of s wide^T low, (C, RANK) for (R, C) and (R, RANK), of a model."""
    model = tl.program_id(1).to(tl.int64)
    columns, ranks = tl.program_id(0) * BC + tl.arange(0, BC), tl.arange(0, BR)
    column_inside, rank_inside = columns < C, ranks < RANK
    acc = tl.zeros([BC, BR], tl.float32)
    for first in range(0, R, BT):
        rows = first + tl.arange(0, BT)
        inside, at = (rows < R)[:, None], (model * R + rows)[:, None]
        of_wide = tl.load(
            wide + at * C + columns[None, :], mask=inside & column_inside[None, :], other=0.0
        )
        of_low = tl.load(
            low + at * RANK + ranks[None, :], mask=inside & rank_inside[None, :], other=0.0
        )
        acc = tl.dot(tl.trans(of_wide), of_low, acc, input_precision=PRECISION)
    acc *= tl.load(scales + model)
    place = grad + model * grad_model + columns[:, None] * grad_wide + ranks[None, :] * grad_rank
    mask = column_inside[:, None] & rank_inside[None, :]
    if ADDS:
        acc += tl.load(place, mask=mask, other=0.0)
    tl.store(place, acc, mask=mask)
