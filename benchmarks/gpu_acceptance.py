"""All that only a card can confirm, in one command of less than nine minutes.

    python benchmarks/gpu_acceptance.py --out gpu.jsonl          # on a machine with a GPU
    python benchmarks/gpu_acceptance.py --rehearse               # on a CPU, before it

One JSON line per step, written as it ends; a step that fails does not stop the others; the table
comes last. Nothing is fetched: the models are random ones of real shape, the tokenizer comes from
a folder. A rehearsal runs the same functions at small size on CUDA in software (`tests/cuda`), so
that no minute of a card is spent on a typo; what it cannot show ends as "needs a card".
"""

import argparse
import importlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/cuda"))

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import Blocks, TrainingSet
from huggingtweets.errors import first_line
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.layout import Layout
from huggingtweets.models.stack import build_stack
from huggingtweets.ops.adamw import (
    Controls,
    adam_step,
    adam_step_by_rows,
    build_adam,
    constants_of,
)
from huggingtweets.ops.attention import Heads, attention, view_of
from huggingtweets.ops.dropout import Dropout, num_sites, site_keys, thresholds_and_scales
from huggingtweets.ops.linear import Gradients, Linear, LowRank
from huggingtweets.ops.reference import PYTORCH, TRITON, Joining, Norm, Ops
from huggingtweets.runtime import device as on
from huggingtweets.runtime.graphs import Replay
from huggingtweets.training.meter import flops_per_token, known_peak
from huggingtweets.training.modules.loss import SummedLoss, choose_attention, swap_modules
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.graphs import GraphedBackward
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked import step as stacked_step
from huggingtweets.training.stacked import tuning as stacked_tuning
from huggingtweets.training.stacked.look import trusted
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.sample import sample_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 540.0
GPU_TESTS: tuple[str, ...] = (
    "tests/training/test_stacked_gpu.py",
    "tests/training/test_attention.py",
)
GPU_TESTS += ("tests/training/test_graphs.py", "tests/pipeline/test_trained.py")
Figures = dict[str, Any]


class NeedsCardError(Exception):
    """All that a rehearsal can show was fine; the rest only a card can."""


@dataclass(frozen=True)
class Bench:
    """Where and at what size everything runs."""

    device: torch.device
    is_rehearsal: bool
    tokenizer: Path | None
    folder: Path

    @property
    def config(self) -> GPT2Config:
        """GPT-2 124M, or its shape in small."""
        if not self.is_rehearsal:
            return GPT2Config()
        return GPT2Config(vocab_size=320, n_positions=64, n_embd=32, n_layer=2, n_head=2)

    @property
    def block_size(self) -> int:
        """T."""
        return 32 if self.is_rehearsal else 1024

    def pick(self, card: Any, rehearsal: Any) -> Any:
        """Return the first on a card."""
        return rehearsal if self.is_rehearsal else card

    def base(self) -> tuple[Layout, Tensor, float]:
        """Return a random model's layout and row, and its FLOP a token."""
        torch.manual_seed(0)
        model = GPT2LMHeadModel(self.config)
        layout = layout_of(shape_of(self.config))
        return layout, layout.pack(model.state_dict()), flops_per_token(model, self.block_size / 2)

    def jobs(self, num: int, steps: int, dropout: float) -> list[TrainingJob]:
        """Return jobs of one block per step of random tokens."""
        T, words = self.block_size, self.config.vocab_size
        random = np.random.default_rng(0)
        places = np.broadcast_to(np.arange(T, dtype=np.int32), (steps, T)).copy()
        jobs = []
        for index in range(num):
            ids = random.integers(1, words, (steps, T + 1), dtype=np.int32)
            blocks = Blocks(ids[:, :-1].copy(), ids[:, 1:].copy(), places)
            recipe = RecipeConfig(block_size=T, epochs=1, dropout=dropout, lr=1e-4)
            jobs.append(
                TrainingJob(f"u{index}", TrainingSet(blocks, (steps,)), None, recipe, index)
            )
        return jobs


def versions(bench: Bench) -> Figures:
    """What all other figures depend on."""
    import accelerate
    import transformers

    gpus = [f"{gpu.name} {gpu.num_bytes / 2**30:.0f} GiB" for gpu in on.list_gpus()]
    return on.versions_of(bench.device) | {
        "gpus": gpus,
        "python": sys.version.split()[0],
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "peak_tflops": known_peak(on.versions_of(bench.device)["device"]),
    }


def ceilings(bench: Bench) -> Figures:
    """The card's own limits at our shapes: a copy, a product, a batched product."""
    size = bench.pick(2**28, 2**16)
    rows, width = bench.pick((8192, 4096), (64, 64))
    K, T, C = bench.pick((20, 1024, 768), (2, 32, 32))
    new = partial(torch.zeros, device=bench.device, dtype=torch.bfloat16)
    source, target = new(size), new(size)
    a, b = new(rows, width), new(width, rows)
    x, w = new(K, T, C), new(K, C, 4 * C)
    return {
        "copy_tb_s": 4 * size / _seconds(bench, lambda: target.copy_(source)) / 1e12,
        "gemm_tflops": 2 * rows * rows * width / _seconds(bench, lambda: a @ b) / 1e12,
        "bmm_tflops": 8 * K * T * C * C / _seconds(bench, lambda: torch.bmm(x, w)) / 1e12,
    }


def _seconds(bench: Bench, work: Callable[[], object]) -> float:
    """Return the seconds of one call, the median of five groups of ten."""
    found = []
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(10):
            work()
        on.synchronize(bench.device)
        found.append((time.perf_counter() - start) / 10)
    return statistics.median(found[1:])


def gpu_tests(bench: Bench) -> Figures:
    """The tests marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
    command += bench.pick([], ["--collect-only"]) + list(GPU_TESTS)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode:
        raise RuntimeError(f"{last}\n{done.stdout[-1500:]}")
    if bench.is_rehearsal:
        raise NeedsCardError(last)
    return {"pytest": last}


def look(bench: Bench) -> Figures:
    """What the look before the leap allows on this device."""
    layout, _, _ = bench.base()
    os.environ["HUGGINGTWEETS_CACHE"] = str(bench.folder / "cache")
    start = time.perf_counter()
    found = {}
    for dtype in bench.pick((torch.float32, torch.bfloat16), (torch.float32,)):
        for rank in (0, 8):
            wished = StackedSettings(
                8, micro_batch_size=1, block_size=bench.block_size, dtype=dtype
            )
            width = layout.shape.head_width
            settings = trusted(wished, width, bench.device, rank=rank)
            found[f"{dtype}, {f'adapters of rank {rank}' if rank else 'all weights'}"] = {
                "graphs": settings.use_graphs,
                "fused": settings.fused_kernels,
                "triton": settings.triton,
            }
    return found | {"look_s": time.perf_counter() - start}


def graphs_while_sampling(bench: Bench) -> Figures:
    """Weights by graphs, while four threads sample, against those without graphs."""
    layout, base, _ = bench.base()
    jobs = bench.jobs(3, bench.pick(8, 4), 0.1)
    stop = threading.Event()
    stack = build_stack(layout, base.unsqueeze(0).to(bench.device), torch.float32)
    config = SamplingConfig(min_new_tokens=2, max_new_tokens=8)
    errors: list[BaseException] = []

    def sample() -> None:
        on.use_device(bench.device)
        try:
            while not stop.is_set():
                with on.on_stream(on.new_stream(bench.device)):
                    sample_stacked(stack, [[[0, 1, 2]]], config=config, eos_id=0, seeds=[1])
        except BaseException as err:
            errors.append(err)

    # In software the stream is one for all threads: there nobody samples meanwhile.
    threads = [threading.Thread(target=sample) for _ in range(bench.pick(4, 0))]
    for thread in threads:
        thread.start()
    try:
        graphed = _rows(bench, layout, base, jobs, use_graphs=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    eager = _rows(bench, layout, base, jobs, use_graphs=False)
    worst = max(float((graphed[s] - eager[s]).norm() / (eager[s] - base).norm()) for s in eager)
    if not worst < 0.05:
        raise RuntimeError(f"graphs train other weights: {worst:.2g} of the change")
    return {"difference": worst}


def _rows(
    bench: Bench, layout: Layout, base: Tensor, jobs: list[TrainingJob], **changes: Any
) -> dict[str, Tensor]:
    settings = StackedSettings(2, micro_batch_size=1, block_size=bench.block_size)
    settings = replace(settings, **changes)
    rows = {}
    for result in train_stacked(
        FullTuning(layout, base), iter(jobs), settings=settings, device=bench.device
    ):
        if result.weights is None:
            raise RuntimeError(f"{result.slug}: {result.error}")
        rows[result.slug] = layout.pack(result.weights)
    return rows


def failing_capture(bench: Bench) -> Figures:
    """A capture that fails leaves stream, pool and generator usable, and no memory behind."""
    x = torch.zeros(bench.pick(2**26, 64), device=bench.device)
    stream = on.current_stream(bench.device)
    replay = Replay(enabled=True)

    def reads_back() -> None:
        y = x.clone()
        if float(y[0]) < 0:  # not permitted in a graph
            x.zero_()
        x.add_(1)

    for _ in range(4):
        replay.run("key", reads_back)
    if on.current_stream(bench.device) != stream:
        raise RuntimeError("another stream is current")
    torch.manual_seed(0)
    torch.rand(4, device=bench.device)
    before = bench.pick(lambda: torch.cuda.memory_reserved(bench.device), lambda: 0)()
    for _ in range(20):
        x.clone()
    after = bench.pick(lambda: torch.cuda.memory_reserved(bench.device), lambda: 0)()
    if after > before + 2 * x.nbytes or float(x[0]) != 4.0:
        raise RuntimeError(f"{after - before} bytes are not given back; x={float(x[0])}")
    return {"leaked_bytes": max(0, after - before)}


def out_of_memory(bench: Bench) -> Figures:
    """No job is lost where memory runs out at each of several points."""
    layout, base, _ = bench.base()
    found = {}
    places = {"add_micro_batch": stacked_tuning, "finish_step": stacked_step}
    for place in bench.pick(("add_micro_batch", "finish_step"), ("add_micro_batch",)):
        real = getattr(places[place], place)
        calls = [0]

        def scarce(*args: Any, _real: Any = real, _calls: Any = calls, **kwargs: Any) -> Any:
            _calls[0] += 1
            if _calls[0] == 2:
                raise torch.OutOfMemoryError("injected")
            return _real(*args, **kwargs)

        setattr(places[place], place, scarce)
        try:
            rows = _rows(bench, layout, base, bench.jobs(3, 4, 0.1))
        finally:
            setattr(places[place], place, real)
        found[place] = len(rows)
        if len(rows) != 3:
            raise RuntimeError(f"{place}: {len(rows)} of 3 jobs came back")
    return found


def fused_steps(bench: Bench) -> Figures:
    """Speed and memory of the fused engine, against what was estimated."""
    layout, base, flops = bench.base()
    peak = known_peak(on.versions_of(bench.device)["device"])
    found = {}
    for slots in bench.pick((8, 20, 32), (2,)):
        for dropout in (0.0, 0.1):
            ways = ("eager", "graphs", "overlap", "compile")
            for way in bench.pick(ways, ("eager", "graphs", "overlap")):
                if way in ("overlap", "compile") and slots not in (2, 20):
                    continue
                name = f"{slots} slots, dropout {dropout}, {way}"
                try:
                    found[name] = _fused(bench, layout, base, flops, peak, slots, dropout, way)
                except (RuntimeError, torch.OutOfMemoryError) as err:
                    found[name] = {"failed": first_line(err)}
    return found


def _fused(
    bench: Bench,
    layout: Layout,
    base: Tensor,
    flops: float,
    peak: float | None,
    slots: int,
    dropout: float,
    way: str,
) -> Figures:
    steps = bench.pick(14, 4)
    settings = StackedSettings(
        slots,
        micro_batch_size=1,
        block_size=bench.block_size,
        dtype=torch.bfloat16,
        log_every=1 << 30,
        compile=way == "compile",
        use_graphs=way != "eager",
        overlap=way == "overlap",
    )
    if not bench.is_rehearsal:
        torch.cuda.reset_peak_memory_stats(bench.device)
    times: list[float] = []

    def tick() -> bool:
        on.synchronize(bench.device)
        times.append(time.perf_counter())
        return False

    jobs = iter(bench.jobs(slots, steps, dropout))
    for result in train_stacked(
        FullTuning(layout, base), jobs, settings=settings, device=bench.device, is_stopped=tick
    ):
        if result.error is not None:
            raise RuntimeError(str(result.error))
    gaps = np.diff(times)[3:steps]  # the first ones run without a graph
    seconds = float(np.median(gaps)) if len(gaps) else float("nan")
    tokens = slots * bench.block_size
    need = FullTuning(layout, base).need(settings, bench.device, drops=dropout > 0)
    reckoned = need.shared + slots * need.per_slot(bench.block_size)
    return {
        "ms": seconds * 1e3,
        "tokens_s": tokens / seconds,
        "mfu": None if peak is None else tokens * flops / seconds / (peak * 1e12),
        "peak_gb": on.peak_bytes(bench.device) / 1e9,
        "reckoned_gb": reckoned / 1e9,
    }


def kernel_times(bench: Bench) -> Figures:
    """Forward and backward of each kind of kernel in Triton, against PyTorch's operators."""
    ways: dict[str, Ops] = {"pytorch": PYTORCH}
    if on.runs_triton(bench.device):
        ways["triton"] = choose_ops(bench.device, 0, 0, triton=TRITON)
    found: Figures = {}
    for name, work in _WORK.items():
        ms = {way: 1e3 * _seconds(bench, work(bench, ops)) for way, ops in ways.items()}
        found[name] = ms | {"times": ms["pytorch"] / ms.get("triton", math.nan)}
    if bench.is_rehearsal:
        raise NeedsCardError(f"{', '.join(found)} by {' and '.join(ways)}")
    return found


def _shapes(bench: Bench) -> tuple[int, int, int, torch.dtype]:
    K, T, C = bench.pick((20, 1024, 768), (2, 32, 32))
    return K, T, C, bench.pick(torch.bfloat16, torch.float32)


def _dropout(bench: Bench, sites: int) -> Dropout:
    place = np.arange(_shapes(bench)[0])
    made = thresholds_and_scales(np.full((3, len(place)), 0.1))
    parts = (site_keys(place, place, place, sites), *made)
    return Dropout(*(part.to(bench.device) for part in parts))


def _attention(bench: Bench, ops: Ops) -> Callable[[], object]:
    K, T, C, dtype = _shapes(bench)
    heads = C // bench.pick(64, 16)
    places = torch.arange(T, device=bench.device).expand(K, 1, T)
    view = view_of(
        places, isolate=False, reach=T, width=256, use_fused=False, use_spans=ops.flash is not None
    )
    dropout = _dropout(bench, num_sites(1, heads))
    qkv = torch.randn(K, T, 3 * C, device=bench.device, dtype=dtype, requires_grad=True)
    grad = torch.randn(K, T, C, device=bench.device, dtype=dtype)
    of = Heads(heads, heads, 0.125, 0)
    return lambda: torch.autograd.grad(attention(qkv * 1, view, of, dropout, ops), qkv, grad)


def _norm(bench: Bench, ops: Ops) -> Callable[[], object]:
    K, T, C, dtype = _shapes(bench)
    new = partial(torch.zeros, device=bench.device)
    x, grad = new(K, T, C), new(K, T, C)
    branch, vectors = new(K, T, C, dtype=dtype), new(6, K, C)
    norm = Norm(vectors[0], vectors[1], 1e-5, Gradients(vectors[2], vectors[3]))
    site = _dropout(bench, num_sites(1, 1)).residual(0, T, C)
    joining = Joining(site, *(vectors[4:] if ops.joins_bias else ()))

    def run() -> None:
        _, out, saved = ops.add_norm(x, branch, joining, norm, dtype)
        ops.add_norm_backward(grad, out, saved, joining, norm, dtype)

    return run


def _activation(bench: Bench, ops: Ops) -> Callable[[], object]:
    K, T, C, dtype = _shapes(bench)
    inner = torch.randn(K, T, 4 * C, device=bench.device, dtype=dtype)
    bias = torch.zeros(K, 4 * C, device=bench.device) if ops.activates_bias else None
    into = None if bias is None else torch.zeros_like(bias)

    def run() -> None:
        out, saved = ops.activate(inner, bias, gated=False, use_fused=True)
        ops.activate_backward(out, saved, into, gated=False, accumulate=False)

    return run


def _loss(bench: Bench, ops: Ops) -> Callable[[], object]:
    _, T, _, dtype = _shapes(bench)
    words = bench.config.vocab_size
    logits = torch.zeros(5, T, words + -words % 64, device=bench.device, dtype=dtype)
    targets = torch.ones(5, T, dtype=torch.int64, device=bench.device)
    weight = torch.ones(5, device=bench.device)
    return lambda: ops.cross_entropy(logits, targets, vocab_size=words, weight=weight)


def _adamw(bench: Bench, ops: Ops) -> Callable[[], object]:
    K, dtype = bench.pick(4, 2), torch.bfloat16
    rows = torch.zeros(K, bench.base()[0].size, device=bench.device)
    grads, copies, adam = torch.ones_like(rows), rows.to(dtype), build_adam(rows)
    settings = (1.0, 1.0, 1.0, 1e-4, 1.0, 0.01, 0.9, 0.999, 1e-8)
    columns = torch.tensor(settings, device=bench.device).unsqueeze(1).expand(-1, K).contiguous()
    controls = Controls(*columns.unbind(0))
    constants = constants_of([RecipeConfig()] * K, bench.device)

    def run() -> None:
        if ops.adamw is not None:
            adam_step_by_rows(rows, copies, grads, adam, controls, ops, num_decayed=rows.shape[1])
        else:
            adam_step(rows, grads, adam, controls, constants, num_decayed=rows.shape[1])
            copies.copy_(rows)

    return run


def _adapters(bench: Bench, ops: Ops) -> Callable[[], object]:
    K, T, C, dtype = _shapes(bench)
    new = partial(torch.zeros, device=bench.device, dtype=dtype)
    x, grad = new(K, T, C), new(K, T, 4 * C)
    adapter = LowRank(new(K, C, 8), new(K, 8, 4 * C))
    scale = torch.ones(K, device=bench.device)
    layer = Linear(new(1, C, 4 * C), new(1, 4 * C), adapter, scale)
    out = Gradients(*(part.float() for part in adapter.tensors()))

    def run() -> None:
        ops.project(x, layer)
        ops.project_backward(grad, x, layer, out, accumulate=False, with_bias=False)

    return run


_WORK = {
    "attention": _attention, "norm": _norm, "activation": _activation, "loss": _loss,
    "adamw": _adamw, "lora": _adapters,
}  # fmt: skip
"""What each kind of TRITON is timed by."""


def kernels(bench: Bench) -> Figures:
    """Kernels of a fused step with dropout, as the profiler sees them; 377 were counted."""
    layout, base, _ = bench.base()
    slots = bench.pick(20, 2)
    steps = 3
    activity = torch.profiler.ProfilerActivity
    kind = bench.pick([activity.CUDA, activity.CPU], [activity.CPU])
    with torch.profiler.profile(activities=kind) as profiler:
        settings = StackedSettings(slots, 1, bench.block_size, torch.bfloat16, use_graphs=False)
        jobs = iter(bench.jobs(slots, steps, 0.1))
        list(train_stacked(FullTuning(layout, base), jobs, settings=settings, device=bench.device))
    events = profiler.events() or []
    on_card = [one for one in events if str(one.device_type).endswith("CUDA")]
    if bench.is_rehearsal:
        raise NeedsCardError(f"{len(events)} operators on the CPU")
    return {"kernels_a_step": len(on_card) / steps}


def single(bench: Bench) -> Figures:
    """One user, joined and isolated, against transformers' Trainer on the same blocks."""
    found: Figures = {}
    for isolate in (False, True):
        found["ours, isolated" if isolate else "ours, joined"] = _single(bench, isolate=isolate)
    found["Trainer, joined"] = _trainer(bench)
    return found


def _single(bench: Bench, *, isolate: bool) -> Figures:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(bench.config).to(bench.device)
    attention = choose_attention(bench.device, torch.bfloat16, is_sharded=False, is_compiled=False)
    T, steps = bench.block_size, bench.pick(24, 4)
    if bench.is_rehearsal:  # its kernel for documents is CUDA's alone
        attention = type(attention).masked
    module = SummedLoss(
        model, isolate=isolate, attention=attention, most_documents=T // 16, longest_document=T
    ).train()
    swap_modules(model)
    optimizer = build_optimizer(module, RecipeConfig(lr=1e-4))
    backward = GraphedBackward(module, optimizer, bench.device)
    ids = torch.randint(1, bench.config.vocab_size, (1, T), device=bench.device)
    places = torch.arange(T, device=bench.device).unsqueeze(0) % (16 if isolate else T)
    times = []
    for _ in range(steps):
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = backward((ids, ids, places), 1.0 / T)
        optimizer.step()
        optimizer.zero_grad()
        on.synchronize(bench.device)
        times.append(time.perf_counter())
    if not bool(loss.isfinite()):
        raise RuntimeError("the loss is not finite")
    return {"tokens_s": T / float(np.median(np.diff(times)[3:] if steps > 8 else np.diff(times)))}


def _trainer(bench: Bench) -> Figures:
    torch.manual_seed(0)
    T, steps = bench.block_size, bench.pick(24, 4)
    ids = torch.randint(1, bench.config.vocab_size, (steps, T))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    arguments = TrainingArguments(
        output_dir=str(bench.folder / "trainer"),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        bf16=True,
        use_cpu=bench.is_rehearsal,
        report_to=[],
        save_strategy="no",
        logging_steps=10**6,
        disable_tqdm=True,
    )
    trainer = Trainer(GPT2LMHeadModel(bench.config), arguments, train_dataset=rows)
    done = trainer.train()
    return {"tokens_s": steps * T / done.metrics["train_runtime"]}


def end_to_end(bench: Bench) -> Figures:
    """Sixteen users from posts to published models by train.py."""
    num = bench.pick(16, 2)
    posts, model = bench.folder / "posts", bench.folder / "base"
    posts.mkdir()
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(200)]
    for user in range(num):
        rows = [
            {"id": str(row), "text": " ".join(random.choice(words, random.integers(5, 20)))}
            for row in range(bench.pick(400, 40))
        ]
        (posts / f"user{user}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (bench.folder / "users.txt").write_text("".join(f"user{user}\n" for user in range(num)))
    overrides = ["model=tiny"]
    if bench.tokenizer is not None and not bench.is_rehearsal:
        shutil.copytree(bench.tokenizer, model)
        GPT2LMHeadModel(GPT2Config()).save_pretrained(model)
        overrides = [f"model.path={model}"]
    command = [
        sys.executable, "train.py", f"user=file:{bench.folder / 'users.txt'}", "source=jsonl",
        f"source.path={posts}", f"output_dir={bench.folder / 'out'}", *overrides,
        "engine=fused", "engine.precision=bf16", "tracking=none", "publish=none",
        "cleaning.min_chars=0", f"recipe.max_steps={bench.pick(60, 2)}",
        f"sampling.num={bench.pick(2, 0)}",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    seconds = time.perf_counter() - start
    results = list((bench.folder / "out").glob("*/result.json"))
    if done.returncode or len(results) != num:
        raise RuntimeError(f"{len(results)} of {num} users: {(done.stdout + done.stderr)[-1500:]}")
    return {"users": num, "seconds": seconds, "users_h": num / seconds * 3600}


STEPS: tuple[Callable[[Bench], Figures], ...] = (
    versions, ceilings, look, gpu_tests, graphs_while_sampling, failing_capture, out_of_memory,
    kernel_times, fused_steps, kernels, single, end_to_end,
)  # fmt: skip


def run(bench: Bench, out: Path, only: list[str]) -> Iterator[dict[str, Any]]:
    """Take the steps one after another and write a line for each as it ends."""
    begin = time.monotonic()
    with out.open("w", encoding="utf-8") as file:
        for step in STEPS:
            name = step.__name__
            if only and name not in only:
                continue
            line: dict[str, Any] = {"step": name}
            start = time.monotonic()
            if start - begin > LIMIT_S:
                line |= {"status": "no time left"}
            else:
                try:
                    line |= {"figures": step(bench), "status": "ok"}
                except NeedsCardError as err:
                    line |= {"status": "needs a card", "figures": {"rehearsed": str(err)}}
                except Exception as err:  # the other steps are still to come
                    line |= {"status": "failed", "error": f"{type(err).__name__}: {err}"}
            line["seconds"] = round(time.monotonic() - start, 1)
            file.write(json.dumps(line, default=str) + "\n")
            file.flush()
            yield line


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_acceptance.jsonl"))
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, at small size")
    parser.add_argument("--only", nargs="*", default=[], help="names of steps")
    parser.add_argument(
        "--tokenizer", type=Path, default=ROOT.parent / "shared/gpt2-tokenizer", help="a folder"
    )
    args = parser.parse_args()
    if not args.rehearse and not on.has_cuda():
        raise SystemExit("gpu_acceptance: no GPU here; expected one; add --rehearse to rehearse")
    tokenizer = args.tokenizer if args.tokenizer.is_dir() else None
    lines = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        device = torch.device("cpu" if args.rehearse else "cuda:0")
        if args.rehearse:
            rig: Any = importlib.import_module("software_cuda")
            stack.enter_context(rig.installed())
        for line in run(Bench(device, args.rehearse, tokenizer, folder), args.out, args.only):
            print(f"{line['step']:22s} {line['status']:13s} {line['seconds']:6.1f} s", flush=True)
            lines.append(line)
    print()
    for line in lines:
        print(f"{line['step']}: {json.dumps(line.get('figures', line.get('error')), default=str)}")
    if any(line["status"] == "failed" for line in lines):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
