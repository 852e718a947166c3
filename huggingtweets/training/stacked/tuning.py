"""What the slots of an engine hold, and what is computed with it: a way of fine-tuning K models.

The loop knows slots, jobs and steps. Whether a slot holds all weights of a model (`FullTuning`) or
adapters on a frozen base (`GroupedTuning`, in `grouped.py`) is said by a `Tuning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.kernels.choose import CPU_MAX_WIDTH, choose_ops
from huggingtweets.models.adapter_rows import adapters_of, merged_row
from huggingtweets.models.layout import Layout
from huggingtweets.models.stack import Stack
from huggingtweets.ops.dropout import num_sites
from huggingtweets.ops.reference import TRITON, Ops
from huggingtweets.ops.traced import TracedOps
from huggingtweets.runtime.device import is_cuda
from huggingtweets.training.extraction import SetScores
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.heldout import score_sets
from huggingtweets.training.stacked.jobs import Exported, adapter_rank
from huggingtweets.training.stacked.memory import Need, need_of
from huggingtweets.training.stacked.one_graph import CompiledSteps
from huggingtweets.training.stacked.slots import (
    Inputs,
    MicroKind,
    Slots,
    add_micro_batch,
    build_slots,
)


class Held(Protocol):
    """K slots on a device; of one engine."""

    slots: Slots
    ops: Ops
    """What computes between the products."""
    num_sites: int
    """Dropout masks of a micro-batch."""
    num_decayed: int
    """Leading values of a row to which weight decay applies."""

    def start(self, job: TrainingJob) -> tuple[Tensor, float]:
        """Return the row (N,) that a job begins with, and the scale of its adapters."""

    def micro_step(self, slots: Slots, micro: Inputs, step: Inputs, kind: MicroKind) -> None:
        """Add the losses and gradients of one micro-batch, by static shapes and without a look."""

    def score(self, first: int, sets: Sequence[HeldoutSet | None]) -> Sequence[SetScores | None]:
        """Score a set of posts in each of neighbouring slots, the first of them given."""


@dataclass(frozen=True)
class StackedSettings:
    """How it is computed; changes no result beyond rounding."""

    slots: int
    """K."""
    micro_batch_size: int
    """B, blocks of each slot computed at once."""
    block_size: int
    """T, the largest of the batch."""
    dtype: torch.dtype = torch.float32
    """Of the matrix products: fp32 or bf16."""
    log_every: int = 10
    compile: bool = False
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    use_graphs: bool = True
    """Replay CUDA graphs."""
    overlap: bool = False
    """On CUDA, take AdamW of half the slots beside the products of the others; see `step`."""
    fused_kernels: bool = True
    """On CUDA, take PyTorch's kernels for attention and GELU; see `look`."""
    triton: tuple[str, ...] = TRITON
    """On CUDA, take these kinds of ours in Triton before PyTorch's; see `look`."""
    engines: int = 1
    """That share the slots, a thread each; see `pool`."""

    def has_kernels(self, device: torch.device) -> bool:
        """Whether PyTorch's fused kernels compute on a device."""
        return is_cuda(device) and self.fused_kernels


class Tuning(Protocol):
    """A way of fine-tuning; threads share it."""

    rank: int
    """Of the slots' adapters; 0: all weights are trained."""

    def hold(self, num: int, device: torch.device, settings: StackedSettings) -> Held:
        """Allocate K slots.

        Args:
            num: K.
            device: to hold them on.
            settings: how to compute.
        """

    @property
    def is_wide(self) -> bool:
        """Whether a single slot keeps a CPU busy."""

    def need(self, settings: StackedSettings, device: torch.device, *, drops: bool) -> Need:
        """Return what training takes of memory, with dropout or without; see `need_of`."""

    def rates(self, recipe: RecipeConfig) -> tuple[float, float, float]:
        """Return what a slot is told of a job's dropout."""

    def export(self, row: Tensor, recipe: RecipeConfig) -> Exported:
        """Turn a row of the engine into weights."""


class FullTuning:
    """All weights of K models of a family; adapters of a GPT-2, given a rank."""

    def __init__(self, layout: Layout, base: Tensor, rank: int = 0) -> None:
        """Begin with a base (N,) on the CPU, see `Layout.pack`."""
        self.layout, self.base, self.rank = layout, base, rank
        self.adapters = adapters_of(layout, rank)

    def hold(self, num: int, device: torch.device, settings: StackedSettings) -> "HeldModels":
        """See `Tuning`."""
        return HeldModels(self, num, device, settings)

    def ops(self, settings: StackedSettings, device: torch.device) -> Ops:
        """Return what computes between the products."""
        if settings.compile:
            return TracedOps()
        shape = self.layout.shape
        return choose_ops(
            device, shape.width, settings.block_size, shape.head_width, settings.triton
        )

    @property
    def is_wide(self) -> bool:
        """See `Tuning`."""
        return self.layout.shape.width > CPU_MAX_WIDTH

    def need(self, settings: StackedSettings, device: torch.device, *, drops: bool) -> Need:
        """See `Tuning`."""
        return need_of(
            self.layout,
            settings.dtype,
            block_size=settings.block_size,
            drops=drops and not self.ops(settings, device).hashes,
            recompute=settings.recompute,
            rank=self.rank,
        )

    def rates(self, recipe: RecipeConfig) -> tuple[float, float, float]:
        """Return the dropout of embeddings, attention and residuals."""
        return self.layout.shape.dropouts_at(recipe.dropout)

    def export(self, row: Tensor, recipe: RecipeConfig) -> Exported:
        """See `Tuning`."""
        if not self.rank:
            return Exported(self.layout.unpack(row))
        scale = recipe.lora_alpha / recipe.lora_rank
        merged = merged_row(self.layout, self.base, self.adapters, row, scale)
        adapters = self.adapters.peft_state(row, recipe.lora_rank)
        return Exported(self.layout.unpack(merged), adapters)


class HeldModels:
    """See `Held`."""

    def __init__(
        self,
        tuning: FullTuning,
        num: int,
        device: torch.device,
        settings: StackedSettings,
    ) -> None:
        """Allocate them."""
        layout, dtype = tuning.layout, settings.dtype
        self._tuning, self._has_kernels = tuning, settings.has_kernels(device)
        self._compiled = CompiledSteps() if settings.compile else None
        self._base = tuning.base.to(device, torch.float32)
        self.ops = tuning.ops(settings, device)
        self.slots = build_slots(layout, self._base, num, dtype, rank=tuning.rank)
        self.num_sites = num_sites(layout.shape.num_layers, layout.shape.num_heads)
        self.num_decayed = self.slots.stack.rows.shape[1] if tuning.rank else layout.num_decayed

    def start(self, job: TrainingJob) -> tuple[Tensor, float]:
        """See `Held`."""
        rank, recipe = adapter_rank(job.recipe), job.recipe
        if not rank:
            return self._base, 1.0
        row = self._tuning.adapters.fresh(rank, seed=job.seed)
        return row, recipe.lora_alpha / rank

    def micro_step(self, slots: Slots, micro: Inputs, step: Inputs, kind: MicroKind) -> None:
        """See `Held`."""
        if self._compiled is not None:
            self._compiled.micro_step(slots, micro, step, kind)
        else:
            add_micro_batch(slots, micro.tensors, step.tensors, kind)

    def score(self, first: int, sets: Sequence[HeldoutSet | None]) -> Sequence[SetScores | None]:
        """See `Held`."""
        stack = self.slots.stack
        assert isinstance(stack, Stack)
        return score_sets(
            stack.slots(first, first + len(sets)),
            sets,
            use_fused=self._has_kernels,
            ops=self.ops,
        )
