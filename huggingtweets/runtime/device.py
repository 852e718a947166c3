"""Every question about the device, asked in one place.

No other module looks at the type of a device or calls `torch.cuda` (`tests/cuda/test_branches.py`
reads the syntax trees). So every line that a GPU would run is one that a test on a CPU can run: the
test replaces `kind_of`, and software stands in for streams, events and graphs.
"""

import importlib.util
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from huggingtweets.upstream import cuda_driver_version

T = TypeVar("T")

Stream = torch.cuda.Stream
Event = torch.cuda.Event

_MEMORY_WORDS = ("_STATUS_ALLOC_FAILED", "error: out of memory", "Error [CUDA]: out of memory")


def kind_of(device: torch.device) -> str:
    """Return "cpu", "cuda" or another type; the one answer that tests replace."""
    return device.type


def is_cuda(device: torch.device) -> bool:
    """Whether work is queued on a GPU: kernels, streams, graphs, memory of its own."""
    return kind_of(device) == "cuda"


def is_cpu(device: torch.device) -> bool:
    """Whether results are there when a call returns, and memory is that of the host."""
    return kind_of(device) == "cpu"


def runs_triton(device: torch.device) -> bool:
    """Whether Triton is there and runs: on a GPU, or by its interpreter, for tests, on a CPU."""
    if importlib.util.find_spec("triton") is None:
        return False
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return device.type == "cuda" or (is_interpreted and is_cuda(device))


def by_kind(table: Mapping[str, T], device: torch.device) -> T:
    """Return what a table by device type says; training is on "cpu" or "cuda" (ROCm's too)."""
    return table[kind_of(device)]


def has_cuda() -> bool:
    """Whether there is a GPU to train on."""
    return torch.cuda.is_available()


def num_gpus() -> int:
    """How many GPUs this process could use."""
    return torch.cuda.device_count()


def has_bf16() -> bool:
    """Whether the device multiplies matrices in bf16 by instructions of its own.

    Without them PyTorch emulates it: on a CPU with AVX2 alone, products of the backward pass took
    17 times as long as in fp32 (PyTorch 2.13, 512 x 1536 x 576, two cores).
    """
    if has_cuda():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Newer than 2.11; without it fp32 is right, if slower.
    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the precision of matrix products under autocast on a device; None: it is off."""
    kind = device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def use_device(device: torch.device) -> None:
    """Make a GPU the current one of this thread: a new thread begins with GPU 0.

    Without it a thread of another rank opens a context on GPU 0, half a gigabyte of its memory.
    """
    if is_cuda(device):
        torch.cuda.set_device(device)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done everything; a CPU has."""
    if is_cuda(device):
        torch.cuda.synchronize(device)


def lacks_memory(err: BaseException | None) -> bool:
    """Whether an error or one that it came out of is a lack of a GPU's memory.

    The allocator raises a class of its own; cuBLAS and the driver, which allocate beside it, say
    it in words (torch 2.13).
    """
    while err is not None:
        if isinstance(err, torch.OutOfMemoryError):
            return True
        if isinstance(err, RuntimeError) and any(word in str(err) for word in _MEMORY_WORDS):
            return True
        err = err.__context__
    return False


def release_memory() -> None:
    """Give back what PyTorch keeps of freed GPU memory."""
    if has_cuda():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Return the memory of a GPU that nobody has."""
    return torch.cuda.mem_get_info(device)[0]


def peak_bytes(device: torch.device) -> int:
    """Return the most memory this process had allocated on a GPU."""
    return torch.cuda.max_memory_allocated(device)


def device_name(device: torch.device) -> str:
    """Return a GPU's name as its driver tells it."""
    return torch.cuda.get_device_name(device)


@dataclass(frozen=True)
class Gpu:
    """What the driver tells of one."""

    name: str
    num_bytes: int
    has_bf16: bool
    """Without emulation."""


def list_gpus() -> list[Gpu]:
    """Return the GPUs of this machine that PyTorch can use."""
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            found.append(Gpu(properties.name, properties.total_memory, has_bf16()))
    return found


def versions_of(device: torch.device) -> dict[str, str]:
    """Return what the arithmetic of a device depends on: itself, its driver, PyTorch."""
    driver = cuda_driver_version() if is_cuda(device) else 0
    name = device_name(device) if is_cuda(device) else kind_of(device)
    return {
        "device": name,
        "driver": str(driver),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda or torch.version.hip or ""),
    }


def new_stream(device: torch.device) -> Stream | None:
    """Return a queue of its own on a GPU; a CPU has none."""
    return torch.cuda.Stream(device) if is_cuda(device) else None  # type: ignore[no-untyped-call]


def on_stream(stream: Stream | None) -> AbstractContextManager[object]:
    """Return the context in which work goes to a stream; without one, where it went before."""
    return torch.cuda.stream(stream) if stream is not None else nullcontext()


def current_stream(device: torch.device) -> Stream:
    """Return the stream of a GPU that takes this thread's work."""
    return torch.cuda.current_stream(device)


def new_event() -> Event:
    """Return an event of the current GPU."""
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def pinned_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return host memory that a GPU copies to and from by itself."""
    return torch.zeros(shape, dtype=dtype, pin_memory=True)


def host_like(tensor: Tensor) -> Tensor:
    """Return host memory for a copy of a tensor, pinned where that tensor lies on a GPU."""
    return torch.empty_like(tensor, device="cpu", pin_memory=is_cuda(tensor.device))
