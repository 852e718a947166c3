"""The kernels of `triton_attention`, `_rows` and `_lora` as operators of PyTorch.

What counts a step without a GPU runs them on tensors that are shapes only: it sees one call with
its tensors, and nothing is launched.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from huggingtweets.kernels import triton_attention, triton_lora, triton_rows
from huggingtweets.kernels.triton_rows import RUN
from huggingtweets.ops.dropout import MAX_COLUMNS
from huggingtweets.upstream import fake_tensor

Launcher = Callable[..., Any]

_FAKE = fake_tensor()


def _operator(*mutates: str) -> Callable[[Launcher], Launcher]:
    """Make an operator of a function that launches kernels, and changes the arguments named."""

    def make(launch: Launcher) -> Launcher:
        name = f"huggingtweets::{launch.__name__}"
        made = torch.library.custom_op(name, launch, mutates_args=mutates)
        made.register_fake(launch)
        return made

    return make


def _on(kernel: Any, *grid: int) -> Launcher:
    """Return what launches a kernel over a grid, but not on tensors that are shapes only."""

    def launch(*arguments: Any, **options: Any) -> None:
        if _FAKE not in map(type, arguments):
            kernel[grid](*arguments, **options)

    return launch


def _power(size: int, least: int = 16) -> int:
    # Tiles of Triton are powers of 2, and `tl.dot` takes none below 16.
    return max(least, 1 << (size - 1).bit_length())


def _warps(width: int) -> int:
    # Eight values of a row for each thread of a warp; 16 warps are what a row of 4,096 fills.
    return min(16, max(1, _power(width) // 256))


def precision(x: Tensor) -> str:
    """Return how Triton's products of fp32 are computed: as PyTorch's are."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def tiles(kernel: str, dtype: torch.dtype, head_width: int, T: int) -> tuple[int, int, int]:
    """Return queries and keys of a tile and warps: the largest that compile without spills."""
    wide, half = head_width > 64, dtype != torch.float32
    side = 64 if half else 32
    rows = 16 if wide and not half else side
    queries, keys, warps = {
        "attention": (128 if half and not wide else rows, side, 8 if half or wide else 4),
        "attention_queries": (rows, side, 8 if wide else 4),
        "attention_keys": (rows, 32, 8 if wide else 4),
    }[kernel]
    return min(queries, _power(T)), min(keys, _power(T)), warps


def _flash(kernel: str, qkv: Tensor, num: int, num_kv: int, apart: bool, drops: bool) -> Any:
    n, T, width = qkv.shape
    head_width = width // (num + 2 * num_kv)
    queries, keys, warps = tiles(kernel, qkv.dtype, head_width, T)
    by_keys = kernel == "attention_keys"
    size = triton.cdiv(T, keys if by_keys else queries)
    function = getattr(triton_attention, f"{kernel}_kernel")
    launch = _on(function, size, n * (num_kv if by_keys else num))
    return lambda *tensors: launch(
        *tensors[:-1], n, T, tensors[-1], H=num, KV=num_kv, D=head_width, BD=_power(head_width),
        BM=queries, BN=keys, APART=apart, DROPS=drops, COLUMNS=MAX_COLUMNS,
        PRECISION=precision(qkv), num_warps=warps, num_stages=2,
    )  # fmt: skip


@_operator()
def attention(
    qkv: Tensor, starts: Tensor | None, keys: Tensor | None, thresholds: Tensor | None,
    scales: Tensor | None, num: int, num_kv: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return attention's output (n, T, num * width) and the logarithms of its sums (n, num, T)."""
    n, T, width = qkv.shape
    out = qkv.new_empty(n, T, width // (num + 2 * num_kv) * num)
    sums = qkv.new_empty(n, num, T, dtype=torch.float32)
    launch = _flash("attention", qkv, num, num_kv, starts is not None, keys is not None)
    launch(out, sums, qkv, starts, keys, thresholds, scales, scale)
    return out, sums


@_operator()
def attention_backward(
    grad: Tensor, out: Tensor, sums: Tensor, qkv: Tensor, starts: Tensor | None,
    ends: Tensor | None, keys: Tensor | None, thresholds: Tensor | None, scales: Tensor | None,
    num: int, num_kv: int, scale: float,
) -> Tensor:  # fmt: skip
    """Return the gradient of qkv."""
    grad_qkv, deltas = torch.empty_like(qkv), torch.empty_like(sums)
    kind = qkv, num, num_kv, starts is not None, keys is not None
    random = keys, thresholds, scales, scale
    _flash("attention_queries", *kind)(grad_qkv, deltas, grad, out, sums, qkv, starts, *random)
    _flash("attention_keys", *kind)(grad_qkv, deltas, grad, sums, qkv, starts, ends, *random)
    return grad_qkv


def _stride(tensor: Tensor | None) -> int:
    """From one model's values to the next one's; all models may share them."""
    if tensor is None:
        return 0
    assert tensor.stride(-1) == 1
    return tensor.stride(0) if len(tensor) > 1 else 0


@_operator()
def add_norm(
    x: Tensor, branch: Tensor | None, bias: Tensor | None, keys: Tensor | None,
    thresholds: Tensor | None, scales: Tensor | None, block_size: int, weight: Tensor,
    norm_bias: Tensor | None, eps: float, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the stream after a branch (empty without one), its norm, means, inverse deviations."""
    K, R, C = x.shape
    out, out_x = torch.empty_like(x, dtype=dtype), x.new_empty(0 if branch is None else x.shape)
    inverses = x.new_empty(K, R, dtype=torch.float32)
    means = inverses.new_empty(0 if norm_bias is None else (K, R))
    _on(triton_rows.norm_kernel, K * R)(
        out, out_x, means, inverses, x, branch, bias, keys, thresholds, scales, weight, norm_bias,
        R, block_size, _stride(bias), _stride(weight), _stride(norm_bias), eps, C=C, BC=_power(C),
        JOINS=branch is not None, HAS_BIAS=bias is not None, DROPS=keys is not None,
        CENTRES=norm_bias is not None, COLUMNS=MAX_COLUMNS, num_warps=_warps(C),
    )  # fmt: skip
    return out_x, out, means, inverses


@_operator("grad")
def add_norm_backward(
    grad: Tensor, grad_out: Tensor, x: Tensor, means: Tensor, inverses: Tensor, weight: Tensor,
    keys: Tensor | None, thresholds: Tensor | None, scales: Tensor | None, block_size: int,
    adds: bool, dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Write the stream's gradient, or add to it; return the branch's, and sums of the runs."""
    K, R, C = grad.shape
    partial = grad.new_empty(K, triton.cdiv(R, RUN), 3, C, dtype=torch.float32)
    grad_branch = grad.new_empty(0 if dtype is None else grad.shape, dtype=dtype)
    _on(triton_rows.norm_backward_kernel, partial.shape[1], K)(
        grad, grad_branch, partial, grad_out, x, means, inverses, keys, thresholds, scales, weight,
        R, block_size, _stride(weight), C=C, BC=_power(C), RUN=RUN, ADDS=adds,
        JOINS=dtype is not None, DROPS=keys is not None, CENTRES=means.numel() > 0,
        COLUMNS=MAX_COLUMNS, num_warps=_warps(C),
    )  # fmt: skip
    return grad_branch, partial


@_operator("first", "second", "third")
def sum_runs(
    partial: Tensor, first: Tensor | None, second: Tensor | None, third: Tensor | None,
    accumulate: bool,
) -> None:  # fmt: skip
    """Sum (K, runs, num, C) into up to three (K, C)."""
    K, runs, num, C = partial.shape
    _on(triton_rows.sum_runs_kernel, triton.cdiv(C, 128), K, num)(
        first, second, third, partial, runs, _stride(first), _stride(second), _stride(third), C=C,
        BC=128, BR=32, NUM=num, HAS_1=first is not None, HAS_2=second is not None,
        HAS_3=third is not None, ADDS=accumulate,
    )  # fmt: skip


@_operator("out")
def column_sums(grad: Tensor, out: Tensor, accumulate: bool) -> None:
    """Sum grad (K, R, C) over R."""
    K, R, C = grad.shape
    _on(triton_rows.column_sums_kernel, triton.cdiv(C, 64), K)(
        out, grad, R, _stride(out), C=C,
        BC=64, BR=64, ADDS=accumulate,
    )  # fmt: skip


@_operator()
def embed(
    table: Tensor, first: Tensor, second: Tensor | None, keys: Tensor | None,
    thresholds: Tensor | None, scales: Tensor | None, block_size: int,
) -> Tensor:  # fmt: skip
    """Return rows `first` (K, R) of a table (n, C), or their sums with others, with dropout."""
    C = table.shape[1]
    out = table.new_empty(*first.shape, C)
    _on(triton_rows.embed_kernel, first.numel())(
        out, table, first, second, keys, thresholds, scales, block_size, C=C, BC=_power(C),
        TWO=second is not None, DROPS=keys is not None, COLUMNS=MAX_COLUMNS, num_warps=_warps(C),
    )  # fmt: skip
    return out


@_operator()
def drop(
    x: Tensor, keys: Tensor, thresholds: Tensor, scales: Tensor, block_size: int, dtype: torch.dtype
) -> Tensor:
    """Return x (K, R, C) with elements dropped and the others scaled."""
    out = torch.empty_like(x, dtype=dtype)
    C = x.shape[-1]
    _on(triton_rows.drop_kernel, x.numel() // C)(
        out, x, keys, thresholds, scales, block_size, C=C, BC=_power(C), COLUMNS=MAX_COLUMNS,
        num_warps=_warps(C),
    )  # fmt: skip
    return out


def _by_tile(out: Tensor) -> tuple[int, int, int]:
    K, R, F = out.shape
    return triton.cdiv(F, 128), triton.cdiv(R, RUN), K


@_operator()
def activation(inner: Tensor, bias: Tensor | None, gated: bool) -> Tensor:
    """Return GELU of inner (K, R, F) and its bias, or SwiGLU of (K, R, 2 F)."""
    out = inner.new_empty(*inner.shape[:2], inner.shape[2] // (2 if gated else 1))
    _on(triton_rows.activation_kernel, *_by_tile(out))(
        out, inner, bias, inner.shape[1], _stride(bias), F=out.shape[2], BR=RUN, BC=128,
        HAS_BIAS=bias is not None, GATED=gated,
    )  # fmt: skip
    return out


@_operator()
def activation_backward(
    grad: Tensor, inner: Tensor, bias: Tensor | None, gated: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradient of inner, and sums of the runs (K, runs, 1, F) for the bias."""
    K, R, F = grad.shape
    grad_inner, sums = torch.empty_like(inner), (K, triton.cdiv(R, RUN), 1, F)
    partial = grad.new_empty(0 if bias is None else sums, dtype=torch.float32)
    _on(triton_rows.activation_backward_kernel, *_by_tile(grad))(
        grad_inner, partial, grad, inner, bias, inner.shape[1], _stride(bias), F=grad.shape[2],
        BR=RUN, BC=128, HAS_BIAS=bias is not None, GATED=gated,
    )  # fmt: skip
    return grad_inner, partial


@_operator("logits")
def loss(logits: Tensor, targets: Tensor, weight: Tensor, vocab_size: int) -> Tensor:
    """Return nats (K, R); the logits become their gradients."""
    K, R, padded = logits.shape
    nats = targets.new_empty(K, R, dtype=torch.float32)
    assert logits.is_contiguous()
    assert targets.stride(1) == 1
    _on(triton_rows.loss_kernel, K * R)(
        nats, logits, targets, weight, R, targets.stride(0), padded, VOCAB=vocab_size,
        PADDED=padded, BV=min(8192, _power(vocab_size)), num_warps=32,
    )  # fmt: skip
    return nats


@_operator("rows", "copies", "firsts", "seconds")
def adamw(
    rows: Tensor, copies: Tensor | None, grads: Tensor, firsts: Tensor, seconds: Tensor,
    controls: Tensor, num_decayed: int,
) -> None:  # fmt: skip
    """Take an AdamW step in each of K rows (K, N); see `triton_rows.adamw_kernel`."""
    K, N = rows.shape
    for tensor in (rows, grads, firsts, seconds, controls):
        assert tensor.is_contiguous()
    _on(triton_rows.adamw_kernel, triton.cdiv(N, 1024), K)(
        rows, copies, grads, firsts, seconds, controls, N, num_decayed, K, B=1024,
        COPIES=copies is not None,
    )  # fmt: skip


@_operator()
def lora(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """Return x W + b + s (x D) U for x (K, R, in), and x D.

    `weight` is (in, out), `down` (K, in, rank), `up` (K, rank, out), each in any order.
    """
    K, R, C = x.shape
    F, rank = weight.shape[1], down.shape[2]
    assert x.is_contiguous()
    out, low = x.new_empty(K, R, F), x.new_empty(K, R, rank)
    BM, BN, BK, warps, stages = lora_tiles(x.dtype, R, rank)
    _on(triton_lora.lora_kernel, triton.cdiv(F, BN), triton.cdiv(R, BM), K)(
        out, low, x, weight, bias, down, up, scales, R, *weight.stride(), *down.stride(),
        *up.stride(), C=C, F=F, RANK=rank, BM=BM, BN=BN, BK=BK, BR=_power(rank),
        HAS_BIAS=bias is not None, PRECISION=precision(x), num_warps=warps,
        num_stages=stages,
    )  # fmt: skip
    return out, low


def lora_tiles(dtype: torch.dtype, R: int, rank: int) -> tuple[int, int, int, int, int]:
    """Return rows, outputs and inputs of a tile, warps, and tiles on their way.

    The largest of which nothing spills; up to rank 16 an A100 has room for more.
    """
    is_thin = rank <= 16
    if dtype == torch.float32:
        return min(64 if is_thin else 32, _power(R)), 64, 32, 4, 3
    return min(128, _power(R)), 128, 64 if is_thin else 32, 8, 3


@_operator("grad")
def lora_sums(grad: Tensor, low: Tensor, wide: Tensor, scales: Tensor, accumulate: bool) -> None:
    """Write s wide^T low into grad (K, C, rank), in any order, for (K, R, C) and (K, R, rank)."""
    K, R, C = wide.shape
    rank, half = low.shape[2], wide.dtype != torch.float32
    assert wide.is_contiguous()
    assert low.is_contiguous()
    _on(triton_lora.lora_sums_kernel, triton.cdiv(C, 64), K)(
        grad, low, wide, scales, R, *grad.stride(), C=C, RANK=rank, BC=64, BR=_power(rank),
        BT=64 if half else 32, ADDS=accumulate, PRECISION=precision(wide),
    )  # fmt: skip
