"""The state of K slots on the device, and the two functions that change it: all static shapes.

Nothing here reads a value back; each function is the same kernels every time, so that CUDA can
replay it as a graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from huggingtweets.models.adapter_rows import AdapterStack, row_size, stack_on_base
from huggingtweets.models.forward import micro_batch
from huggingtweets.models.layout import Layout
from huggingtweets.models.run import loss_and_gradients
from huggingtweets.models.stack import Stack, build_stack
from huggingtweets.ops.adamw import (
    Adam,
    AdamConstants,
    Controls,
    adam_step,
    adam_step_by_rows,
    build_adam,
)
from huggingtweets.ops.dropout import Dropout
from huggingtweets.ops.reference import Ops
from huggingtweets.runtime.device import (
    Event,
    current_stream,
    host_like,
    is_cuda,
    new_event,
    new_stream,
    on_stream,
    pinned_zeros,
)
from huggingtweets.training.progress import add_step, new_totals


@dataclass(frozen=True)
class Slots:
    """All that K slots keep on the device."""

    stack: Stack | AdapterStack
    """What is trained."""
    grads: Stack | AdapterStack
    """The same, of the gradients."""
    adam: Adam
    losses: Tensor
    """(K,) fp32: summed loss of the micro-steps since the last optimizer step."""
    totals: Tensor
    """(K, 4) fp64: sums since the last logged line, see `add_step`."""

    def part(self, start: int, stop: int) -> "Slots":
        """Return some neighbouring slots; shares memory."""
        return Slots(
            self.stack.slots(start, stop),
            self.grads.slots(start, stop),
            self.adam.slots(start, stop),
            self.losses[start:stop],
            self.totals[start:stop],
        )

    def load(self, slot: int, row: Tensor, scale: float = 1.0) -> None:
        """Put a model (N,) into an unused slot, or adapters and their scale."""
        self.stack.load(slot, row, scale)
        for tensor in (self.adam.first, self.adam.second, self.adam.steps, self.totals):
            tensor[slot].zero_()

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another one."""
        for tensor in self._state():
            tensor[target].copy_(tensor[source])
        self.stack.slots(target, target + 1).refresh()

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots, between optimizer steps."""
        for tensor in self._state():
            kept = tensor[one].clone()
            tensor[one].copy_(tensor[other])
            tensor[other].copy_(kept)
        for slot in (one, other):
            self.stack.slots(slot, slot + 1).refresh()

    def _state(self) -> tuple[Tensor, ...]:
        """Return what belongs to a model between optimizer steps."""
        return (
            *self.stack.state(),
            self.adam.first,
            self.adam.second,
            self.adam.steps,
            self.totals,
        )


def build_slots(layout: Layout, base: Tensor, num: int, dtype: torch.dtype, *, rank: int) -> Slots:
    """Allocate K slots on the device of the base, for products in fp32 or bf16.

    Args:
        layout: of the models.
        base: (N,) fp32; with a rank, it is the frozen base of all slots.
        num: K.
        dtype: of the products.
        rank: of adapters; 0: all weights are trained.
    """
    device = base.device
    rows = torch.zeros(num, row_size(layout, rank), device=device)
    grads = torch.zeros_like(rows)
    if rank:
        stack = stack_on_base(layout, base, rows, rank, dtype)
        grad_stack = stack_on_base(layout, base, grads, rank)
    else:
        stack = build_stack(layout, rows, dtype)
        grad_stack = build_stack(layout, grads, torch.float32)
    return slots_of(stack, grad_stack)


def slots_of(stack: Stack | AdapterStack, grads: Stack | AdapterStack) -> Slots:
    """Return slots of fresh state around what they train, and its gradients."""
    num, device = len(stack.rows), stack.rows.device
    return Slots(
        stack,
        grads,
        build_adam(stack.rows),
        torch.zeros(num, device=device),
        new_totals(num, device),
    )


class Inputs:
    """Tensors of fixed place on the device, filled on the host.

    On a CPU both are the same memory. On CUDA the host fills pinned memory while what it filled
    before is still on its way.
    """

    def __init__(
        self, shapes: dict[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device
    ) -> None:
        """Allocate zeros of the given shapes."""
        self.tensors = {
            name: torch.zeros(shape, dtype=dtype, device=device)
            for name, (shape, dtype) in shapes.items()
        }
        self._hosts = [self.tensors]
        self._sent: list[Event | None] = [None]
        if is_cuda(device):
            self._hosts = [
                {name: pinned_zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
                for _ in range(2)
            ]
            self._sent = [None, None]
        self._turn = 0

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return what to fill before `send`; it may hold anything."""
        sent = self._sent[self._turn]
        if sent is not None:
            sent.synchronize()  # sync: the copy of two fillings ago, over long since
        return {name: tensor.numpy() for name, tensor in self._hosts[self._turn].items()}

    def send(self) -> None:
        """Start the copy to the device."""
        host = self._hosts[self._turn]
        if host is self.tensors:
            return
        for name, tensor in self.tensors.items():
            tensor.copy_(host[name], non_blocking=True)
        event = self._sent[self._turn] or new_event()
        event.record()
        self._sent[self._turn] = event
        self._turn = (self._turn + 1) % len(self._hosts)


@dataclass(frozen=True)
class MicroKind:
    """What is compiled into a micro-step; the same kind is the same kernels."""

    accumulate: bool
    """Add to the gradients of the micro-steps before."""
    isolate: bool
    reach: int
    drops: bool
    fused: bool
    """PyTorch's kernels for GELU and, as they have no dropout of ours, attention without it."""
    recompute: bool
    ops: Ops
    """What computes between the products."""


def micro_inputs(
    num: int, blocks: int, block_size: int, sites: int, device: torch.device
) -> Inputs:
    """Return the inputs of a micro-step of K slots: tokens (3, K, B, T) and dropout keys."""
    return Inputs(
        {
            "tokens": ((3, num, blocks, block_size), torch.int64),
            "keys": ((sites, num * blocks, 2), torch.int32),
        },
        device,
    )


def step_inputs(num: int, blocks: int, device: torch.device) -> Inputs:
    """Return the inputs of an optimizer step: Controls (9, K), and the dropout of K * B blocks."""
    return Inputs(
        {
            "controls": ((9, num), torch.float32),
            "thresholds": ((3, num * blocks), torch.int16),
            "scales": ((3, num * blocks), torch.float32),
        },
        device,
    )


def add_micro_batch(
    slots: Slots, micro: Mapping[str, Tensor], step: Mapping[str, Tensor], kind: MicroKind
) -> None:
    """Add the losses and gradients of a micro-batch; see `micro_inputs` and `step_inputs`."""
    stack, grads = slots.stack, slots.grads
    assert isinstance(stack, Stack)
    assert isinstance(grads, Stack)
    dropout = None
    if kind.drops:
        dropout = Dropout(micro["keys"], step["thresholds"], step["scales"])
    input_ids, targets, position_ids = micro["tokens"].unbind(0)
    batch = micro_batch(
        stack.shape,
        (input_ids, targets, position_ids),
        isolate=kind.isolate,
        reach=kind.reach,
        use_fused=kind.fused and not kind.drops,
        dropout=dropout,
        ops=kind.ops,
        fused_gelu=kind.fused,
    )
    losses = loss_and_gradients(
        stack,
        grads,
        batch,
        Controls(*step["controls"].unbind(0)).weight,
        accumulate=kind.accumulate,
        recompute=kind.recompute,
    )
    slots.losses.add_(losses)


@torch.no_grad()
def finish_step(
    slots: Slots,
    step: Inputs,
    constants: AdamConstants | None,
    *,
    num_decayed: int,
    ops: Ops,
) -> None:
    """Take the optimizer step and add what it was to the totals.

    Without constants by `ops`, which has a kernel that takes all settings as data.
    """
    controls = Controls(*step.tensors["controls"].unbind(0))
    stack, grads = slots.stack, slots.grads.rows
    copies = stack.copies
    if constants is None:
        norms, taken = adam_step_by_rows(
            stack.rows, copies, grads, slots.adam, controls, ops, num_decayed=num_decayed
        )
    else:
        norms, taken = adam_step(
            stack.rows, grads, slots.adam, controls, constants, num_decayed=num_decayed
        )
    if constants is not None or copies is None:
        stack.refresh()
    add_step(
        slots.totals,
        slots.losses,
        norms,
        taken=taken,
        num_targets=controls.num_targets,
        is_due=controls.is_due,
    )
    slots.losses.zero_()


class Snapshot:
    """A copy of a tensor on its way to CPU memory; training goes on meanwhile."""

    def __init__(self, copy: Tensor, event: Event | None = None) -> None:
        """Hold a copy on the CPU, and the event of its arrival; None: it is there."""
        self._copy = copy
        self._event = event

    def is_ready(self) -> bool:
        """Whether the copy has arrived."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def row(self) -> Tensor:
        """Return the copy, after it has arrived."""
        if self._event is not None:
            self._event.synchronize()  # sync: a job that is done, a line that is due
        return self._copy


def snapshot_of(tensor: Tensor) -> Snapshot:
    """Start copying a small tensor, in its turn among the steps."""
    if not is_cuda(tensor.device):
        return Snapshot(tensor.detach().clone())
    copy = host_like(tensor).copy_(tensor.detach(), non_blocking=True)
    event = new_event()
    event.record()
    return Snapshot(copy, event)


class Outbox:
    """Sends rows to CPU memory beside training, through one row of the device kept for it.

    However many jobs end together, no further memory of the device is needed: the next copy waits,
    on the device, until the one before has left. That is 20 ms for GPT-2 over PCIe [estimated].
    """

    def __init__(self, like: Tensor) -> None:
        """Take the room of a row (N,) where it lies on a GPU."""
        self._stream = new_stream(like.device)
        self._kept = like if self._stream is None else torch.empty_like(like)
        self._sent: Event | None = None

    def send(self, row: Tensor) -> Snapshot:
        """Start the copy of a row as it is now, in its turn among the steps."""
        if self._stream is None:
            return Snapshot(row.detach().clone())
        copy = host_like(row)
        training = current_stream(row.device)
        if self._sent is not None:
            training.wait_event(self._sent)
        self._kept.copy_(row.detach())
        self._stream.wait_stream(training)
        with on_stream(self._stream):
            copy.copy_(self._kept, non_blocking=True)
            self._sent = new_event()
            self._sent.record(self._stream)
        return Snapshot(copy, self._sent)
