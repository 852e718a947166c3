"""The micro-step as one graph of PyTorch's operators, compiled: `engine.compile`.

`torch.compile` by itself breaks a step where autograd begins and ends. So it is traced below
autograd: what the forward and the backward pass call of PyTorch's operators is one graph, on the
very memory where the slots lie, and that graph is compiled whole.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from huggingtweets.storage.paths import cache_dir
from huggingtweets.training.stacked.slots import Inputs, MicroKind, Slots, add_micro_batch


class CompiledSteps:
    """Micro-steps of slots that stay in place: a graph for each place, width and kind."""

    def __init__(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile nothing yet; `backend` is that of `torch.compile`."""
        self._backend = backend
        self._made: dict[tuple[int, int, MicroKind], Callable[[], object]] = {}

    @torch.no_grad()
    def micro_step(self, slots: Slots, micro: Inputs, step: Inputs, kind: MicroKind) -> None:
        """Do what `add_micro_batch` does; the same slots promise the same places in memory."""
        first = int(slots.losses.storage_offset())  # the halves of a step are equally wide
        key = first, len(slots.losses), kind
        if key not in self._made:
            self._made[key] = self._compile((slots, micro.tensors, step.tensors), kind)
        self._made[key]()

    def _compile(self, parts: tuple[Any, ...], kind: MicroKind) -> Callable[[], object]:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
        storages = {_storage(tensor): _whole(tensor) for tensor in _tensors(parts)}
        numbers = {storage: number for number, storage in enumerate(storages)}

        def run(*wholes: Tensor) -> None:
            def view(tensor: Tensor) -> Tensor:
                whole = wholes[numbers[_storage(tensor)]]
                return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

            slots, micro, step = _changed(parts, view)
            add_micro_batch(slots, micro, step, kind)

        wholes = tuple(storages.values())
        # Traced by tensors without memory: nothing is computed, and the slots stay as they are.
        graph = make_fx(run, tracing_mode="fake")(*wholes)
        compiled = torch.compile(graph, backend=self._backend, fullgraph=True, dynamic=False)
        return partial(compiled, *wholes)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _whole(tensor: Tensor) -> Tensor:
    """Return all memory that a tensor is part of."""
    num = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.as_strided((num,), (1,), 0)


def _tensors(value: Any) -> Iterator[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _changed(value, note)
    return iter(found)


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return nested dataclasses, mappings and tuples with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _changed(part, change) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_changed(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(value, **{name: _changed(getattr(value, name), change) for name in names})
    return value
