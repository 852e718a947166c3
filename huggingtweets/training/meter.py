"""Speed and its limit: tokens per second, model FLOPs utilisation, peak memory, start-up."""

from __future__ import annotations

import logging
import re
import resource
import sys
import time

import psutil
import torch
import transformers

from huggingtweets.models.layout import Layout
from huggingtweets.runtime.device import device_name, is_cuda, peak_bytes

logger = logging.getLogger(__name__)

PEAK_TFLOPS = {
    "H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H800": 989.0, "H20": 148.0,
    "H200 NVL": 835.0, "H200": 989.0, "GH200": 989.0,
    "B200": 2250.0, "GB200": 2500.0, "B300": 2250.0, "GB300": 2500.0,
    "A100": 312.0, "A800": 312.0, "A10": 125.0, "A10G": 70.0, "A40": 149.7, "RTX A6000": 155.0,
    "L40S": 362.0, "L40": 181.0, "L4": 121.0, "V100": 125.0, "T4": 65.0,
    "RTX 6000 Ada": 364.0, "RTX 3090": 71.0, "RTX 4090": 165.0, "RTX 5090": 209.5,
    "MI300X": 1307.0,
}  # fmt: skip
"""Dense bf16 (V100, T4: fp16) tensor-core peak of one device with sums in fp32, from the makers'
data sheets, by words of its name; of several that fit, the longest counts."""


def flops_per_token(model: transformers.PreTrainedModel, mean_context: float) -> float:
    """Return the arithmetic of one trained token, forward and backward, in FLOP.

    6 for each weight of a matrix product (the head's included, embeddings looked up are not), and
    12 * layers * heads * head width for each position attended to; recomputation does not count.

    Args:
        model: the whole model, not a shard of it.
        mean_context: positions a token attends to on average, its own included.
    """
    config = model.config
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    positions = getattr(getattr(model, "transformer", None), "wpe", None)
    num_matmul = sum(p.numel() for p in model.parameters()) + (head.numel() if head is table else 0)
    num_matmul -= table.numel() + (positions.weight.numel() if positions is not None else 0)
    layers = getattr(config, "num_hidden_layers", 0)
    width = getattr(config, "hidden_size", 0)
    if head_width := getattr(config, "head_dim", None):  # of Qwen 3 and others more than the width
        width = config.num_attention_heads * head_width
    return _flops(num_matmul, layers * width, mean_context)


def flops_of_layout(layout: Layout, mean_context: float) -> float:
    """Return what `flops_per_token` says of the models of a layout."""
    shape = layout.shape
    depth = shape.num_layers * shape.num_heads * shape.head_width
    return _flops(layout.num_multiplied, depth, mean_context)


def _flops(num_matmul: int, depth: int, mean_context: float) -> float:
    # A product takes 2 FLOP per weight forward and, for its two gradients, 4 backward. Attention
    # has two products per position looked at (scores, sums of values), each as wide as all heads.
    return 6.0 * num_matmul + 12.0 * depth * mean_context


def peak_flops(device: torch.device, override_tflops: float | None) -> float | None:
    """Return the peak of one device in FLOP/s, or None where it is not known."""
    if override_tflops is not None:
        return override_tflops * 1e12
    if not is_cuda(device):
        return None
    name = device_name(device)
    peak = known_peak(name)
    if peak is None:
        logger.warning(
            "no MFU: the peak of %r is not known; set engine.peak_tflops to that of its data sheet "
            "(dense bf16)",
            name,
        )
        return None
    return peak * 1e12


def known_peak(name: str) -> float | None:
    """Return the peak of a device in TFLOP/s by its name, or None."""
    words = re.split(r"[\s-]+", name)
    text = f" {' '.join(words)} "
    # Slower ones of the same name, and a share of one: "A100-SXM4-40GB MIG 1g.5gb".
    if " Laptop " in text or " MIG " in text or text.endswith(" D "):
        return None
    fitting = [part for part in PEAK_TFLOPS if f" {part} " in text]
    return PEAK_TFLOPS[max(fitting, key=len)] if fitting else None


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory in GiB: allocated on a GPU, or on a CPU taken by the process."""
    if is_cuda(device):
        return peak_bytes(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def command_began() -> float:
    """Return when this process was started, on the clock of `time.monotonic`.

    Where the system does not say, the moment of asking.
    """
    try:
        age_s = time.time() - psutil.Process().create_time()
    except (psutil.Error, OSError):
        return time.monotonic()
    return time.monotonic() - max(0.0, age_s)


def available_bytes() -> int:
    """Memory that can be had without swapping; without end where the system does not say."""
    try:
        return int(psutil.virtual_memory().available)
    except (psutil.Error, OSError):
        return 1 << 62
