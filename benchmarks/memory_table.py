"""Compute the memory that training needs, by model and launch file.

    python benchmarks/memory_table.py

Counted from parameters, not measured: weights, gradients, AdamW's averages and the activations of
one block. Left out: what PyTorch, NCCL and fragmentation take, one to two GiB in practice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel

SHAPES = {
    "gpt2": (12, 768),
    "gpt2-medium": (24, 1024),
    "gpt2-large": (36, 1280),
    "gpt2-xl": (48, 1600),
}
"""Layers and width."""
BLOCK = 1024
GIB = 2**30
_BUCKETS = 2 * 50_000_000 * 2
"""Bytes of the buffers that launch/deepspeed/*.json allow: two of 50 million bf16 numbers."""

BYTES: dict[str, Callable[[int, int, int], float]] = {
    # fp32 weights, their gradient, two averages; autocast keeps a bf16 copy of the weights.
    "single_gpu": lambda n, w, layer: 18 * n,
    # DDP sends gradients from buckets of its own.
    "multi_gpu": lambda n, w, layer: 22 * n,
    # bf16 weights and gradients; fp32 weights and averages are shared out,
    "zero1": lambda n, w, layer: 4 * n + 12 * n / w + _BUCKETS,
    # and so are gradients,
    "zero2": lambda n, w, layer: 2 * n + 14 * n / w + _BUCKETS,
    # and weights, of which two layers are whole at a time.
    "zero3": lambda n, w, layer: 16 * n / w + 2 * 2 * layer + _BUCKETS,
    "zero3_offload": lambda n, w, layer: 2 * 2 * layer + _BUCKETS,
    # fp32 weights, gradients and averages are shared out; two layers are whole, in bf16.
    "fsdp2": lambda n, w, layer: 16 * n / w + 2 * 2 * layer,
}
"""Bytes a process holds, by launch file: of n parameters, on w processes, with `layer` the largest
piece that is gathered at once (a transformer block or the embeddings)."""


@dataclass(frozen=True)
class Need:
    """GiB that a process needs on its device."""

    state: float
    activations: float

    @property
    def total(self) -> float:
        """GiB in all."""
        return self.state + self.activations


def num_parameters(name: str) -> tuple[int, int]:
    """Return all parameters, and those of the largest piece; counted without making them."""
    layers, width = SHAPES[name]
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=max(1, width // 64))
    with torch.device("meta"):
        model = GPT2LMHeadModel(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    block = sum(parameter.numel() for parameter in model.transformer.h[0].parameters())
    return total, max(block, model.transformer.wte.weight.numel())


def activation_bytes(name: str, block_size: int = BLOCK) -> int:
    """Return those of one block under bf16: 34 bytes per layer, token and width, and the logits.

    The count of Korthikanti et al. (2022) without attention scores, which are never kept; logits
    are made a chunk of 2**28 numbers at a time, in bf16 and fp32.
    """
    layers, width = SHAPES[name]
    return 34 * layers * block_size * width + 6 * min(block_size * 50257, 2**28)


def need(name: str, launch: str, num_processes: int) -> Need:
    """Return what one process needs for micro-batches of one block."""
    total, piece = num_parameters(name)
    state = BYTES[launch](total, num_processes, piece)
    return Need(state / GIB, activation_bytes(name) / GIB)


def table() -> str:
    """Return GiB per GPU as a Markdown table: files that share out, on 2, 4 and 8 GPUs."""
    head = ["launch file", "GPUs", *SHAPES]
    rows = [head, ["---", *["--:"] * (len(head) - 1)]]
    for launch in BYTES:
        counts = (1,) if launch == "single_gpu" else (2, 4, 8)
        if launch in ("multi_gpu", "zero3_offload"):
            counts = (2,)
        for count in counts:
            shown = f"{count}" if len(counts) > 1 or count == 1 else "any"
            gib = [f"{need(name, launch, count).total:.1f}" for name in SHAPES]
            rows.append([launch, shown, *gib])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    print(table())
