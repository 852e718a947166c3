"""The C++ between the products equals PyTorch's operators, and is done without where it must be."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from huggingtweets.data.blocks import IGNORED
from huggingtweets.kernels import compiled
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.kernels.compiled import CompiledOps, _compiled_ops, compiled_ops
from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.linear import Gradients
from huggingtweets.ops.reference import PYTORCH, Norm, Ops

torch.set_num_threads(1)

CPU = torch.device("cpu")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
# Widths that fill no whole number of vectors, and more than one chunk.
SIZES = pytest.mark.parametrize(("rows", "width"), [(1, 3), (7, 48), (37, 130), (5, 1100)])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def ours() -> Ops:
    ops = compiled_ops()
    if ops is None:
        pytest.skip("no C++ compiler")
    assert isinstance(ops, CompiledOps)
    return ops


def close(ours: Tensor, theirs: Tensor) -> None:
    """To rounding: of the 8 bits of bf16 operators one by one lose more than one pass does."""
    assert ours.dtype == theirs.dtype
    tolerance = 2e-6 if ours.dtype == torch.float32 else 2e-2
    scale = float(theirs.float().abs().max()) + 1e-30
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * scale)


def site_of(num: int, rows: range, columns: range, rate: float = 0.3) -> ScaledSite:
    keys = torch.randint(-(2**31), 2**31 - 1, (num, 2), dtype=torch.int32)
    thresholds = torch.full((num,), int(rate * 65536) - 32768, dtype=torch.int16)
    return ScaledSite(keys, thresholds, rows, columns, torch.full((num,), 1 / (1 - rate)))


@SIZES
@DTYPES
def test_gelu(ours: Ops, dtype: torch.dtype, rows: int, width: int) -> None:
    x = (4 * torch.randn(3, rows, width)).to(dtype)
    grad = torch.randn(3, rows, width).to(dtype)
    results = []
    for ops in (ours, PYTORCH):
        out, saved = ops.gelu(x, use_fused=False)
        results.append((out, ops.gelu_backward(grad.clone(), saved)))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


def test_gelu_of_what_is_large(ours: Ops) -> None:
    x = torch.tensor([[[-1e30, -200.0, -30.0, -9.0, 0.0, 9.0, 30.0, 200.0, 1e30]]])
    out, saved = ours.gelu(x, use_fused=False)
    expected = torch.nn.functional.gelu(x.double(), approximate="tanh").float()
    # GELU is some -1e-30 or less there, and at the least that fp32 holds times -1e30.
    torch.testing.assert_close(out[..., 1:], expected[..., 1:], rtol=1e-6, atol=1e-12)
    assert ours.gelu_backward(torch.ones_like(x), saved)[..., 1:-1].isfinite().all()


@pytest.mark.parametrize("is_shared", [False, True], ids=["own", "shared"])
@SIZES
@DTYPES
def test_norm(ours: Ops, dtype: torch.dtype, rows: int, width: int, is_shared: bool) -> None:
    x, grad_out = 3 * torch.randn(3, rows, width) + 1, torch.randn(3, rows, width).to(dtype)
    # Parts of longer rows, as in a stack.
    values = torch.randn(1 if is_shared else 3, 2 * width + 5)
    weight, bias = values[:, :width], values[:, width : 2 * width]
    before = torch.randn(3, rows, width)
    results = []
    for ops in (ours, PYTORCH):
        of = Norm(weight, bias, 1e-5)
        out, saved = ops.norm(x, of, dtype)
        found = torch.full((3, 2 * width + 5), 0.5)
        into = None if is_shared else Gradients(found[:, :width], found[:, width : 2 * width])
        alone = ops.norm_backward(grad_out, saved, replace(of, out=into))
        first = found.clone()
        adding = replace(of, out=into, accumulate=True)
        added = ops.norm_backward(grad_out, saved, adding, before.clone())
        results.append((out, alone, added, first, found))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


@SIZES
@DTYPES
def test_column_sums(ours: Ops, dtype: torch.dtype, rows: int, width: int) -> None:
    grad = torch.randn(3, rows, width).to(dtype)
    results = []
    for ops in (ours, PYTORCH):
        found = torch.full((3, width + 3), 0.5)
        ops.column_sums(grad, found[:, :width], accumulate=False)
        first = found.clone()
        ops.column_sums(grad, found[:, :width], accumulate=True)
        results.append((first, found))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)


@SIZES
@DTYPES
def test_dropout(ours: Ops, dtype: torch.dtype, rows: int, width: int) -> None:
    """Masks are the same to the bit."""
    site = site_of(6, range(rows), range(width))  # three models with two blocks each
    x, branch = torch.randn(3, 2 * rows, width), torch.randn(3, 2 * rows, width).to(dtype)
    results = []
    for ops in (ours, PYTORCH):
        noise = ops.noise(site, x)
        stream = x.clone()
        ops.add_dropped(stream, branch, noise)
        results.append((ops.drop(x, noise, dtype), stream))
    assert torch.equal(results[0][0], results[1][0])
    close(results[0][1], results[1][1])
    untouched = results[0][1] == x
    assert torch.equal(untouched, results[1][1] == x)
    assert rows * width < 100 or 0.2 < untouched.float().mean() < 0.4


@DTYPES
def test_without_dropout(ours: Ops, dtype: torch.dtype) -> None:
    x, branch = torch.randn(2, 5, 8), torch.randn(2, 5, 8).to(dtype)
    noise = ours.noise(None, x)
    assert torch.equal(ours.drop(x, noise, dtype), x.to(dtype))
    stream = x.clone()
    ours.add_dropped(stream, branch, noise)
    assert torch.equal(stream, x + branch.float())


@pytest.mark.parametrize("drops", [False, True], ids=["whole", "dropout"])
@pytest.mark.parametrize("by_block", [False, True], ids=["causal", "isolated"])
@DTYPES
def test_softmax(ours: Ops, dtype: torch.dtype, by_block: bool, drops: bool) -> None:
    blocks, heads, queries, keys, biased = 3, 4, 11, 37, 20
    scores = (3 * torch.randn(blocks * heads, queries, keys)).to(dtype)
    hidden = torch.rand(blocks if by_block else 1, 1, queries, biased) < 0.3
    bias = hidden * -1e30
    grad = torch.randn(scores.shape).to(dtype)
    site = site_of(blocks * heads, range(5, 5 + queries), range(6, 6 + keys)) if drops else None
    results = []
    for ops in (ours, PYTORCH):
        dropped, saved = ops.softmax(scores.clone(), bias, site, num_heads=heads)
        results.append((dropped, *ops.softmax_backward(grad.clone(), saved)))
    for mine, theirs in zip(*results, strict=True):
        close(mine, theirs)
    weights = results[0][0].view(blocks, heads, queries, keys)
    is_hidden = hidden.expand(blocks, heads, queries, biased)
    assert (weights[..., -biased:][is_hidden] == 0).all()
    assert torch.equal(results[0][0] == 0, results[1][0] == 0)


@pytest.mark.parametrize("words", [8, 301, 1500])
@DTYPES
def test_cross_entropy(ours: Ops, dtype: torch.dtype, words: int) -> None:
    logits = (3 * torch.randn(3, 9, words + 5)).to(dtype)
    targets = torch.randint(0, words, (3, 12))[:, 2:11]
    targets[:, 4] = IGNORED
    weight = torch.tensor([0.1, 0.2, 0.0])
    results = []
    for ops in (ours, PYTORCH):
        found = ops.cross_entropy(logits.clone(), targets, vocab_size=words, weight=weight)
        assert found.scale is not None
        results.append((found.total, found.gradient.float() * found.scale))
    close(results[0][0], results[1][0])
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=tolerance)


def test_a_target_beyond_the_vocabulary_ends_its_model_alone(ours: Ops) -> None:
    logits = torch.randn(2, 3, 8)
    targets = torch.tensor([[1, 2, 3], [1, 8, 3]])
    found = ours.cross_entropy(logits, targets, vocab_size=8, weight=torch.ones(2))
    assert found.total[0].isfinite()
    assert found.total[1].isnan()
    assert found.scale is not None
    assert found.scale[1].isnan().tolist() == [[False], [True], [False]]


NAN: dict[str, Callable[[Ops, Tensor], Tensor]] = {
    "gelu": lambda ops, x: ops.gelu(x, use_fused=False)[0],
    "norm": lambda ops, x: ops.norm(x, Norm(x[:, 0], x[:, 0], 1e-5), torch.bfloat16)[0],
    "softmax": lambda ops, x: ops.softmax(x, torch.zeros(1, 1, 5, 5), None, num_heads=1)[0],
    "cross-entropy": lambda ops, x: (
        ops.cross_entropy(
            x, torch.zeros(x.shape[:2], dtype=torch.int64), vocab_size=5, weight=torch.ones(len(x))
        ).total
    ),
}


@pytest.mark.parametrize("name", NAN)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so_and_in_its_model(ours: Ops, name: str, value: float) -> None:
    x = torch.randn(2, 5, 5)
    sound = NAN[name](ours, x.clone())
    x[0, 2, 3] = value
    out = NAN[name](ours, x.clone())
    assert not out[0].isfinite().all()
    assert torch.equal(out[1], sound[1])


def test_where_they_are_chosen(ours: Ops) -> None:
    small, wide = 384, 768
    assert choose_ops(CPU, small, 128) is ours
    assert choose_ops(CPU, wide, 128) is PYTORCH
    assert choose_ops(CPU, small, 10_000) is PYTORCH
    assert choose_ops(torch.device("cuda"), small, 128) is PYTORCH


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing is built yet; gives the cache."""
    _compiled_ops.cache_clear()
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    _compiled_ops.cache_clear()


def compiler(tmp_path: Path, body: str) -> str:
    script = tmp_path / "compiler"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


def test_without_a_compiler(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.INFO):
        assert compiled_ops() is None
        assert compiled_ops() is None
    [said] = caplog.messages
    assert "no C++ compiler" in said


def test_with_a_compiler_that_fails(
    fresh: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, "echo it will not >&2; exit 1"))
    with caplog.at_level(logging.INFO):
        assert compiled_ops() is None
    [said] = caplog.messages
    assert "it will not" in said
    assert list(fresh.iterdir()) == []  # no draft stays


def test_with_a_compiler_that_knows_no_processor(
    ours: Ops, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = 'case "$*" in *=native*) exit 1;; esac; exec c++ "$@"'
    monkeypatch.setenv("CXX", compiler(tmp_path, body))
    plain = compiled_ops()
    assert plain is not None
    assert plain is not ours
    x = torch.randn(2, 7, 40)
    close(plain.gelu(x, use_fused=False)[0], ours.gelu(x, use_fused=False)[0])


def test_with_a_library_that_is_none(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = 'while [ "$1" != -o ]; do shift; done; echo rubbish >"$2"'
    monkeypatch.setenv("CXX", compiler(tmp_path, script))
    assert compiled_ops() is None


@pytest.mark.slow
def test_built_once_by_many(ours: Ops, fresh: Path) -> None:
    code = "from huggingtweets.kernels.compiled import compiled_ops; assert compiled_ops()"

    def build(_: int) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ.copy())

    with ThreadPoolExecutor() as pool:
        list(pool.map(build, range(3)))
    assert len(list(fresh.glob("*/*.so"))) == 1


def test_the_source_is_part_of_the_package() -> None:
    assert Path(compiled.__file__).with_suffix(".cpp").is_file()
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    [included] = [line for line in project.splitlines() if line.startswith("only-include")]
    assert '"huggingtweets"' in included  # all of it, whatever the kind of file
    assert "exclude =" not in project


def test_threads_that_ask_at_once_compile_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", compiler(tmp_path, f"sleep 0.2; echo >> {tmp_path}/calls; exit 1"))
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: compiled_ops(), range(4))) == {None}
    assert len((tmp_path / "calls").read_text()) == 3  # flags of x86, of ARM, of neither
