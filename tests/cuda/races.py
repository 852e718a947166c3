"""Finds work on one stream that another stream's work may run into: what a GPU does now and then.

Every operator on software streams (`software_cuda`) is held against all earlier ones that touched
the same memory from another stream, one of the two writing: unless the later one waited, through
events or the host, for the earlier one, they race. Memory is compared by intervals of a storage.
"""

import weakref
from typing import Any

from software_cuda import Stream, _name, _tensors, _written, joined, state
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Interval = tuple[int, int]
Seen = dict[tuple[Interval, Stream, bool], int]
"""The last work of a stream that read, or wrote, an interval."""


class Races(TorchDispatchMode):
    """Notes races in `found`, a line each; nothing counts that is only captured."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.streams: set[Stream] = set()
        """That did any work."""
        self._seen: dict[int, Seen] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.is_view or state.open_pools:
            return out
        stream = state.stream
        stream.clock = joined(stream.clock, state.known)
        stream.clock[stream] = stream.clock.get(stream, 0) + 1
        self.streams.add(stream)
        written = _written(func, args, kwargs)
        for tensor in _tensors((args, kwargs, out)):
            is_new = not any(tensor is each for each in _tensors((args, kwargs)))
            self._touch(_name(func), tensor, is_new or any(tensor is each for each in written))
        return out

    def _touch(self, name: str, tensor: Tensor, writes: bool) -> None:
        if not tensor.numel() or tensor.device.type == "meta":
            return
        storage, stream = tensor.untyped_storage(), state.stream
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = {}
            weakref.finalize(storage, self._seen.pop, storage._cdata, None)
        seen, (first, stop) = self._seen[storage._cdata], _interval(tensor)
        for ((start, end), other, wrote), tick in seen.items():
            is_same_place = start < stop and first < end
            if other is stream or not is_same_place or not (writes or wrote):
                continue
            if stream.clock.get(other, 0) < tick:
                self.found.append(f"{name} on {tuple(tensor.shape)}, {tensor.dtype}")
        seen[(first, stop), stream, writes] = stream.clock[stream]


def _interval(tensor: Tensor) -> Interval:
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    first, size = tensor.storage_offset(), tensor.element_size()
    return first * size, (first + last + 1) * size
