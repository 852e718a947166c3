"""LoRA of any causal language model, K jobs at once: adapters grouped on one frozen base.

Where posts may look, which attention does it, and how posts are scored is what the single engine
does (`SummedLoss`): a job's figures do not depend on the engine, but for rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.bases.model import Base, largest_dropout, load_model
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import IGNORED
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.errors import first_line
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.models.adapter_rows import (
    AdapterStack,
    adapter_layout,
    build_adapter_stack,
    linear_layers,
)
from huggingtweets.models.grouped import GroupedModel, SlotDropout, sharing_copy
from huggingtweets.ops.adamw import Controls
from huggingtweets.ops.head import Head, summed_loss
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.runtime.device import by_kind, is_cpu
from huggingtweets.training.extraction import SetScores, read_scores
from huggingtweets.training.modules.attention import (
    Attention,
    SlotWindows,
    document_mask,
    windows_of,
)
from huggingtweets.training.modules.cross_entropy import rows_with_target
from huggingtweets.training.modules.loss import (
    SummedLoss,
    settle_attention,
    swap_modules,
)
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.heldout import MAX_TOKENS
from huggingtweets.training.stacked.jobs import Exported
from huggingtweets.training.stacked.memory import Need, need_of_adapters
from huggingtweets.training.stacked.slots import Inputs, MicroKind, Slots, slots_of
from huggingtweets.training.stacked.tuning import StackedSettings


class GroupedTuning:
    """Adapters of one rank, or less, for K jobs on a base; threads share it."""

    is_wide = False
    """However wide a base is: slots share its weights, and engines wait for nothing."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        rank: int,
        device: torch.device,
        *,
        bos_id: int,
        block_size: int,
    ) -> None:
        """Begin with a base, and find the attention that keeps its posts apart.

        Args:
            model: fp32 on the CPU; it stays as it is.
            rank: the largest of the batch.
            device: to train on.
            bos_id: begins posts.
            block_size: T, the largest of the batch.
        """
        self.model, self.rank, self.device, self.bos_id = model, rank, device, bos_id
        self.layout = adapter_layout(model, rank)
        attention = Attention.windows if is_cpu(device) else Attention.masked
        module = SummedLoss(
            sharing_copy(model), isolate=True, attention=attention, longest_document=block_size
        )
        self.is_causal = settle_attention(module, bos_id)
        self.attention = module.attention
        self.has_plain_head = _has_plain_head(module.model.eval(), bos_id)
        self._lock = threading.Lock()
        self._cast: dict[torch.dtype, transformers.PreTrainedModel] = {torch.float32: model}

    @property
    def why_not(self) -> str | None:
        """Why blocks of all slots cannot go through the base side by side, or None."""
        if not self.is_causal or self.attention is Attention.apart:
            return "its posts go through it one by one"
        return _why_not_apart(self)

    def model_in(self, dtype: torch.dtype) -> transformers.PreTrainedModel:
        """Return the base with its linear weights in a precision: on a CPU all engines share it."""
        with self._lock:
            if dtype not in self._cast:
                self._cast[dtype] = sharing_copy(self.model)
                for _, module in linear_layers(self._cast[dtype]):
                    module.to(dtype)
            return self._cast[dtype]

    def hold(self, num: int, device: torch.device, settings: StackedSettings) -> HeldAdapters:
        """See `Tuning`; an architecture's own code is not compiled, and brings its own kernels."""
        # Of attention and norms an architecture has its own; the rest is ours.
        names = tuple(name for name in settings.triton if name in ("loss", "adamw", "lora"))
        ops = choose_ops(device, 0, 0, triton=names)
        base = GroupedBase(self, device, settings.dtype, ops)
        rows, grads = (torch.zeros(num, self.layout.size, device=device) for _ in range(2))
        slots = slots_of(
            build_adapter_stack(self.layout, rows, settings.dtype),
            build_adapter_stack(self.layout, grads, torch.float32),
        )
        return HeldAdapters(self, base, slots, ops)

    def rates(self, recipe: RecipeConfig) -> tuple[float, float, float]:
        """Return the job's dropout, and a mark where the base's own count instead."""
        if recipe.dropout is not None:
            return recipe.dropout, 0.0, 0.0
        # The mark is a rate of one half: so the scale of its place, 1 / (1 - p), exceeds 1, by
        # which `HeldAdapters.micro_step` knows it on the device.
        return 0.0, 0.5 * (largest_dropout(self.model.config) > 0), 0.0

    def need(self, settings: StackedSettings, device: torch.device, *, drops: bool) -> Need:
        """See `Tuning`; dropout is an architecture's own, whose masks are kept."""
        return need_of_adapters(
            self.model,
            self.layout,
            settings.dtype,
            block_size=settings.block_size,
            drops=drops,
            recompute=settings.recompute,
        )

    def export(self, row: Tensor, recipe: RecipeConfig) -> Exported:
        """See `Tuning`."""
        return Exported(None, self.layout.peft_state(row, recipe.lora_rank))


def why_not_grouped(base: Base, recipe: RecipeConfig) -> str | None:
    """Return in one sentence why adapters of a base cannot be stacked, or None.

    Asked of the very model, as an architecture may do anything: a few words, in a second or two.
    """
    tuning = GroupedTuning(
        load_model(base, recipe),
        recipe.lora_rank,
        torch.device("cpu"),
        bos_id=base.codec.bos_id,
        block_size=recipe.block_size,
    )
    reason = tuning.why_not
    return (
        reason and f"adapters of {base.name} ({base.config.model_type}) are not stacked: {reason}"
    )


class GroupedBase:
    """A base on a device, and how its blocks are computed for adapters; of one thread."""

    def __init__(
        self,
        tuning: GroupedTuning,
        device: torch.device,
        dtype: torch.dtype,
        ops: Ops = PYTORCH,
    ) -> None:
        """Put it there, with its linear weights in the precision of the products."""
        self.device, self.dtype = device, dtype
        base = tuning.model_in(dtype) if is_cpu(device) else tuning.model
        self.grouped = GroupedModel(base, device, dtype, ops)
        model: Any = self.grouped.model
        swap_modules(model, dropouts=False)
        self.module = SummedLoss(model, isolate=True, attention=tuning.attention).eval()
        if tuning.attention is Attention.additive:
            model.set_attn_implementation("eager")
        if tuning.has_plain_head:
            self.module.frozen_head = model.get_output_embeddings().weight.detach().to(dtype)

    def losses(
        self,
        blocks: tuple[Tensor, Tensor, Tensor],
        weight: Tensor,
        dropout: SlotDropout | None,
        ops: Ops,
    ) -> Tensor:
        """Return each slot's summed loss (K,) in nats, to be differentiated by `backward(weight)`.

        Args:
            blocks: ids, targets and positions, (K, B, T) int64 each.
            weight: (K,) what each slot's loss is multiplied by.
            dropout: of the pass.
            ops: what computes the cross-entropy.
        """
        input_ids, targets, position_ids = blocks
        K = len(targets)
        inputs = self._inputs(input_ids, position_ids, dropout)
        model: Any = self.grouped.model
        table = self.module.frozen_head
        if table is None:
            logits = model(**inputs).logits.view(K, -1, model.config.get_text_config().vocab_size)
            each = [
                F.cross_entropy(one.float(), goal, ignore_index=IGNORED, reduction="sum")
                for one, goal in zip(logits, targets.flatten(1), strict=True)
            ]
            return torch.stack(each)
        hidden = model.base_model(**inputs).last_hidden_state
        hidden = hidden.to(self.dtype).view(K, -1, hidden.shape[-1])
        loss: Tensor = _HeadLoss.apply(hidden, table.unsqueeze(0), targets.flatten(1), weight, ops)  # type: ignore[no-untyped-call]
        return loss

    def _inputs(
        self, input_ids: Tensor, position_ids: Tensor, dropout: SlotDropout | None
    ) -> dict[str, Any]:
        """Return what the model is called with: the windows of a slot are of its own blocks."""
        inputs = self.module.inputs(input_ids.flatten(0, 1), position_ids.flatten(0, 1))
        if self.module.attention is Attention.windows:
            windows = [windows_of(own, isolate=True, dtype=self.dtype) for own in position_ids]
            mask = None if dropout is None else document_mask(position_ids.flatten(0, 1))
            inputs["spans"] = SlotWindows(tuple(windows), mask, self.grouped.now)
        return inputs

    def score(self, posts: HeldoutSet) -> SetScores:
        """Score posts with the adapters of a single slot, or with none."""
        size = max(1, by_kind(MAX_TOKENS, self.device) // posts.blocks.input_ids.shape[1])
        return read_scores(posts, *self.module.score(posts.blocks, size, self.device))


class HeldAdapters:
    """See `Held`."""

    def __init__(self, tuning: GroupedTuning, base: GroupedBase, slots: Slots, ops: Ops) -> None:
        """Hold a base, and slots for adapters on it."""
        self._tuning, self._base, self.slots, self.ops = tuning, base, slots, ops
        self.num_sites = base.grouped.num_sites
        self.num_decayed = tuning.layout.size

    def start(self, job: TrainingJob) -> tuple[Tensor, float]:
        """See `Held`."""
        recipe = job.recipe
        row = self._tuning.layout.fresh(recipe.lora_rank, seed=job.seed)
        return row, recipe.lora_alpha / recipe.lora_rank

    def micro_step(self, slots: Slots, micro: Inputs, step: Inputs, kind: MicroKind) -> None:
        """See `Held`."""
        stack, grads = slots.stack, slots.grads
        assert isinstance(stack, AdapterStack)
        assert isinstance(grads, AdapterStack)
        if not kind.accumulate:
            grads.rows.zero_()
        dropout = None
        if kind.drops:
            scales = step.tensors["scales"]
            dropout = SlotDropout(
                num_slots=len(stack.rows),
                keys=micro.tensors["keys"],
                thresholds=step.tensors["thresholds"][0],
                scales=scales[0],
                is_base=scales[1] > 1,
            )
        weight = Controls(*step.tensors["controls"].unbind(0)).weight
        blocks = micro.tensors["tokens"].unbind(0)
        with (
            torch.enable_grad(),
            self._base.grouped.computing(stack, grads, dropout, recompute=kind.recompute),
        ):
            losses = self._base.losses(blocks, weight, dropout, kind.ops)  # type: ignore[arg-type]
            losses.backward(weight)  # type: ignore[no-untyped-call]
        slots.losses.add_(losses.detach())

    def score(self, first: int, sets: Sequence[HeldoutSet | None]) -> Sequence[SetScores | None]:
        """See `Held`."""
        stack = self.slots.stack
        assert isinstance(stack, AdapterStack)
        found: list[SetScores | None] = []
        for slot, posts in enumerate(sets, first):
            with self._base.grouped.computing(stack.slots(slot, slot + 1)):
                found.append(self._base.score(posts) if posts else None)
        return found


@torch.no_grad()
def _has_plain_head(model: Any, bos_id: int) -> bool:
    """Whether logits are hidden states times the output embedding, and nothing more.

    Some scale or cap their logits, or add a bias: asked of the very model.
    """
    ids = torch.tensor([[bos_id, 5, 6, 7]])
    try:
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        wanted = model(input_ids=ids, use_cache=False).logits
        found = hidden @ model.get_output_embeddings().weight.T
        return torch.allclose(found, wanted, rtol=1e-3, atol=1e-3)
    except (AttributeError, RuntimeError, TypeError):
        return False


@torch.no_grad()
def _why_not_apart(tuning: GroupedTuning) -> str | None:
    """Compare what two slots of unlike adapters compute with each alone, on a few words."""
    layout = tuning.layout
    rows = torch.stack([layout.fresh(tuning.rank, seed=seed) for seed in (0, 1)])
    for adapter in layout.views(rows):
        adapter.up.fill_(0.01)
    stack = build_adapter_stack(layout, rows, torch.float32)
    base = GroupedBase(tuning, torch.device("cpu"), torch.float32)
    ids = torch.tensor([[[tuning.bos_id, 5, 6, 7]], [[tuning.bos_id, 8, 9, 10]]])
    positions = torch.arange(4).expand_as(ids)
    targets, ops = ids.roll(-1, 2), choose_ops(base.device, 0, 0)
    found = []
    try:
        for slots in (slice(0, 2), slice(0, 1), slice(1, 2)):
            part = stack.slots(slots.start, slots.stop)
            blocks = (ids[slots], targets[slots], positions[slots])
            with base.grouped.computing(part):
                found.append(base.losses(blocks, part.scale, None, ops))
    except (RuntimeError, TypeError, ValueError) as err:
        return f"it does not compute block by block ({first_line(err)})"
    if torch.allclose(found[0], torch.cat(found[1:]), rtol=1e-4):
        return None
    return "what it computes of a block depends on the others"


class _HeadLoss(torch.autograd.Function):
    """The frozen output embedding and cross-entropy; gradients are taken while logits are there."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, weight: Tensor, ops: Ops
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            if is_cpu(hidden.device):
                loss, grad = _slot_by_slot(hidden, table, targets, weight, ops)
            else:
                head = Head(table, table.shape[1])
                loss, grad = summed_loss(hidden, head, targets, weight, ops)
        ctx.save_for_backward(grad.to(hidden.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad, None, None, None, None


def _slot_by_slot(
    hidden: Tensor, table: Tensor, targets: Tensor, weight: Tensor, ops: Ops
) -> tuple[Tensor, Tensor]:
    """Do it for one slot after another, without rows that have no target, up to a multiple of 64.

    How many logits are held at a time, and so a slot's bits, do not depend on K then.
    """
    losses, grad = [], torch.zeros_like(hidden)
    for slot, goals in enumerate(targets):
        rows: Any = rows_with_target(goals)
        if rows is None:
            rows = slice(None)
        loss, own = summed_loss(
            hidden[slot, rows].unsqueeze(0),
            Head(table, table.shape[1]),
            goals[rows].unsqueeze(0),
            weight[slot : slot + 1],
            ops,
        )
        losses.append(loss)
        if len(own[0]):
            grad[slot, rows] = own[0].to(grad.dtype)
    return torch.cat(losses), grad
