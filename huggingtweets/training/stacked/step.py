"""One optimizer step of all busy slots: their micro-batches, then AdamW; on CUDA as graphs."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.ops.adamw import AdamConstants, constants_of
from huggingtweets.runtime.device import (
    Stream,
    current_stream,
    is_cuda,
    new_stream,
    on_stream,
)
from huggingtweets.runtime.graphs import Replay
from huggingtweets.training.stacked.jobs import SlotState, fill_micro, fill_step
from huggingtweets.training.stacked.slots import (
    Inputs,
    MicroKind,
    Slots,
    finish_step,
    micro_inputs,
    step_inputs,
)
from huggingtweets.training.stacked.tuning import Held, StackedSettings

OVERLAP_TOKENS = 4096
"""Tokens of a slot's step from which on AdamW of half the slots is taken beside the products of the
others. Products of fewer tokens need most of a GPU's bandwidth themselves, and AdamW needs all
[estimated, docs/performance.md]."""


def overlaps(recipe: RecipeConfig, rank: int, device: torch.device) -> bool:
    """Whether AdamW beside products is worth twice the launches; of adapters it takes no time."""
    tokens = recipe.global_batch_size * recipe.block_size
    return is_cuda(device) and not rank and tokens >= OVERLAP_TOKENS


class Stepper:
    """Takes the steps of an engine's slots."""

    def __init__(self, held: Held, settings: StackedSettings, device: torch.device) -> None:
        """Allocate nothing yet."""
        self._held, self._settings, self._device = held, settings, device
        self._num_slots = len(held.slots.losses)
        self._parts: dict[tuple[int, int], tuple[Slots, Inputs, Inputs]] = {}
        self._has_few_kinds = is_cuda(device) or settings.compile
        has_graphs = is_cuda(device) and settings.use_graphs
        self._replay = Replay(enabled=has_graphs)
        self._beside: tuple[Stream, Replay] | None = None
        stream = new_stream(device) if settings.overlap else None
        if stream is not None:
            # Graphs of one pool share memory, and so must not run at once.
            self._beside = stream, Replay(enabled=has_graphs)

    def take(self, states: Sequence[SlotState]) -> None:
        """Take one optimizer step in every busy slot; the busy ones are the first."""
        *early, last = self._groups(len(states))
        for first, num in early:
            self._add_gradients(states, first, num)
            with self._elsewhere() as replay:
                self._update(states, first, num, replay)
        self._add_gradients(states, *last)
        self._update(states, *last, self._replay)
        if self._beside is not None:
            current_stream(self._device).wait_stream(self._beside[0])

    def _groups(self, count: int) -> list[tuple[int, int]]:
        """Return the first slot and the number of those that take their step together, in turn."""
        num = self._width(count, self._num_slots)
        if self._beside is None or num == 1:
            return [(0, num)]
        # Large batches lie first, see `_Engine._close_gaps`: they are the longer to compute beside.
        return [(num // 2, num - num // 2), (0, num // 2)]

    @contextmanager
    def _elsewhere(self) -> Iterator[Replay]:
        """Have what is launched begin after all that was launched, and run beside what will be."""
        assert self._beside is not None
        stream, replay = self._beside
        stream.wait_stream(current_stream(self._device))
        with on_stream(stream):
            yield replay

    def _width(self, count: int, most: int) -> int:
        """Return how many slots to compute, at least so many.

        On CUDA and where steps are compiled there are few widths, as of each there is a graph.
        """
        if not self._has_few_kinds:
            return count
        while most // 2 >= count:
            most //= 2
        return most

    def _part(self, first: int, num: int) -> tuple[Slots, Inputs, Inputs]:
        """Return neighbouring slots and their inputs."""
        if (first, num) not in self._parts:
            size, sites = self._settings.micro_batch_size, self._held.num_sites
            self._parts[first, num] = (
                self._held.slots.part(first, first + num),
                micro_inputs(num, size, self._settings.block_size, sites, self._device),
                step_inputs(num, size, self._device),
            )
        return self._parts[first, num]

    def _add_gradients(self, states: Sequence[SlotState], first: int, num: int) -> None:
        """Compute all micro-batches of neighbouring slots, and set what their update reads."""
        own = [state for state in states if first <= state.slot < first + num]
        size = self._settings.micro_batch_size
        fill_step(self._part(first, num)[2], own, num, first)
        filled = {num}
        for index in range(max(-(-len(state.training.blocks) // size) for state in own)):
            left = [state for state in own if len(state.training.blocks) > index * size]
            width = self._width(max(state.slot for state in left) + 1 - first, num)
            part, micro, inputs = self._part(first, width)
            if width not in filled:
                inside = [state for state in own if state.slot < first + width]
                fill_step(inputs, inside, width, first)
                filled.add(width)
            reach = fill_micro(micro, left, index, first)
            kind = self._kind(states, reach, accumulate=index > 0)
            run = partial(self._held.micro_step, part, micro, inputs, kind)
            self._replay.run((first, width, kind), run)

    def _update(self, states: Sequence[SlotState], first: int, num: int, replay: Replay) -> None:
        """Take the optimizer step of neighbouring slots."""
        slots, _, step = self._part(first, num)
        constants = None
        if self._held.ops.adamw is None:
            recipes = {state.slot: state.job.recipe for state in states}
            constants = constants_of(
                [recipes.get(slot) for slot in range(first, first + num)], self._device
            )
        run = partial(
            finish_step,
            slots,
            step,
            constants,
            num_decayed=self._held.num_decayed,
            ops=self._held.ops,
        )
        replay.forget(lambda key: _is_stale(key, (first, num), constants))
        replay.run((first, num, constants), run)

    def _kind(self, states: Sequence[SlotState], reach: int, *, accumulate: bool) -> MicroKind:
        """Return what this micro-step is; few kinds where there is a graph of each."""
        block_size = self._settings.block_size
        return MicroKind(
            accumulate=accumulate,
            isolate=any(state.job.recipe.isolate_documents for state in states),
            reach=block_size if self._has_few_kinds else min(block_size, -(-reach // 32) * 32),
            drops=any(any(state.rates) for state in states),
            fused=self._settings.has_kernels(self._device),
            recompute=self._settings.recompute,
            ops=self._held.ops,
        )


def _is_stale(key: Hashable, place: tuple[int, int], constants: AdamConstants | None) -> bool:
    """Whether a graph is of an optimizer step of other settings than these slots have now."""
    return (
        isinstance(key, tuple)
        and isinstance(key[2], AdamConstants)
        and (key[:2] == place and key[2] != constants)
    )
