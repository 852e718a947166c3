"""What one training step costs a GPU, counted without one: launches, bytes, FLOP and memory.

    python benchmarks/step_budget.py --slots 20 --blocks 1 --block-size 1024 --dropout 0.1
    python benchmarks/step_budget.py --rank 8 --slots 20
    python benchmarks/step_budget.py --engine single --blocks 1 --block-size 1024 --isolate --json

The step runs on fake CUDA tensors of real size (a few seconds and no memory). Bytes are those that
each kernel must read and write once; a launch is one kernel. Estimated times follow from them:

    time = (element-wise + optimizer bytes) / (0.85 * bandwidth)
           + max(FLOP / 600 TFLOP/s, product bytes / (0.85 * bandwidth))

with 600 TFLOP/s for large bf16 products on Hopper, and no time between launches: as a CUDA graph.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fake_cuda

if __name__ == "__main__":
    try:
        fake_cuda.load()
    except fake_cuda.NoCompilerError as err:
        raise SystemExit(f"step_budget: {err}; expected a C++ compiler; install g++") from err

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import Blocks
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.kernels.rows import num_draws
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.layout import Shape
from huggingtweets.models.stack import build_stack
from huggingtweets.ops.adamw import constants_of
from huggingtweets.ops.dropout import num_sites
from huggingtweets.ops.reference import TRITON, Ops
from huggingtweets.training.modules.loss import SummedLoss, choose_attention, swap_modules
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.stacked.decode import build_cache, decode_step, draw_tokens
from huggingtweets.training.stacked.heldout import score_blocks
from huggingtweets.training.stacked.memory import MAX_PROMPT, Finishing, need_of
from huggingtweets.training.stacked.slots import (
    MicroKind,
    add_micro_batch,
    build_slots,
    finish_step,
    micro_inputs,
    step_inputs,
)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CARDS = {"A100": (1.55, 250.0), "H100": (3.0, 600.0), "H200": (4.3, 600.0), "B200": (7.0, 1400.0)}
"""TB/s that a copy reaches on the card, and TFLOP/s of large bf16 products [estimated]."""
PEAKS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "B200": 2250.0}
_USABLE = 0.85
_DOCUMENT = 25
"""Tokens of a post."""
_GRAIN = 512
"""Bytes the allocator rounds up to."""
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addmm_", "baddbmm_", "product_into"}
_PRODUCTS |= {"lora", "lora_sums"}
_PARTS = {
    "add_norm": "residual, dropout, norm", "add_norm_backward": "residual, dropout, norm",
    "sum_runs": "residual, dropout, norm", "activation": "activation",
    "activation_backward": "activation", "loss": "cross-entropy",
    "column_sums": "bias of queries, keys, values",
}  # fmt: skip
"""What a table of parts calls an operator of ours that is no product."""
_MULTIPLIED = ("products of the layers", "products of the head", "attention")
_OURS = {
    "attention": 1, "attention_backward": 2, "add_norm": 1, "add_norm_backward": 1, "sum_runs": 1,
    "column_sums": 1, "drop": 1, "embed": 1, "activation": 1, "activation_backward": 1, "loss": 1,
    "adamw": 1, "product_into": 1, "lora": 1, "lora_sums": 1,
}  # fmt: skip
"""Kernels that an operator of ours launches (`kernels/triton_launchers.py`, `ops/linear.py`)."""
_FREE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach"}
_FREE |= {
    "device",
    "alias",
    "lift_fresh",
    "_unsafe_view",
    "_reshape_alias",
    "is_same_size",
    "record_stream",
}
_FILLS = {"zeros", "ones", "full", "arange", "new_zeros", "new_ones", "new_full", "zeros_like"}
_FILLS |= {"ones_like", "full_like", "fill_", "zero_"}


@dataclass(frozen=True)
class Case:
    """What is counted: a step of an engine, or one of what finishes models.

    With `sampling` the models, the rows of each and their positions are slots, blocks and block
    size; with `judging` there is one model.
    """

    engine: str = "fused"
    slots: int = 20
    blocks: int = 1
    block_size: int = 1024
    dropout: float = 0.1
    isolate: bool = False
    precision: str = "bf16"
    recompute: bool = False
    layers: int = 12
    width: int = 768
    heads: int = 12
    vocab_size: int = 50257
    rank: int = 0
    """Of adapters on a frozen base; 0: all weights are trained."""
    triton: bool = True
    """Kernels in Triton, where it is installed."""
    left_out: str = ""
    """A kind of them."""
    overlap: bool = False
    """AdamW of half the slots beside the products of the others."""

    @property
    def config(self) -> GPT2Config:
        """The shape of the model."""
        return GPT2Config(
            vocab_size=self.vocab_size,
            n_positions=max(1024, self.block_size),
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            attn_pdrop=self.dropout,
            resid_pdrop=self.dropout,
            embd_pdrop=self.dropout,
        )


@dataclass(frozen=True)
class Budget:
    """What a step costs: gradients of one micro-batch of each slot, and the optimizer's step."""

    launches: int
    product_gb: float
    elementwise_gb: float
    optimizer_gb: float
    tflop: float
    peak_gb: float
    reckoned_gb: float
    """What the choice of slots counts on."""


@dataclass
class Part:
    """What some kernels of a step cost together."""

    launches: int = 0
    bytes: int = 0
    flop: float = 0.0

    def add(self, other: "Part") -> None:
        """Count what another one counted."""
        self.launches += other.launches
        self.bytes += other.bytes
        self.flop += other.flop

    def ms(self, card: str) -> float:
        """Return the milliseconds [estimated]."""
        bandwidth, tflops = CARDS[card]
        return max(self.flop / tflops / 1e9, self.bytes / 1e9 / (bandwidth * _USABLE))


Parts = dict[str, Part]


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts kernels, their bytes and FLOP, and the memory that is alive."""

    def __init__(self, num_words: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.parts: Parts = defaultdict(Part)
        self._num_words = num_words
        self.devices: set[str] = set()
        self.peak = 0
        self._now = 0
        self._live: dict[int, int] = {}

    def restart(self) -> Parts:
        """Return what was counted and begin again; the memory stays."""
        counted, self.parts = self.parts, defaultdict(Part)
        return counted

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given, made = _tensors((args, kwargs)), _tensors(out)
        for tensor in made:
            self._see(tensor)
        name = str(func._schema.name).split("::")[1]
        is_empty = bool(made) and not any(tensor.numel() for tensor in made)  # no kernel at all
        if func.is_view or name in _FREE or is_empty or not _on_gpu(given + made):
            return out
        part = self.parts[self._part(name, given + made)]
        part.launches += _launches(name, args)
        part.bytes += _bytes(name, args, given, made)
        part.flop += _flop_of_ours(name, args)
        if func._overloadpacket in flop_registry:
            part.flop += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        return out

    def _part(self, name: str, tensors: list[Tensor]) -> str:
        if "attention" in name:
            return _MULTIPLIED[2]
        if name not in _PRODUCTS:
            return _PARTS.get(name, "embeddings and the rest")
        return _MULTIPLIED[any(self._num_words in tensor.shape for tensor in tensors)]

    def _see(self, tensor: Tensor) -> None:
        self.devices.add(str(tensor.device))
        storage = tensor.untyped_storage()
        if tensor.device.type != "cuda" or storage._cdata in self._live:
            return
        size = -(-storage.nbytes() // _GRAIN) * _GRAIN
        self._live[storage._cdata] = size
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self._now -= self._live.pop(key, 0)


def _tensors(value: Any) -> list[Tensor]:
    return [each for each in tree_flatten(value)[0] if isinstance(each, Tensor)]


def _on_gpu(tensors: list[Tensor]) -> bool:
    return any(tensor.device.type == "cuda" for tensor in tensors)


def _size(tensor: Tensor) -> int:
    """Bytes that are touched: of an expanded dimension, one."""
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, stride in pairs if stride) * tensor.element_size()


def _flop_of_ours(name: str, args: tuple[Any, ...]) -> float:
    """Of attention that which lies below the diagonal, though documents may see less."""
    if name == "product_into":
        return 2.0 * int(args[1].numel()) * int(args[2].shape[-1])
    if name == "lora":
        (K, R, C), F, rank = args[0].shape, args[1].shape[1], args[3].shape[2]
        return float(2 * K * R * (C * F + rank * (C + F)))
    if name == "lora_sums":
        return 2.0 * int(args[2].numel()) * int(args[1].shape[2])
    if name not in ("attention", "attention_backward"):
        return 0.0
    qkv, products = (args[0], 2) if name == "attention" else (args[3], 7)
    num, num_kv = args[-3:-1]
    n, T, width = qkv.shape
    return float(products * n * num * T * T * (width // (num + 2 * num_kv)))


def _launches(name: str, args: tuple[Any, ...]) -> int:
    if name in _OURS:
        return _OURS[name]
    if name == "_foreach_copy_":
        return len(args[0])
    if name == "_fused_adamw_":  # 320 chunks of 65,536 elements a kernel
        return math.ceil(sum(int(each.numel()) for each in args[0]) / 65536 / 320)
    return 2 if name in ("addmm", "baddbmm") else 1  # the bias is copied first


def _ours(name: str, args: tuple[Any, ...]) -> int:
    """Bytes of our operators beyond their tensors, each once.

    What is changed in place is written as well as read, or only written. The backward pass of
    attention reads queries, keys, values, gradient and sums in each of its two kernels.
    """
    if name == "attention_backward":
        grad, _, sums, qkv = args[:4]
        return _size(grad) + _size(qkv) + 3 * _size(sums)
    if name == "add_norm_backward":  # gradients of the stream, if they are not only written
        return _size(args[0]) if args[10] else 0
    if name in ("sum_runs", "column_sums"):
        changed = args[1:-1]
        return sum(_size(each) for each in changed if each is not None) if args[-1] else 0
    if name == "loss":  # the logits become their gradients
        return _size(args[0])
    if name == "adamw":  # weights and moments again, the copy only once
        return sum(map(_size, (args[0], *args[3:5])))
    if name == "product_into":
        return _size(args[0]) if args[3] else 0
    if name == "lora_sums":
        return _size(args[0]) if args[4] else 0
    if name == "embed":  # the rows that are looked up, not the table
        num = int(args[1].numel()) * (1 if args[2] is None else 2)
        return num * int(args[0].shape[1]) * 4 - _size(args[0])
    return 0


def _bytes(name: str, args: tuple[Any, ...], given: list[Tensor], made: list[Tensor]) -> int:
    total: int = sum(map(_size, given)) + sum(map(_size, made))
    if name in _OURS:
        return total + _ours(name, args)
    if name == "_fused_adamw_":  # weight, gradient, two moments: all read and written
        return 32 * sum(int(each.numel()) for each in args[0])
    if name == "_foreach_copy_":
        return sum(map(_size, given))
    if name in ("addmm", "baddbmm"):
        return total + 2 * _size(made[0])
    if name == "embedding":  # the rows that are looked up
        return 2 * _size(made[0])
    if name == "index_add_":
        return 3 * _size(args[3])
    if name == "gather":  # an element of a row each, and its index
        return 9 * _size(made[0])
    if name == "scatter_add_":
        return 3 * _size(args[2])
    if name in _FILLS:
        return sum(map(_size, made)) or sum(map(_size, given))
    if name == "copy_":
        return _size(args[0]) + _size(args[1])
    return total  # of what is changed in place too: it is read and written


def count(case: Case) -> tuple[Budget, Parts]:
    """Count a step on fake CUDA tensors: in all, and part by part."""
    library: Any = torch.library.Library("aten", "IMPL", "Meta")  # type: ignore[no-untyped-call]
    for name in ("_fused_adamw_", "_fused_adamw_.tensor_lr"):
        with suppress(RuntimeError):
            library.impl(name, lambda *_, **__: None)  # torch has no fused AdamW there
    counter = Count(layout_of(shape_of(case.config)).shape.padded_vocab_size)
    with FakeTensorMode(), counter:
        steps = _STEPS[case.engine](case, torch.device("cuda:0"))
        counter.restart()
        parts: Parts = defaultdict(Part)
        update = Part()
        for gradients, of_update in zip(steps[::2], steps[1::2], strict=True):
            with _believed():
                gradients()
            for name, part in counter.restart().items():
                parts[name].add(part)
            of_update()
            for part in counter.restart().values():
                update.add(part)
    stray = counter.devices - {"cuda:0", "cpu", "meta"}
    assert not stray, stray
    product_bytes = sum(part.bytes for name, part in parts.items() if name in _MULTIPLIED)
    elementwise = sum(part.bytes for part in parts.values()) - product_bytes
    return Budget(
        launches=sum(part.launches for part in parts.values()) + update.launches,
        product_gb=round(product_bytes / 1e9, 2),
        elementwise_gb=round(elementwise / 1e9, 2),
        optimizer_gb=round(update.bytes / 1e9, 2),
        tflop=round(sum(part.flop for part in parts.values()) / 1e12, 3),
        peak_gb=round(counter.peak / 1e9, 2),
        reckoned_gb=round(_reckoned(case) / 1e9, 2),
    ), parts | {"AdamW and the gradient's norm": update}


@contextmanager
def _believed() -> Iterator[None]:
    """Have autocast take the fake device for one that is there."""
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
    ):
        yield


def _fused(case: Case, device: torch.device) -> list[Callable[[], None]]:
    """The fused engine's micro-step and update, with the row that finished jobs leave through."""
    layout = layout_of(shape_of(case.config))
    shape, dtype, K = layout.shape, DTYPES[case.precision], case.slots
    base = torch.zeros(layout.size, device=device)
    slots = build_slots(layout, base, K, dtype, rank=case.rank)
    outbox = torch.empty_like(slots.stack.rows[0])  # the row of `Outbox`
    num_decayed = len(outbox) if case.rank else layout.num_decayed
    drops = case.dropout > 0
    ops = _ops(case, device, shape)
    kind = MicroKind(
        accumulate=False,
        isolate=case.isolate,
        reach=case.block_size,
        drops=drops,
        fused=True,
        recompute=case.recompute,
        ops=ops,
    )
    kept = (base, outbox)  # alive for as long as the functions are

    def steps(first: int, stop: int) -> list[Callable[[], None]]:
        sites, num = num_sites(shape.num_layers, shape.num_heads), stop - first
        part = slots.part(first, stop)
        micro = micro_inputs(num, case.blocks, case.block_size, sites, device)
        step = step_inputs(num, case.blocks, device)
        constants = None if ops.adamw else constants_of([RecipeConfig()] * num, device)

        def update() -> None:
            assert kept
            finish_step(part, step, constants, num_decayed=num_decayed, ops=ops)

        gradients = partial(add_micro_batch, part, micro.tensors, step.tensors, kind)
        return [gradients, update]

    return steps(K // 2, K) + steps(0, K // 2) if case.overlap else steps(0, K)


def _ops(case: Case, device: torch.device, shape: Shape) -> Ops:
    names = tuple(name for name in TRITON if case.triton and name != case.left_out)
    return choose_ops(device, shape.width, case.block_size, shape.head_width, names)


def _single(case: Case, device: torch.device) -> list[Callable[[], None]]:
    """The single engine's forward and backward pass, and its update."""
    dtype = DTYPES[case.precision]
    with device:
        model = GPT2LMHeadModel(case.config)
    attention = choose_attention(device, dtype, is_sharded=False, is_compiled=False)
    most = max(2, case.block_size // _DOCUMENT)
    module = SummedLoss(
        model,
        isolate=case.isolate,
        attention=attention,
        most_documents=most,
        longest_document=_DOCUMENT,
    ).train()
    if case.recompute:
        model.gradient_checkpointing_enable()
    swap_modules(model)
    optimizer = build_optimizer(module, RecipeConfig())
    shape = (case.blocks, case.block_size)
    parts = [torch.zeros(shape, dtype=torch.int64, device=device) for _ in range(3)]

    def micro() -> None:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            loss = module(*parts)
        (loss * 0.5).backward()

    def update() -> None:
        grads = [each.grad for each in module.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        optimizer.grad_scale = norm.clamp(min=1.0)  # type: ignore[attr-defined]
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        optimizer.step()

    return [micro, update]


def _sampling(case: Case, device: torch.device) -> list[Callable[[], None]]:
    """A decoding step of models side by side, after which half of the rows are dropped."""
    layout = layout_of(shape_of(case.config))
    size = (case.slots, case.blocks)
    stack = build_stack(layout, torch.zeros(case.slots, layout.size, device=device), torch.float32)
    cache = build_cache(stack, case.blocks, case.block_size)
    whole = torch.zeros(size, dtype=torch.int64, device=device)
    parts = torch.ones(size, device=device)
    uniforms = torch.zeros((*size, num_draws(0.95)), dtype=torch.float64, device=device)

    def decode() -> None:
        logits = decode_step(stack, cache, whole, whole)
        assert logits is not None
        draw_tokens(
            cache, logits, temperatures=parts, top_ps=parts, banned=whole, uniforms=uniforms
        )

    return [decode, lambda: cache.keep(whole[:, : case.blocks // 2])]


def _judging(case: Case, device: torch.device) -> list[Callable[[], None]]:
    """The losses of a model's posts."""
    layout = layout_of(shape_of(case.config))
    dtype = DTYPES[case.precision]
    stack = build_stack(layout, torch.zeros(1, layout.size, device=device), dtype)
    blocks = Blocks(*(np.zeros((case.blocks, case.block_size), np.int32) for _ in range(3)))

    def judge() -> None:
        score_blocks(stack, [blocks], use_fused=True)

    return [judge, lambda: None]


_STEPS = {"fused": _fused, "single": _single, "sampling": _sampling, "judging": _judging}


def _reckoned(case: Case) -> int:
    layout = layout_of(shape_of(case.config))
    finishing = Finishing(layout, case.blocks, case.block_size - MAX_PROMPT)
    if case.engine == "sampling":
        return case.slots * finishing.bytes_per_model
    if case.engine == "judging":
        return finishing.judging_bytes
    need = need_of(
        layout,
        DTYPES[case.precision],
        block_size=case.block_size,
        drops=case.dropout > 0 and not _ops(case, torch.device("cuda:0"), layout.shape).hashes,
        recompute=case.recompute,
        rank=case.rank,
    )
    return need.shared + case.slots * need.per_slot(case.blocks * case.block_size)


def estimate(budget: Budget, *, overlap: bool = False) -> dict[str, tuple[float, float]]:
    """Return milliseconds a step and the share of the peak, by card; bf16.

    Half of AdamW beside half of the products saves at most the bandwidth that those leave.
    """
    found = {}
    for card, (bandwidth, tflops) in CARDS.items():
        per_ms = bandwidth * _USABLE
        products = max(budget.tflop / tflops * 1e3, budget.product_gb / per_ms)
        ms = (budget.elementwise_gb + budget.optimizer_gb) / per_ms + products
        if overlap:
            ms -= min(budget.optimizer_gb / per_ms, products - budget.product_gb / per_ms) / 2
        found[card] = ms, budget.tflop / (ms / 1e3) / PEAKS[card]
    return found


def main() -> None:
    """Count what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=tuple(_STEPS), default="fused")
    names = ("slots", "blocks", "block-size", "layers", "width", "heads", "vocab-size", "rank")
    for name in names:
        default = getattr(Case(), name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=Case.dropout)
    parser.add_argument("--precision", choices=tuple(DTYPES), default="bf16")
    parser.add_argument("--isolate", action="store_true", help="documents see themselves alone")
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing")
    parser.add_argument(
        "--pytorch", dest="triton", action="store_false", help="without kernels in Triton"
    )
    parser.add_argument(
        "--left-out", choices=TRITON, default="", help="a kind of kernels in Triton"
    )
    parser.add_argument(
        "--overlap", action="store_true", help="AdamW of half the slots beside the others"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument(
        "--cases", help="JSON list of cases, each a part of the options; a line each"
    )
    args = vars(parser.parse_args())
    as_json, cases = args.pop("json"), args.pop("cases")
    case = Case(**args)
    if cases is not None:
        for changes in json.loads(cases):
            changed = replace(case, **changes)
            budget, _ = count(changed)
            found = estimate(budget, overlap=changed.overlap)
            shares = {card: round(share, 3) for card, (_, share) in found.items()}
            print(json.dumps(asdict(budget) | shares), flush=True)
        return
    budget, parts = count(case)
    if as_json:
        print(json.dumps(asdict(budget)))
        return
    for name, value in asdict(budget).items():
        print(f"{name:16s} {value:>12,}")
    for card, (ms, mfu) in estimate(budget, overlap=case.overlap).items():
        print(f"{card:16s} {ms:>9.0f} ms   {mfu:.0%} of its peak [estimated]")
    print(
        f"\n{'milliseconds [estimated]':30s} launches       GB   TFLOP",
        *(f"{c:>6s}" for c in CARDS),
    )
    for name, part in sorted(parts.items(), key=lambda item: -item[1].ms("H100")):
        times = (f"{part.ms(card):6.1f}" for card in CARDS)
        share = f"{part.launches:8,} {part.bytes / 1e9:8.1f} {part.flop / 1e12:7.2f}"
        print(f"{name:30s} {share}", *times)


if __name__ == "__main__":
    main()
