"""What an operator keeps for its backward pass, kept where PyTorch can count and free it."""

from typing import Any

from torch import Tensor

Saved = Any
"""Made and read by the same pair of functions: a tensor, something else, or a tuple of such."""


class _Place(int):
    """Stands for the tensor of this index."""


def keep(ctx: Any, *saved: Saved) -> None:
    """Keep values in the context of an `autograd.Function`.

    Tensors go through `save_for_backward`: a tensor that hangs on the context itself is freed late,
    and no hook of `torch.autograd.graph` sees it.
    """
    tensors: list[Tensor] = []

    def strip(value: Saved) -> Saved:
        if isinstance(value, Tensor):
            tensors.append(value)
            return _Place(len(tensors) - 1)
        return tuple(map(strip, value)) if type(value) in (tuple, list) else value

    ctx.kept = tuple(map(strip, saved))
    ctx.save_for_backward(*tensors)


def kept(ctx: Any) -> tuple[Saved, ...]:
    """Return what `keep` was given; lists come back as tuples."""
    tensors = ctx.saved_tensors

    def fill(value: Saved) -> Saved:
        if isinstance(value, _Place):
            return tensors[value]
        return tuple(map(fill, value)) if type(value) is tuple else value

    return tuple(map(fill, ctx.kept))
