"""Rotary positions: each pair of a head's values is turned by an angle that grows with the place.

The backward pass of a rotation is the rotation by the angle's opposite.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Angles:
    """Cosines and sines of (n, T, 1, width), the two halves of a head's width alike."""

    cos: Tensor
    sin: Tensor


def angles_of(
    position_ids: Tensor, frequencies: Tensor, *, factor: float, dtype: torch.dtype
) -> Angles:
    """Return the angles of tokens; in fp32 first, as transformers has them.

    Args:
        position_ids: (n, T) integers.
        frequencies: (width / 2,) fp32, radians per position.
        factor: what cosines and sines are multiplied by.
        dtype: of the queries and keys.
    """
    turns = position_ids.unsqueeze(-1).to(frequencies.dtype) * frequencies
    turns = torch.cat([turns, turns], -1).unsqueeze(2)
    return Angles((turns.cos() * factor).to(dtype), (turns.sin() * factor).to(dtype))


def rotary(qkv: Tensor, angles: Angles, num_turned: int) -> Tensor:
    """Return (n, T, heads, width) with the first `num_turned` heads, queries and keys, turned."""
    out: Tensor = _Rotary.apply(qkv, angles, num_turned)  # type: ignore[no-untyped-call]
    return out


def _turn(x: Tensor, cos: Tensor, sin: Tensor, num_turned: int) -> Tensor:
    out = x.clone()
    part = x[:, :, :num_turned]
    first, second = part.chunk(2, -1)
    out[:, :, :num_turned] = part * cos + torch.cat([-second, first], -1) * sin
    return out


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, angles: Angles, num_turned: int) -> Tensor:
        ctx.angles, ctx.num_turned = angles, num_turned
        return _turn(qkv, angles.cos, angles.sin, num_turned)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _turn(grad, ctx.angles.cos, -ctx.angles.sin, ctx.num_turned), None, None
