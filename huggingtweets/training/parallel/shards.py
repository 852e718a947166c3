"""What this process holds of weights and optimizer state, whoever has cut them.

DDP gives it everything, DeepSpeed ZeRO and FSDP2 a share. Every engine comes down to the same: of
each parameter, a run of its elements in fp32 and as long a run of each of AdamW's averages. A
checkpoint is made of such runs, so that it can be read on another number of processes and under
another launch file.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import safe_open
from torch import Tensor, nn

from huggingtweets.errors import CheckpointError
from huggingtweets.training.checkpoints.checkpoint import Checkpoint
from huggingtweets.training.parallel.rows import RowModel
from huggingtweets.training.progress import Weights
from huggingtweets.upstream import first_local_row, has_zero_fragment, zero_fragment

GROUPS = ("model", "exp_avg", "exp_avg_sq")
"""A file of a checkpoint each."""


@dataclass(frozen=True)
class Piece:
    """A run of one parameter's elements that this process updates."""

    name: str
    start: int
    """Where it begins within the flattened parameter."""
    views: dict[str, Tensor]
    """By GROUPS: fp32, no copies. 1-D, or a whole parameter that is not contiguous."""

    def flat(self, group: str) -> Tensor:
        """Return a view as 1-D; a copy where it is not contiguous."""
        return self.views[group].reshape(-1)


@dataclass(frozen=True)
class _Home:
    """Where the optimizer keeps a run of a parameter."""

    kept: Tensor
    """The tensor the optimizer updates; its own key into the state."""
    offset: int
    start: int
    numel: int


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds its own share, and not all the same."""
    kinds = (DistributedType.DEEPSPEED, DistributedType.FSDP)
    return accelerator.distributed_type in kinds


def bare(module: nn.Module) -> nn.Module:
    """Return the module as it was before `accelerator.prepare`."""
    inner = getattr(module, "module", module)
    assert isinstance(inner, nn.Module)
    return inner


def local_pieces(module: nn.Module, optimizer: Any) -> list[Piece]:
    """List what this process holds; makes the optimizer's state where it is still to be made."""
    outer = getattr(optimizer, "optimizer", optimizer)
    adam = getattr(outer, "optimizer", outer)
    inner = bare(module)
    if isinstance(inner, RowModel):
        rows = {"model": inner.row.data, **adam.state[inner.row]}
        named = {group: inner.layout.named(rows[group]) for group in GROUPS}
        return [
            Piece(f"model.{name}", 0, {group: named[group][name] for group in GROUPS})
            for name in named["model"]
        ]
    pieces = []
    for name, parameter in inner.named_parameters():
        home = _home(parameter, outer) if parameter.requires_grad else None
        if home is None:
            continue
        state = _state(adam, home.kept)
        kept = {"model": home.kept, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        run = slice(home.offset, home.offset + home.numel)
        views = {group: _local(tensor).view(-1)[run] for group, tensor in kept.items()}
        pieces.append(Piece(name, home.start, views))
    return pieces


def optimizer_step(optimizer: Any) -> float:
    """Return the steps AdamW has counted; skipped ones are not among them."""
    return float(next(_counters(optimizer), torch.zeros(())))  # sync: a save


def set_optimizer_step(optimizer: Any, step: float) -> None:
    """Set the steps AdamW has counted."""
    for counter in _counters(optimizer):
        counter.fill_(step)


def restore(checkpoint: Checkpoint, module: nn.Module, pieces: list[Piece]) -> None:
    """Copy a checkpoint into the model and the optimizer; every process calls it.

    Raises:
        CheckpointError: it is not of this model.
    """
    for group in GROUPS:
        wanted = {piece.name: (piece.start, piece.flat(group)) for piece in pieces}
        _read(checkpoint, group, wanted)
        for piece in pieces:
            view, (_, flat) = piece.views[group], wanted[piece.name]
            view.copy_(flat.view_as(view))  # onto itself, but where it is not contiguous
    working: dict[str, tuple[int, Tensor]] = {}
    parameter: Any
    for name, parameter in bare(module).named_parameters():
        # DeepSpeed computes with copies of what its optimizer keeps: whole ones, or its share.
        shard = getattr(parameter, "ds_tensor", None)
        if shard is not None:
            rank = torch.distributed.get_rank()
            start = rank * shard.ds_numel
            numel = max(0, min(shard.ds_numel, parameter.ds_numel - start))
            _read(checkpoint, "model", {name: (start, shard.data.view(-1)[:numel])})
        if has_zero_fragment(parameter) or (shard is not None and parameter.numel()):
            working[name] = (0, parameter.data.view(-1))
    _read(checkpoint, "model", working)


def full_weights(accelerator: Accelerator, module: nn.Module) -> Weights:
    """Gather the model, a parameter at a time; every process calls it.

    Returns:
        fp32 copies on the CPU of the main process, named as the wrapped model names them; {}
        elsewhere.
    """
    inner = bare(module)
    if isinstance(inner, RowModel):
        return inner.weights()
    weights: Weights = {}
    for name, parameter in inner.named_parameters():
        whole = _whole(parameter.detach())  # sync: once per epoch at most
        if accelerator.is_main_process:
            weights[name.removeprefix("model.")] = whole.to("cpu", torch.float32, copy=True)
    return weights


def _whole(parameter: Any) -> Tensor:
    whole: Tensor = parameter
    if hasattr(parameter, "full_tensor"):  # FSDP2
        whole = parameter.full_tensor()
    elif hasattr(parameter, "ds_id") or has_zero_fragment(parameter):  # ZeRO
        from deepspeed.utils import safe_get_full_fp32_param

        whole = safe_get_full_fp32_param(parameter)
    return whole


def _home(parameter: Any, outer: Any) -> _Home | None:
    """Find where the optimizer keeps its run of a parameter; None if other processes have all."""
    if hasattr(parameter, "ds_id"):  # ZeRO 3
        group, offset, numel = outer.grad_position[outer.get_param_id(parameter)]
        start = torch.distributed.get_rank() * parameter.ds_tensor.ds_numel
        numel = min(numel, parameter.ds_numel - start)  # the last share is padded
        if numel <= 0:
            return None
        return _Home(outer.fp32_partitioned_groups_flat[group], offset, start, numel)
    if has_zero_fragment(parameter):  # ZeRO 1 and 2
        mapping = zero_fragment(parameter)
        if mapping is None:
            return None
        kept = outer.single_partition_of_fp32_groups[mapping.param_group_index]
        inner, own = mapping.lp_fragment_address, mapping.hp_fragment_address
        return _Home(kept, own.start, inner.start, inner.numel)
    local = _local(parameter)
    return _Home(parameter, 0, _fsdp_start(parameter), local.numel()) if local.numel() else None


def _fsdp_start(parameter: Any) -> int:
    """Return where the local rows of a parameter begin; 0 where all are local."""
    if not hasattr(parameter, "to_local"):
        return 0
    row: int = math.prod(parameter.shape[1:])
    return first_local_row(parameter) * row


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach()


def _state(adam: torch.optim.Optimizer, kept: Tensor) -> dict[str, Tensor]:
    state: dict[str, Tensor] = adam.state[kept]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=_local(kept).device)
        state["exp_avg"] = torch.zeros_like(kept)
        state["exp_avg_sq"] = torch.zeros_like(kept)
    return state


def _counters(optimizer: Any) -> Iterator[Tensor]:
    outer = getattr(optimizer, "optimizer", optimizer)
    for state in getattr(outer, "optimizer", outer).state.values():
        yield _local(state["step"])


def _read(checkpoint: Checkpoint, group: str, wanted: dict[str, tuple[int, Tensor]]) -> None:
    """Fill runs of parameters from whichever parts of the checkpoint hold them."""
    missing = {name: target.numel() for name, (_, target) in wanted.items()}
    for part in range(checkpoint.num_parts):
        if not any(missing.values()):
            break
        starts = checkpoint.values(part)["starts"]
        with safe_open(checkpoint.path(group, part), framework="pt") as file:
            for name in wanted.keys() & starts.keys():
                begin, target = wanted[name]
                saved = file.get_slice(name)
                low = max(begin, starts[name])
                high = min(begin + target.numel(), starts[name] + saved.get_shape()[0])
                if low < high:
                    run = saved[low - starts[name] : high - starts[name]]
                    target[low - begin : high - begin].copy_(run)
                    missing[name] -= high - low
    if any(missing.values()):
        name = next(name for name, numel in missing.items() if numel)
        raise CheckpointError(
            f"{checkpoint.folder}: got no or only a part of {name}; expected the whole model; "
            "delete the folder to start again"
        )
