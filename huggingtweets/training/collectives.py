"""What all processes of a launch settle among themselves, over the CPU and never over the device.

Everything here is collective: every process has to call it, in the same order.
"""

import functools
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from huggingtweets.errors import StoppedError
from huggingtweets.training.stopping import stop_requested

_PATIENCE = timedelta(days=1)
"""The main process may sample, upload or wait for an API for hours while the others wait. A dead
process is noticed at once all the same, by its closed connection."""


@functools.cache
def _group() -> Any:
    """Return the processes' own gloo group: with NCCL a vote would wait for the device."""
    return dist.new_group(backend="gloo", timeout=_PATIENCE)


def _is_alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether any process has raised it."""
    if _is_alone():
        return flags
    votes = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(votes, dist.ReduceOp.MAX, group=_group())
    return tuple(bool(vote) for vote in votes.tolist())


def all_gather(value: Any) -> list[Any]:
    """Return a small picklable value of every process, by rank."""
    if _is_alone():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=_group())
    return values


def broadcast(value: Any) -> Any:
    """Return the main process's small picklable value."""
    if _is_alone():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_group())
    return values[0]


def leave_if_stopped(where: str) -> None:
    """Leave between two stages, all processes together.

    Raises:
        StoppedError: one of them was asked to stop.
    """
    if any_rank(stop_requested())[0]:
        raise StoppedError(
            f"{where}: stopped on request; everything so far is saved; "
            "run the same command again to go on"
        )
