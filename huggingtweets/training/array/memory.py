"""How many slots and blocks at once: what a GPU holds, and what measured best on a CPU."""

import torch

from huggingtweets.models.layout import Layout, Shape
from huggingtweets.ops.head import CHUNK_LOGITS
from huggingtweets.ops.kernels import CPU_MAX_WIDTH
from huggingtweets.training.array.lora import adapter_places

MAX_SLOTS = 48
MAX_TOKENS = 2**16
"""Tokens of all slots at once: more do not make matrix products faster."""
ENOUGH_SLOTS = 8
"""Rather fewer blocks at once than fewer slots."""
CPU_SLOTS = 8
"""Of an engine."""
CPU_TOKENS = 2**11
"""Tokens of all slots at once: more fall out of the caches."""
FINISHING_ROWS = 6
"""Models in fp32 that sampling and judging hold at once: four sampled, one judged, and the base."""
FINISHING_OTHER = 2**29
"""Bytes of their caches and logits."""
_USABLE = 0.85
"""Of what is free: the rest is for fragments, graphs and what a step needs for moments."""


def bytes_per_slot(layout: Layout, dtype: torch.dtype, *, rank: int = 0) -> int:
    """Return what a slot keeps: weights, gradient and two moments in fp32, and a copy in bf16."""
    size = adapter_places(layout, rank)[1] if rank else layout.size
    return size * (16 + (0 if dtype == torch.float32 else dtype.itemsize))


def bytes_per_token(
    shape: Shape, dtype: torch.dtype, *, block_size: int, drops: bool, recompute: bool = False
) -> int:
    """Return what the backward pass needs of a token of a slot, on CUDA."""
    width, size = shape.width, dtype.itemsize
    heads = shape.num_heads * shape.head_width
    # Two norms in fp32; what each product reads, queries, keys and values, and attention's output
    # before and after its heads lie side by side; what the activation reads and gives.
    layer = width * (8 + 2 * size) + size * (shape.qkv_width + 2 * heads)
    layer += size * shape.inner_width * (3 if shape.is_gated else 2)
    if shape.has_head_norms:
        layer += (4 + size) * (shape.qkv_width - shape.num_kv_heads * shape.head_width)
    if drops:  # masks, and attention weights written out
        layer += width * (8 + 3 * size) + 2 * size * shape.num_heads * block_size
    if recompute:
        return shape.num_layers * 4 * width + layer
    return shape.num_layers * layer


def choose_cpu_batch(
    layout: Layout,
    *,
    num_jobs: int,
    num_threads: int,
    free_bytes: int,
    global_batch_size: int,
    block_size: int,
    dtype: torch.dtype,
    rank: int = 0,
) -> tuple[int, int, int]:
    """Return the number of engines, of slots K in all, and of blocks B at once, for a CPU.

    An engine a thread, as long as memory holds their slots; a single one for wide models.

    Args:
        layout: of the models.
        num_jobs: no more slots are of use.
        num_threads: that there are to compute with.
        free_bytes: of memory; half of it may be taken.
        global_batch_size: blocks of an optimizer step.
        block_size: T.
        dtype: of the matrix products.
        rank: of adapters; 0: all weights are trained.
    """
    if layout.shape.width > CPU_MAX_WIDTH:
        engines = slots = 1
    else:
        room = free_bytes // 2 // bytes_per_slot(layout, dtype, rank=rank)
        slots = max(1, min(num_jobs, CPU_SLOTS * num_threads, room))
        engines = min(num_threads, slots)
    tokens = -(-slots // engines) * block_size
    return engines, slots, max(1, min(global_batch_size, CPU_TOKENS // tokens))


def reckoned_bytes(
    layout: Layout,
    *,
    slots: int,
    tokens: int,
    block_size: int,
    dtype: torch.dtype,
    drops: bool,
    recompute: bool = False,
    rank: int = 0,
) -> int:
    """Return the device's memory that training on CUDA needs at its peak, without fragments.

    Args:
        layout: of the models.
        slots: K.
        tokens: of each slot at once.
        block_size: T.
        dtype: of the matrix products.
        drops: whether there is dropout.
        recompute: activations are computed again in the backward pass.
        rank: of adapters; 0: all weights are trained.
    """
    slot = bytes_per_slot(layout, dtype, rank=rank)
    token = bytes_per_token(
        layout.shape, dtype, block_size=block_size, drops=drops, recompute=recompute
    )
    return shared_bytes(layout, dtype, rank=rank) + slots * (slot + tokens * token)


def shared_bytes(layout: Layout, dtype: torch.dtype, *, rank: int = 0) -> int:
    """Return what all slots share: the base, the row that ended jobs leave through, the logits."""
    row = adapter_places(layout, rank)[1] if rank else layout.size
    base = 4 * layout.size + (layout.size * dtype.itemsize if rank else 0)
    logits = CHUNK_LOGITS["cuda"] * (4 + dtype.itemsize)
    return base + 4 * row + logits


def finishing_bytes(layout: Layout, free_bytes: int) -> int:
    """Return what is left free for sampling and judging the models that have ended.

    No more than an eighth: what finds no room there is done on the CPU.
    """
    return min(FINISHING_ROWS * 4 * layout.size + FINISHING_OTHER, free_bytes // 8)


def choose_batch(
    layout: Layout,
    *,
    num_jobs: int,
    free_bytes: int,
    global_batch_size: int,
    block_size: int,
    dtype: torch.dtype,
    drops: bool,
    recompute: bool = False,
    rank: int = 0,
) -> tuple[int, int]:
    """Return the number of slots K, and of blocks B that each computes at once, for a GPU.

    Args:
        layout: of the models.
        num_jobs: no more slots are of use.
        free_bytes: of the device.
        global_batch_size: blocks of an optimizer step.
        block_size: T.
        dtype: of the matrix products.
        drops: whether there is dropout.
        recompute: activations are computed again in the backward pass.
        rank: of adapters; 0: all weights are trained.
    """
    usable = _USABLE * free_bytes - finishing_bytes(layout, free_bytes)
    usable -= shared_bytes(layout, dtype, rank=rank)
    slot = bytes_per_slot(layout, dtype, rank=rank)
    token = bytes_per_token(
        layout.shape, dtype, block_size=block_size, drops=drops, recompute=recompute
    )
    micro = global_batch_size
    while True:
        tokens = micro * block_size
        fitting = min(int(usable // (slot + tokens * token)), max(1, MAX_TOKENS // tokens))
        if fitting >= min(num_jobs, ENOUGH_SLOTS) or micro == 1:
            return max(1, min(num_jobs, MAX_SLOTS, fitting)), micro
        micro = (micro + 1) // 2
