"""CUDA in software: the branches, streams, events and graphs of a GPU, on a CPU.

`installed()` has the package take every branch it would take on a GPU. A graph is a list of
operators on fixed tensors. It is as strict as the real one where our faults were: nothing runs at
capture (what was written is put back), values of the host are baked in, reading a value back is an
error that spoils the capture, memory from `empty` is poison at every replay, and a capture that
fails leaves the stream, the allocator's pool and the generator as CUDA's does (torch 2.13,
`torch.cuda.graph.__exit__` and CUDAGraph.cpp).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from huggingtweets.runtime import device as runtime_device

_SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"}
_EMPTY = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
_ALIASES = {"_unsafe_view", "detach", "alias"}


@dataclass
class State:
    """What the software device is doing; reset by `installed`."""

    stream: "Stream"
    open_pools: set[Any] = field(default_factory=set)
    """Pools the allocator still gives memory from: of captures under way."""
    graphs: list["CUDAGraph"] = field(default_factory=list)
    waits: int = 0
    """Times the host waited for an event that had not come."""
    event_lag: int = 0
    """Events recorded after one until it has come, for the host."""
    recorded: int = 0
    devices: list[Any] = field(default_factory=list)
    """Made current by a thread."""
    known: "Clock" = field(default_factory=dict)
    """What the host has waited for, and all that it launches after comes later than."""

    @property
    def alive(self) -> list["CUDAGraph"]:
        """Graphs that were captured and not reset since."""
        return [graph for graph in self.graphs if graph.calls is not None]

    @property
    def replays(self) -> int:
        """Of all graphs."""
        return sum(graph.replays for graph in self.graphs)


Clock = dict["Stream", int]
"""How much of each stream's work has been done, at the least."""


def joined(one: Clock, other: Clock) -> Clock:
    """What has been done where both are known."""
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in one | other}


class Stream:
    """A queue whose work is done at once, and which knows what it waited for; see `races`."""

    def __init__(self, device: object = None, **_: object) -> None:
        self.device = device
        self.clock: Clock = {}

    def wait_stream(self, other: "Stream") -> None:
        self.clock = joined(self.clock, other.clock)

    def wait_event(self, event: "Event") -> None:
        self.clock = joined(self.clock, event.clock)

    def synchronize(self) -> None:
        state.known = joined(state.known, self.clock)


state = State(Stream())


class Event:
    """One that the host sees come only after some more were recorded."""

    def __init__(self, **_: object) -> None:
        self._comes_at = 0
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        state.recorded += 1
        self._comes_at = state.recorded + state.event_lag
        self.clock = (stream or state.stream).clock

    def query(self) -> bool:
        has_come = state.recorded >= self._comes_at
        if has_come:
            state.known = joined(state.known, self.clock)
        return has_come

    def synchronize(self) -> None:
        if not self.query():
            state.waits += 1
            self._comes_at = 0
            state.known = joined(state.known, self.clock)

    def wait(self, stream: object = None) -> None:
        """Do nothing: it has come, for the device."""

    def elapsed_time(self, other: "Event") -> float:
        return 1.0


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.saved: dict[int, tuple[Any, Any]] = {}
        self.is_spoilt = False
        self._own: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if name in _SYNCS:
            self.is_spoilt = True
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        for tensor in _written(func, args, kwargs):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._own and storage._cdata not in self.saved:
                self.saved[storage._cdata] = (storage, storage.clone())
        out = func(*args, **kwargs)
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if tensor.untyped_storage()._cdata not in given:
                self._own.add(tensor.untyped_storage()._cdata)
        self.calls.append((func, args, kwargs, out))
        if name in _EMPTY:
            _poison(out)
        return out


class CUDAGraph:
    """A list of operators on fixed tensors."""

    def __init__(self, **_: object) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] | None = None
        self.replays = 0
        self._pool: Any = None
        state.graphs.append(self)

    def capture_begin(self, pool: Any = None, **_: object) -> None:
        self._pool = pool
        state.open_pools.add(pool)
        self._random = torch.get_rng_state()
        self._recorder = _Recorder()
        self._recorder.__enter__()

    def capture_end(self) -> None:
        recorder = self._recorder
        recorder.__exit__(None, None, None)
        torch.set_rng_state(self._random)
        for storage, copy in recorder.saved.values():
            storage.copy_(copy)  # nothing ran
        if recorder.is_spoilt:  # thrown before the pool is closed
            raise RuntimeError("operation failed due to a previous error during capture")
        state.open_pools.discard(self._pool)
        self.calls = recorder.calls

    def reset(self) -> None:
        self.calls = None

    @torch.no_grad()
    def replay(self) -> None:
        assert self.calls is not None, "no graph was captured"
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            name = _name(func)
            if func.is_view or name in _ALIASES:
                given = _tensors((args, kwargs))
                made = _tensors(out)
                if given and made and _storage(made[0]) == _storage(given[0]):
                    continue
            if name in _EMPTY:
                _poison(out)
                continue
            for kept, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                if kept is not new and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


def _name(func: Any) -> str:
    return str(func._schema.name).split("::")[1]


def _tensors(value: Any) -> list[Tensor]:
    return [each for each in tree_flatten(value)[0] if isinstance(each, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    schema = func._schema.arguments
    given = [*zip(args, schema, strict=False)]
    given += [(kwargs[one.name], one) for one in schema if one.name in kwargs]
    return [
        tensor
        for value, one in given
        if one.alias_info is not None and one.alias_info.is_write
        for tensor in _tensors(value)
    ]


def _poison(tensor: Tensor) -> None:
    if tensor.is_floating_point():
        tensor.fill_(math.nan)


class _OnStream:
    """As `torch.cuda.StreamContext`."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        self._before = state.stream
        state.stream = self._stream or self._before

    def __exit__(self, *_: object) -> None:
        state.stream = self._before


_pinned: set[int] = set()
"""Storages that stand for memory of the host; all others stand for the device's."""


def _without_pinning(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        made = function(*args, **kwargs)
        if pin_memory:
            _pinned.add(_storage(made))
        return made

    return call


def _counting(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def call(tensor: Tensor) -> Any:
        state.waits += _storage(tensor) not in _pinned
        return function(tensor)

    return call


def _set_stream(stream: Stream) -> None:
    state.stream = stream


@contextmanager
def installed(*, event_lag: int = 0, free_bytes: int = 2**34) -> Iterator[State]:
    """Have the package believe that every device is a GPU, and give it this one.

    Args:
        event_lag: see `State`.
        free_bytes: of the device.
    """
    state.__dict__.update(vars(State(Stream(), event_lag=event_lag)))
    changes = {
        "torch.cuda.Stream": Stream,
        "torch.cuda.Event": Event,
        "torch.cuda.CUDAGraph": CUDAGraph,
        "torch.cuda.stream": _OnStream,
        "torch.cuda.set_stream": _set_stream,
        "torch.cuda.current_stream": lambda device=None: state.stream,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.is_current_stream_capturing": lambda: bool(state.open_pools),
        "torch.cuda.set_device": state.devices.append,
        "torch.cuda.synchronize": lambda device=None: None,
        "torch.cuda.empty_cache": lambda: None,
        "torch.cuda.graph_pool_handle": lambda: (0, 1),
        "torch.cuda.mem_get_info": lambda device=None: (free_bytes, free_bytes),
        "torch.cuda.max_memory_allocated": lambda device=None: 2**30,
        "torch.cuda.get_device_name": lambda device=None: "NVIDIA Software 1",
        "torch.cuda.get_device_capability": lambda device=None: (9, 0),
        "torch.cuda.graph.default_capture_stream": Stream(),
        "torch.Tensor.record_stream": lambda self, stream: None,
        "torch.Tensor.tolist": _counting(torch.Tensor.tolist),
        "torch.Tensor.item": _counting(torch.Tensor.item),
        "torch.zeros": _without_pinning(torch.zeros),
        "torch.empty": _without_pinning(torch.empty),
        "torch.empty_like": _without_pinning(torch.empty_like),
    }
    private = {
        "_host_emptyCache": lambda: None,
        "_cuda_endAllocateToPool": lambda device, pool: state.open_pools.discard(pool),
        "_cuda_releasePool": lambda device, pool: None,
    }
    with ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch(name, value))
        for name, function in private.items():
            stack.enter_context(mock.patch.object(torch._C, name, function, create=True))
        stack.enter_context(mock.patch.object(runtime_device, "kind_of", return_value="cuda"))
        yield state
