"""How many slots and blocks at once: what a GPU holds, and what measured best on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from huggingtweets.models.adapter_rows import AdapterLayout, row_size
from huggingtweets.models.layout import Layout
from huggingtweets.ops.head import CHUNK_LOGITS
from huggingtweets.training.stacked.heldout import MAX_TOKENS as JUDGED_TOKENS

MAX_SLOTS = 48
MAX_TOKENS = 2**16
"""Tokens of all slots at once: more do not make matrix products faster."""
ENOUGH_SLOTS = 8
"""Rather fewer blocks at once than fewer slots."""
CPU_SLOTS = 8
"""Of an engine."""
CPU_TOKENS = 2**11
"""Tokens of all slots at once: more fall out of the caches."""
MAX_TOGETHER = 8
"""Models that a GPU samples in one call, where there is room for so many."""
MAX_PROMPT = 32
"""Tokens of a prompt that are planned for."""
_USABLE = 0.85
"""Of what is free: the rest is for fragments, graphs and what a step needs for moments."""


@dataclass(frozen=True)
class Need:
    """What training takes of memory, in bytes."""

    slot: int
    """Of each slot: what is trained, its gradient, its moments, its copy for the products."""
    token: int
    """Of each token of a slot, until the backward pass has come by."""
    shared: int
    """By all slots."""

    def per_slot(self, tokens: int) -> int:
        """Return what a slot of so many tokens takes of its own."""
        return self.slot + tokens * self.token


def need_of(
    layout: Layout,
    dtype: torch.dtype,
    *,
    block_size: int,
    drops: bool,
    recompute: bool = False,
    rank: int = 0,
) -> Need:
    """Return what training all weights of a family takes on CUDA, or GPT-2's adapters of a rank.

    Args:
        layout: of the models.
        dtype: of the matrix products.
        block_size: T.
        drops: whether there is dropout whose masks are kept, see `Ops.hashes`.
        recompute: activations are computed again in the backward pass.
        rank: of adapters; 0: all weights are trained.
    """
    shape, size = layout.shape, dtype.itemsize
    width, heads = shape.width, shape.num_heads * shape.head_width
    # Two norms in fp32; what each product reads, queries, keys and values, and attention's output
    # before and after its heads lie side by side; what the activation reads and gives.
    layer = width * (8 + 2 * size) + size * (shape.qkv_width + 2 * heads)
    layer += size * shape.inner_width * (3 if shape.is_gated else 2)
    if shape.has_head_norms:
        layer += (4 + size) * (shape.qkv_width - shape.num_kv_heads * shape.head_width)
    if drops:  # masks, and attention weights written out
        layer += width * (8 + 3 * size) + 2 * size * shape.num_heads * block_size
    token = shape.num_layers * (4 * width if recompute else layer) + (layer if recompute else 0)
    row = row_size(layout, rank)
    base = layout.size * (4 + size if rank else 4)
    # All slots share the base, the row that ended jobs leave through, and the logits.
    return Need(_slot_bytes(row, dtype), token, base + 4 * row + _logit_bytes(dtype))


def need_of_adapters(
    model: transformers.PreTrainedModel,
    layout: AdapterLayout,
    dtype: torch.dtype,
    *,
    block_size: int,
    drops: bool,
    recompute: bool = False,
) -> Need:
    """Return what training adapters grouped on a base takes; arguments are those of `need_of`.

    Kept are what each linear layer reads and gives, two norms and the stream of a layer in fp32,
    and with dropout attention weights before and after it, with masks.
    """
    config: Any = model.config.get_text_config()
    size = dtype.itemsize
    layers, width = config.num_hidden_layers, config.hidden_size
    token = sum(place.num_in + place.num_out for place in layout.places) * size
    token += layers * 8 * width * 4
    if drops:
        token += layers * config.num_attention_heads * block_size * (3 * size + 4)
    if recompute:
        token = layers * 4 * width + token // layers
    linear = sum(place.num_in * place.num_out for place in layout.places)
    whole = sum(parameter.numel() for parameter in model.parameters())
    head = config.vocab_size * width * size
    shared = 4 * (whole - linear) + linear * size + head + 4 * layout.size
    return Need(_slot_bytes(layout.size, dtype), token, shared + _logit_bytes(dtype))


def _slot_bytes(row: int, dtype: torch.dtype) -> int:
    """Return what a slot keeps: its row, gradient and two moments in fp32, and a copy in bf16."""
    # Four values of 4 bytes each, beside the copy.
    return row * (16 if dtype == torch.float32 else 16 + dtype.itemsize)


def _logit_bytes(dtype: torch.dtype) -> int:
    return CHUNK_LOGITS["cuda"] * (4 + dtype.itemsize)


def choose_cpu_batch(
    need: Need,
    *,
    is_wide: bool,
    num_jobs: int,
    num_threads: int,
    free_bytes: int,
    global_batch_size: int,
    block_size: int,
) -> tuple[int, int, int]:
    """Return the number of engines, of slots K in all, and of blocks B at once, for a CPU.

    An engine per thread, as long as memory holds their slots; a single one for wide models.

    Args:
        need: what training takes.
        is_wide: whether a model keeps a CPU busy one by one.
        num_jobs: no more slots are of use.
        num_threads: that there are to compute with.
        free_bytes: of memory; half of it may be taken.
        global_batch_size: blocks of an optimizer step.
        block_size: T.
    """
    if is_wide:
        engines = slots = 1
    else:
        room = free_bytes // 2 // need.per_slot(block_size)
        slots = max(1, min(num_jobs, CPU_SLOTS * num_threads, room))
        engines = min(num_threads, slots)
    tokens = -(-slots // engines) * block_size
    return engines, slots, max(1, min(global_batch_size, CPU_TOKENS // tokens))


@dataclass(frozen=True)
class Finishing:
    """What sampling and judging the models that have ended take of a GPU, one call at a time."""

    layout: Layout
    num_rows: int
    """Posts drawn of each model at once."""
    num_new: int
    """Most new tokens of each."""

    @property
    def bytes_per_model(self) -> int:
        """Of a model that is sampled: weights in fp32, its rows' caches and draws.

        The cache lies there twice while rows that have ended are dropped. A draw has logits and
        weights in fp32 and sums in fp64, of which some are alive at once.
        """
        shape = self.layout.shape
        num_positions = min(shape.num_positions, self.num_new + MAX_PROMPT)
        cache = 8 * shape.num_layers * shape.num_heads * shape.head_width * num_positions
        return 4 * self.layout.size + self.num_rows * (2 * cache + 48 * shape.vocab_size)

    @property
    def judging_bytes(self) -> int:
        """Of a model that is judged: weights in fp32 and a copy for the products, activations."""
        shape = self.layout.shape
        inner = shape.qkv_width + 2 * shape.inner_width
        tokens = JUDGED_TOKENS["cuda"] * (8 * shape.width + 4 * inner)
        return 8 * self.layout.size + tokens + 6 * CHUNK_LOGITS["cuda"]

    def num_together(self, free_bytes: int) -> int:
        """Return how many models are sampled in one call, on a GPU of so much free memory."""
        return max(1, min(MAX_TOGETHER, _part(free_bytes) // self.bytes_per_model))

    def reserve(self, free_bytes: int) -> int:
        """Return what training leaves free for them.

        No more than an eighth: what finds no room there is sampled alone, or done on the CPU.
        """
        sampling = self.num_together(free_bytes) * self.bytes_per_model
        return min(max(sampling, self.judging_bytes), _part(free_bytes))


def _part(free_bytes: int) -> int:
    return free_bytes // 8


def choose_batch(
    need: Need,
    *,
    num_jobs: int,
    free_bytes: int,
    global_batch_size: int,
    block_size: int,
    reserve: int,
) -> tuple[int, int]:
    """Return the number of slots K, and of blocks B that each computes at once, for a GPU.

    Args:
        need: what training takes.
        num_jobs: no more slots are of use.
        free_bytes: of the device.
        global_batch_size: blocks of an optimizer step.
        block_size: T.
        reserve: bytes of it that `Finishing` wants.
    """
    usable = _USABLE * free_bytes - reserve - need.shared
    micro = global_batch_size
    while True:
        tokens = micro * block_size
        fitting = int(usable // need.per_slot(tokens))
        fitting = min(fitting, max(1, MAX_TOKENS // tokens))
        if fitting >= min(num_jobs, ENOUGH_SLOTS) or micro == 1:
            return max(1, min(num_jobs, MAX_SLOTS, fitting)), micro
        micro = (micro + 1) // 2
