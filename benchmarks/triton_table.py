"""What Triton's kernels take of a multiprocessor, compiled ahead of time: no GPU is needed.

    python benchmarks/triton_table.py --models gpt2 smollm2 --dtypes bf16 fp32 --cards 80 90 100
    python benchmarks/triton_table.py --markdown

Registers a thread, bytes that spill to memory, and shared memory of every kernel that the
operators launch, with the constants and warps that they launch it with.
"""

import inspect
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from harness import build_parser, markdown
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from huggingtweets.kernels import triton_launchers as launch
from huggingtweets.kernels.triton_ops import MAX_RANK

BIN = Path(triton.__file__).parent / "backends/nvidia/bin"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
NAMES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int16: "i16",
    torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip
# Width, inner width, query heads, key heads, head width, vocabulary, as stored; gated.
MODELS = {
    "gpt2": (768, 3072, 12, 12, 64, 50257, 50304, False),
    "smollm2": (576, 1536, 9, 3, 64, 49152, 49152, True),
    "qwen3": (1024, 3072, 16, 8, 128, 151936, 151936, True),
}
SHAPE_K, SHAPE_R = 20, 1024
_UNITS = (("registers", 1), ("shared", 1024))

Launch = tuple[JITFunction, tuple[Any, ...], dict[str, Any]]


def launches(model: str, dtype: torch.dtype) -> list[Launch]:
    """Return what the operators launch for a model, caught on tensors without memory."""
    C, F, H, KV, D, words, padded, gated = MODELS[model]
    K, R, fp32 = SHAPE_K, SHAPE_R, torch.float32
    caught: list[Launch] = []

    def catch(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        caught.append((self, args, kwargs))

    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def run(operator: Any, *args: Any) -> Any:
        return operator._init_fn(*args)

    def keys(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            empty(*shape, 2, dtype=torch.int32),
            empty(K, dtype=torch.int16),
            empty(K, dtype=fp32),
        )

    with mock.patch.object(JITFunction, "run", catch):
        qkv = empty(K, R, (H + 2 * KV) * D)
        places = empty(K, R, dtype=torch.int32)
        out, sums = run(launch.attention, qkv, places, *keys(H, K), H, KV, D**-0.5)
        run(
            launch.attention_backward, out, out, sums, qkv, places, places, *keys(H, K), H, KV,
            D**-0.5,
        )  # fmt: skip
        x, branch, vector = empty(K, R, C, dtype=fp32), empty(K, R, C), empty(K, C, dtype=fp32)
        bias = None if gated else empty(K, C)
        site = *keys(K), R
        norm_bias = None if gated else vector
        _, normed, *kept = run(
            launch.add_norm, x, branch, bias, *site, vector, norm_bias, 1e-5, dtype
        )
        _, partial = run(launch.add_norm_backward, x, normed, x, *kept, vector, *site, True, dtype)
        run(launch.sum_runs, partial, vector, vector, vector, False)
        run(launch.column_sums, qkv, empty(K, qkv.shape[2], dtype=fp32), False)
        run(launch.drop, x, *site, fp32)
        ids = empty(K, R, dtype=torch.int64)
        run(launch.embed, empty(K * padded, C, dtype=fp32), ids, None if gated else ids, *site)
        inner, inner_bias = empty(K, R, 2 * F if gated else F), None if gated else empty(K, F)
        activated = run(launch.activation, inner, inner_bias, gated)
        run(launch.activation_backward, activated, inner, inner_bias, gated)
        run(launch.loss, empty(5, R, padded), ids[:5], empty(5, dtype=fp32), words)
        for rank in (8, MAX_RANK):
            own, rows = rank * (C + F), empty(K, 2 * rank * (C + F))
            down, up = (
                rows[:, : rank * C].view(K, C, rank),
                rows[:, rank * C : own].view(K, rank, F),
            )
            x, scales = empty(K, R, C), empty(K, dtype=fp32)
            bias = None if gated else empty(F)
            wide, low = run(launch.lora, x, empty(C, F), bias, down, up, scales)
            run(launch.lora, wide, empty(C, F).T, None, up.mT, down.mT, scales)
            run(launch.lora_sums, down.float(), low, x, scales, True)
            run(launch.lora_sums, up.float().mT, low, wide, scales, True)
        row = empty(K, 16 * C, dtype=fp32)
        copies = None if dtype == fp32 else empty(K, 16 * C)
        run(launch.adamw, row, copies, row, row, row, empty(9, K, dtype=fp32), 5 * C)
    return caught


def _argument(value: Any) -> tuple[str, bool]:
    """Return the type of an argument as Triton's runtime tells it, and whether 16 divides it."""
    if isinstance(value, Tensor):
        return f"*{NAMES[value.dtype]}", True
    if value is None or value == 1:
        return "constexpr", False
    if isinstance(value, float):
        return "fp32", False
    return "i32", value % 16 == 0


def compile_for(launch: Launch, card: int) -> dict[str, int]:
    """Return registers, bytes spilt and shared memory of a kernel on cards of a capability."""
    kernel, args, kwargs = launch
    named = set(kernel.arg_names)
    options = {name: value for name, value in kwargs.items() if name not in named}
    values = dict(zip(kernel.arg_names, args, strict=False)) | {
        name: value for name, value in kwargs.items() if name in named
    }
    signature, constants, divisible = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        is_constant = "constexpr" in str(inspect.signature(kernel.fn).parameters[name].annotation)
        kind, is_divisible = ("constexpr", False) if is_constant else _argument(values[name])
        signature[name] = kind
        if kind == "constexpr":
            constants[(index,)] = values[name]
        elif is_divisible:
            divisible[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=divisible)
    made = triton.compile(source, target=GPUTarget("cuda", card, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        told = subprocess.run(
            [BIN / "cuobjdump", "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return {
        "warps": options.get("num_warps", 4),
        "registers": found["REG"],
        "spilt": found["STACK"] + found["LOCAL"],
        "shared": made.metadata.shared,
    }


def table(
    models: list[str], dtypes: list[str], cards: list[int], kernels: str = ""
) -> Iterator[dict[str, Any]]:
    """Yield a line a kernel and card; `kernels` is part of the names that are wanted."""
    for model in models:
        for dtype in dtypes:
            for one in launches(model, DTYPES[dtype]):
                name = one[0].__name__
                for card in cards if kernels in name else ():
                    yield {
                        "kernel": name, "model": model, "dtype": dtype, "card": card,
                    } | compile_for(one, card)  # fmt: skip


def shown(lines: list[dict[str, Any]]) -> str:
    """Return a table in Markdown: of each kernel the most that any launch takes."""
    cards = sorted({line["card"] for line in lines})
    dtypes = sorted({line["dtype"] for line in lines})
    names = [f"{dtype}: {what}" for dtype in dtypes for what in ("registers", "shared KiB")]
    rows = []
    for kernel in dict.fromkeys(line["kernel"] for line in lines):
        of_kernel = [line for line in lines if line["kernel"] == kernel]
        cells = []
        for dtype, what, unit in ((d, *w) for d in dtypes for w in _UNITS):
            found = [
                max(one[what] for one in of_kernel if (one["dtype"], one["card"]) == (dtype, card))
                for card in cards
            ]
            cells.append(" / ".join(f"{value / unit:.3g}" for value in found))
        spilt = sum(one["spilt"] for one in of_kernel)
        rows.append([kernel.removesuffix("_kernel"), *cells, spilt])
    return markdown(["kernel", *names, "spilt"], rows)


def main() -> None:
    """Print the table, a JSON object a line."""
    parser = build_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=["gpt2", "smollm2"])
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--cards", nargs="+", type=int, default=[80, 90, 100])
    parser.add_argument("--kernels", default="", help="part of the names of those wanted")
    parser.add_argument("--markdown", action="store_true", help="a row a kernel, at the end")
    args = vars(parser.parse_args())
    as_rows, lines = args.pop("markdown"), []
    for line in table(**args):
        lines.append(line)
        if not as_rows:
            print(json.dumps(line), flush=True)
    if as_rows:
        print(shown(lines))


if __name__ == "__main__":
    main()
