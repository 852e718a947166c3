"""Attention of K models in Triton: flash style, documents apart, dropout hashed in the kernel.

Queries, keys and values are read where they lie side by side, and their gradients are written so.
Nothing of T x T is ever in memory. With S = s Q K^T, P = softmax(S) and a mask M of zeros and
scales: O = (P M) V, D = rowsum(dO O), dV = (P M)^T dO, dS = P (M (dO V^T) - D), dQ = s dS K,
dK = s dS^T Q.
"""

import triton
import triton.language as tl


@triton.jit
def kept(rows, first, key_1, key_2, threshold, NUM: tl.constexpr, COLUMNS: tl.constexpr):
    """Whether places are kept: rows (m, 1), NUM columns from the even `first`; see `keep_mask`."""
    pairs = (first // 2 + tl.arange(0, NUM // 2))[None, :]
    bits = (rows * COLUMNS + pairs) ^ key_1
    bits = bits * -1640531535
    bits = (bits ^ (bits >> 15)) * -2048144777
    bits = bits ^ key_2
    bits = (bits ^ (bits >> 13)) * -1028477379
    halves = tl.interleave((bits << 16) >> 16, bits >> 16)  # the lower one lies first
    return halves >= threshold


@triton.jit
def _key(keys, thresholds, scales, block, head, num_blocks, DROPS: tl.constexpr):
    """The two keys, threshold and scale of a block's head."""
    if DROPS:
        at = (head * num_blocks + block) * 2
        threshold = tl.load(thresholds + block).to(tl.int32)
        return tl.load(keys + at), tl.load(keys + at + 1), threshold, tl.load(scales + block)
    else:
        return 0, 0, 0, 1.0


@triton.jit
def _begin(starts, block, rows, T, BM: tl.constexpr, BN: tl.constexpr, APART: tl.constexpr):
    """The first key that each row sees, and the tile of keys where the first of all lies."""
    if APART:
        # T for rows beyond the last, or the first tile of all would be that of key 0.
        begin = tl.load(starts + block * T + rows, mask=rows < T, other=T)
        return begin, tl.min(begin) // BN * BN
    else:
        return tl.zeros([BM], tl.int32), 0


@triton.jit
def _tile(base, rows, columns, stride, T, D: tl.constexpr):
    """Load (rows, columns) of a matrix (T, D)."""
    inside = (rows < T)[:, None] & (columns < D)[None, :]
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _put(base, rows, columns, stride, T, values, D: tl.constexpr):
    inside = (rows < T)[:, None] & (columns < D)[None, :]
    at = base + rows[:, None] * stride + columns[None, :]
    tl.store(at, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def attention_kernel(
    out, sums, qkv, starts, keys, thresholds, scales, num_blocks, T, scale,
    H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, APART: tl.constexpr, DROPS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Queries BM of a block's head against the keys they see."""
    first, block, head = tl.program_id(0) * BM, tl.program_id(1) // H, tl.program_id(1) % H
    rows, wide = first + tl.arange(0, BM), tl.arange(0, BD)
    stride: tl.constexpr = (H + 2 * KV) * D
    base = qkv + block.to(tl.int64) * T * stride
    q = _tile(base + head * D, rows, wide, stride, T, D)
    k_base = base + (H + head // (H // KV)) * D
    begin, low = _begin(starts, block, rows, T, BM, BN, APART)
    key_1, key_2, threshold, scaled = _key(keys, thresholds, scales, block, head, num_blocks, DROPS)
    # Softmax as the keys come by: what was summed so far shrinks whenever a larger score is met.
    # Powers of 2, as there is an instruction for them: 1.4427 is log2(e).
    most = tl.full([BM], -1e30, tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    for at in range(low, tl.minimum(first + BM, T), BN):
        columns = at + tl.arange(0, BN)
        k = _tile(k_base, columns, wide, stride, T, D)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
        seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= begin[:, None])
        new = tl.maximum(most, tl.max(tl.where(seen, scores, -1e30), 1))
        # Selected after the difference: a row that has seen no key yet has -1e30 for its largest.
        weights = tl.exp2(tl.where(seen, scores - new[:, None], -1e30))
        shrink = tl.exp2(most - new)
        total = total * shrink + tl.sum(weights, 1)
        most = new
        if DROPS:
            keep = kept(rows[:, None], at, key_1, key_2, threshold, BN, COLUMNS)
            weights = tl.where(keep, weights, 0.0)
        v = _tile(k_base + KV * D, columns, wide, stride, T, D)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
    total = tl.where(total > 0, total, 1.0)  # of rows beyond the last
    place = out + (block.to(tl.int64) * T * H + head) * D
    _put(place, rows, wide, H * D, T, acc * (scaled / total)[:, None], D)
    tl.store(sums + (block * H + head) * T + rows, most + tl.log2(total), mask=rows < T)


@triton.jit
def _weights(
    q, k, rows, columns, begin, sums, scale, T, PRECISION: tl.constexpr
):  # fmt: skip
    """The attention weights (rows, columns) again, from the logarithms of their sums."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
    seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= begin[:, None])
    seen = seen & (rows < T)[:, None]
    return tl.exp2(tl.where(seen, scores - sums[:, None], -1e30))


@triton.jit
def attention_queries_kernel(
    grad_qkv, deltas, grad_out, out, sums, qkv, starts, keys, thresholds, scales, num_blocks, T,
    scale, H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, APART: tl.constexpr, DROPS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of BM queries, and the D of their rows."""
    first, block, head = tl.program_id(0) * BM, tl.program_id(1) // H, tl.program_id(1) % H
    rows, wide = first + tl.arange(0, BM), tl.arange(0, BD)
    stride: tl.constexpr = (H + 2 * KV) * D
    base = block.to(tl.int64) * T * stride
    at_out = (block.to(tl.int64) * T * H + head) * D
    q = _tile(qkv + base + head * D, rows, wide, stride, T, D)
    grad = _tile(grad_out + at_out, rows, wide, H * D, T, D)
    of_out = _tile(out + at_out, rows, wide, H * D, T, D)
    # rowsum(dO O) is rowsum(P dP), so no second pass over the keys is needed (FlashAttention 2).
    delta = tl.sum(grad.to(tl.float32) * of_out.to(tl.float32), 1)
    at_row = (block * H + head) * T + rows
    tl.store(deltas + at_row, delta, mask=rows < T)
    of_row = tl.load(sums + at_row, mask=rows < T, other=0.0)
    begin, low = _begin(starts, block, rows, T, BM, BN, APART)
    key_1, key_2, threshold, scaled = _key(keys, thresholds, scales, block, head, num_blocks, DROPS)
    k_base = qkv + base + (H + head // (H // KV)) * D
    acc = tl.zeros([BM, BD], tl.float32)
    for at in range(low, tl.minimum(first + BM, T), BN):
        columns = at + tl.arange(0, BN)
        k = _tile(k_base, columns, wide, stride, T, D)
        v = _tile(k_base + KV * D, columns, wide, stride, T, D)
        weights = _weights(q, k, rows, columns, begin, of_row, scale, T, PRECISION)
        slope = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        if DROPS:
            keep = kept(rows[:, None], at, key_1, key_2, threshold, BN, COLUMNS)
            slope = tl.where(keep, slope * scaled, 0.0)
        slope = weights * (slope - delta[:, None])
        acc = tl.dot(slope.to(k.dtype), k, acc, input_precision=PRECISION)
    _put(grad_qkv + base + head * D, rows, wide, stride, T, acc * scale, D)


@triton.jit
def attention_keys_kernel(
    grad_qkv, deltas, grad_out, sums, qkv, starts, ends, keys, thresholds, scales, num_blocks, T,
    scale, H: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, APART: tl.constexpr, DROPS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of BN keys and values, summed over the query heads that share them."""
    first, block, shared = tl.program_id(0) * BN, tl.program_id(1) // KV, tl.program_id(1) % KV
    columns, wide = first + tl.arange(0, BN), tl.arange(0, BD)
    stride: tl.constexpr = (H + 2 * KV) * D
    base = block.to(tl.int64) * T * stride
    k = _tile(qkv + base + (H + shared) * D, columns, wide, stride, T, D)
    v = _tile(qkv + base + (H + KV + shared) * D, columns, wide, stride, T, D)
    high = T
    if APART:
        high = tl.max(tl.load(ends + block * T + columns, mask=columns < T, other=0))
    grad_k, grad_v = tl.zeros([BN, BD], tl.float32), tl.zeros([BN, BD], tl.float32)
    for head in range(shared * (H // KV), (shared + 1) * (H // KV)):
        key_1, key_2, threshold, scaled = _key(
            keys, thresholds, scales, block, head, num_blocks, DROPS
        )
        at_out = (block.to(tl.int64) * T * H + head) * D
        for at in range(first // BM * BM, high, BM):
            rows = at + tl.arange(0, BM)
            begin, _ = _begin(starts, block, rows, T, BM, BN, APART)
            q = _tile(qkv + base + head * D, rows, wide, stride, T, D)
            grad = _tile(grad_out + at_out, rows, wide, H * D, T, D)
            at_row = (block * H + head) * T + rows
            of_row = tl.load(sums + at_row, mask=rows < T, other=0.0)
            delta = tl.load(deltas + at_row, mask=rows < T, other=0.0)
            weights = _weights(q, k, rows, columns, begin, of_row, scale, T, PRECISION)
            slope = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
            dropped = weights
            if DROPS:
                keep = kept(rows[:, None], first, key_1, key_2, threshold, BN, COLUMNS)
                dropped = tl.where(keep, weights * scaled, 0.0)
                slope = tl.where(keep, slope * scaled, 0.0)
            slope = weights * (slope - delta[:, None])
            grad_v = tl.dot(
                tl.trans(dropped.to(grad.dtype)), grad, grad_v, input_precision=PRECISION
            )
            grad_k = tl.dot(tl.trans(slope.to(q.dtype)), q, grad_k, input_precision=PRECISION)
    _put(grad_qkv + base + (H + shared) * D, columns, wide, stride, T, grad_k * scale, D)
    _put(grad_qkv + base + (H + KV + shared) * D, columns, wide, stride, T, grad_v, D)
