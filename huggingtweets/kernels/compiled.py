"""The C++ of compiled.cpp: built once per machine, for models of which a CPU trains many.

Without a compiler, or where it fails, everything is done by PyTorch's operators.
"""

import ctypes
import hashlib
import logging
import platform
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from huggingtweets.kernels.compiler import find_compiler
from huggingtweets.ops.dropout import ScaledSite, Site
from huggingtweets.ops.reference import Loss, Norm, Ops
from huggingtweets.ops.saved import Saved
from huggingtweets.storage.cache import cached_folder

logger = logging.getLogger(__name__)

# No strict aliasing, as masks are drawn as int32 and read as int16. Without errno and traps of
# floating point, square roots and selections become vector instructions. Not -ffast-math: NaN and
# infinity must stay what they are, as a slot that diverged is told by them.
_FLAGS: tuple[str, ...] = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp-simd")
_FLAGS += ("-fno-strict-aliasing", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
_NATIVE = (("-march=native", "-mprefer-vector-width=512"), ("-mcpu=native",), ())
"""Whatever of it the compiler knows first: x86, ARM, neither."""
_TIMEOUT_S = 120
"""It takes a few seconds; a compiler that hangs must not hold up a job for good."""

_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, list[type]] = {
    "gelu": [_P] * 2 + [_I],
    "gelu_backward": [_P] * 3 + [_I],
    "norm": [_P] * 6 + [_I] * 5 + [_F],
    "norm_backward": [_P] * 7 + [_I] * 8,
    "column_sums": [_P] * 2 + [_I] * 5,
    "drop": [_P] * 5 + [_I] * 3,
    "add": [_P] * 2 + [_I],
    "add_dropped": [_P] * 5 + [_I] * 3,
    "softmax": [_P] * 6 + [_I] * 8,
    "softmax_backward": [_P] * 5 + [_I] * 5,
    "cross_entropy": [_P] * 5 + [_I] * 4,
    "attend_rows": [_P] * 6 + [_I] * 4 + [_F],
    "draw_rows": [_P] * 8 + [_I] * 4,
    "score_rows": [_P] * 4 + [_I] * 3,
}
"""In the order of the tables in compiled.cpp."""
_lock = threading.Lock()


def compiled_ops() -> Ops | None:
    """Return the C++, built if need be; None where it cannot be. The reason is logged once."""
    with _lock:  # `cache` alone would have every engine's thread compile at first
        return _compiled_ops()


@cache
def _compiled_ops() -> Ops | None:
    try:
        return CompiledOps(ctypes.CDLL(str(_build())))
    except (OSError, subprocess.SubprocessError) as err:
        logger.info("no compiled kernels, PyTorch's operators instead: %s", err)
        return None


def _build() -> Path:
    """Return the library for this source, compiler and CPU, made first where it is not cached.

    Any number of processes may call this at once.

    Raises:
        FileNotFoundError: there is no compiler.
        OSError: the cache cannot be written.
        SubprocessError: it does not compile.
    """
    source = Path(__file__).with_suffix(".cpp")
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (CXX, c++, g++ or clang++)")
    parts = (source.read_text(encoding="utf-8"), compiler, _FLAGS, _NATIVE, _cpu())
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def compile_to(path: Path) -> None:
        for native in _NATIVE:
            done = subprocess.run(
                [compiler, *_FLAGS, *native, str(source), "-o", str(path)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
            )
            if done.returncode == 0:
                return
        reason = done.stderr.strip().partition("\n")[0]
        raise subprocess.SubprocessError(f"{compiler} failed: {reason}")

    name = "kernels.so"
    return cached_folder(f"kernels-{digest}", lambda folder: compile_to(folder / name)) / name


def _cpu() -> str:
    """Say what instructions there are: a cache may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _at(tensor: Tensor | None) -> int | None:
    """Return the address of a contiguous tensor."""
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def _by_model(tensor: Tensor | None) -> tuple[int | None, int]:
    """Return the address of (K or 1, C), and from one model's C values to the next one's."""
    if tensor is None:
        return None, 0
    assert tensor.stride(1) == 1
    return tensor.data_ptr(), tensor.stride(0) if len(tensor) > 1 else 0


class CompiledOps(Ops):
    """`Ops` in C++, for tensors on the CPU, on the calling thread alone."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Find the functions in a library."""
        self._functions = {
            torch.float32: _functions(library, "kernels_fp32"),
            torch.bfloat16: _functions(library, "kernels_bf16"),
        }

    def call(self, dtype: torch.dtype, name: str, *arguments: int | float | None) -> None:
        """Call a function of the library, by its name, for tensors of a precision."""
        self._functions[dtype][name](*arguments)

    def norm(self, x: Tensor, of: Norm, dtype: torch.dtype) -> tuple[Tensor, Saved]:
        """See `Ops`; an RMS norm is left to PyTorch."""
        if of.bias is None:
            return super().norm(x, of, dtype)
        normalised, inverse = torch.empty_like(x), x.new_empty(x.shape[:2])
        out = torch.empty_like(x, dtype=dtype)
        at_weight, weight_stride = _by_model(of.weight)
        at_bias, bias_stride = _by_model(of.bias)
        self.call(
            dtype, "norm", _at(normalised), _at(inverse), _at(out), _at(x), at_weight, at_bias,
            *x.shape, weight_stride, bias_stride, of.eps,
        )  # fmt: skip
        return out, (normalised, inverse)

    def norm_backward(
        self, grad_out: Tensor, saved: Saved, of: Norm, grad: Tensor | None = None
    ) -> Tensor:
        """See `Ops`."""
        if of.bias is None:
            return super().norm_backward(grad_out, saved, of, grad)
        normalised, inverse = saved
        result = torch.empty_like(normalised) if grad is None else grad
        at_weight, weight_stride = _by_model(of.weight)
        first, second = (of.out.first, of.out.second) if of.out else (None, None)
        at_first, first_stride = _by_model(first)
        at_second, second_stride = _by_model(second)
        self.call(
            grad_out.dtype, "norm_backward", _at(result), at_first, at_second, _at(grad_out),
            _at(normalised), _at(inverse), at_weight, *result.shape, weight_stride, first_stride,
            second_stride, of.accumulate, grad is not None,
        )  # fmt: skip
        return result

    def gelu(self, inner: Tensor, *, use_fused: bool) -> tuple[Tensor, Saved]:
        """See `Ops`; `use_fused` makes no difference."""
        out = torch.empty_like(inner)
        self.call(inner.dtype, "gelu", _at(out), _at(inner), inner.numel())
        return out, (inner,)

    def gelu_backward(self, grad: Tensor, saved: Saved) -> Tensor:
        """See `Ops`."""
        (inner,) = saved
        out = torch.empty_like(grad)
        self.call(grad.dtype, "gelu_backward", _at(out), _at(grad), _at(inner), grad.numel())
        return out

    def noise(self, site: ScaledSite | None, x: Tensor) -> Saved:
        """Return the site itself: its mask is made again wherever it is used."""
        return site

    def drop(self, x: Tensor, noise: Saved, dtype: torch.dtype) -> Tensor:
        """See `Ops`."""
        if noise is None:
            return x.to(dtype)
        out = torch.empty_like(x, dtype=dtype)
        self.call(dtype, "drop", _at(out), _at(x), *_parts(noise))
        return out

    def add_dropped(self, x: Tensor, branch: Tensor, noise: Saved) -> Tensor:
        """See `Ops`."""
        if noise is None:
            self.call(branch.dtype, "add", _at(x), _at(branch), x.numel())
        else:
            self.call(branch.dtype, "add_dropped", _at(x), _at(branch), *_parts(noise))
        return x

    def softmax(
        self, scores: Tensor, bias: Tensor, site: Site | None, *, num_heads: int
    ) -> tuple[Tensor, Saved]:
        """See `Ops`."""
        weights = torch.empty_like(scores)
        dropped = weights if site is None else torch.empty_like(scores)
        num, queries, keys = scores.shape
        num_biased = bias.shape[-1]
        self.call(
            scores.dtype, "softmax", _at(weights), _at(dropped), _at(scores), _at(bias),
            *_random(site), num // num_heads, num_heads, queries, keys, num_biased,
            queries * num_biased if len(bias) > 1 else 0, *_first(site),
        )  # fmt: skip
        return dropped, (weights, dropped, site)

    def softmax_backward(self, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        """See `Ops`."""
        weights, dropped, site = saved
        out = torch.empty_like(grad)
        self.call(
            grad.dtype, "softmax_backward", _at(out), _at(grad), _at(weights), *_random(site),
            *grad.shape, *_first(site),
        )  # fmt: skip
        return out, dropped

    def column_sums(self, grad: Tensor, out: Tensor, *, accumulate: bool) -> None:
        """See `Ops`."""
        at_out, stride = _by_model(out)
        self.call(grad.dtype, "column_sums", at_out, _at(grad), *grad.shape, stride, accumulate)

    def cross_entropy(
        self, logits: Tensor, targets: Tensor, *, vocab_size: int, weight: Tensor
    ) -> Loss:
        """See `Ops`."""
        loss = torch.empty(len(logits))
        scale = logits.new_empty(*targets.shape, 1, dtype=torch.float32)
        targets = targets.contiguous()  # kept here: the C++ sees an address only
        weight = weight.contiguous()
        self.call(
            logits.dtype, "cross_entropy", _at(logits), _at(targets), _at(weight), _at(loss),
            _at(scale), *logits.shape, vocab_size,
        )  # fmt: skip
        return Loss(loss, logits, scale)


def _functions(library: ctypes.CDLL, table: str) -> dict[str, Callable[..., None]]:
    """Return the functions of a table by name."""
    places = (ctypes.c_void_p * len(_SIGNATURES)).in_dll(library, table)
    return {
        name: ctypes.CFUNCTYPE(None, *types)(place)
        for (name, types), place in zip(_SIGNATURES.items(), places, strict=True)
    }


def _parts(site: ScaledSite) -> Sequence[int | None]:
    """Return what `drop` and `add_dropped` want of a site of the residual stream."""
    return (
        _at(site.keys), _at(site.thresholds), _at(site.scales),
        len(site.keys), len(site.rows), len(site.columns),
    )  # fmt: skip


def _random(site: Site | None) -> Sequence[int | None]:
    return (None, None) if site is None else (_at(site.keys), _at(site.thresholds))


def _first(site: Site | None) -> Sequence[int]:
    return (0, 0) if site is None else (site.rows.start, site.columns.start)
