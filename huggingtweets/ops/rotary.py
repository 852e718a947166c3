"""Rotary positions: each pair of a head's values is turned by an angle that grows with the place.

The backward pass of a rotation is the rotation by the angle's opposite.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.ops.saved import Saved, differentiable


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

    def forward(x: Tensor) -> tuple[Tensor, Saved]:
        return _turn(x, angles.cos, angles.sin, num_turned), ()

    def backward(_: Saved, grad: Tensor) -> Tensor:
        return _turn(grad, angles.cos, -angles.sin, num_turned)

    out: Tensor = differentiable(forward, backward, qkv)
    return out


def _turn(x: Tensor, cos: Tensor, sin: Tensor, num_turned: int) -> Tensor:
    out = x.clone()
    part = x[:, :, :num_turned]
    # Pairs are a value and the one half a head further on, as in transformers (not neighbours).
    first, second = part.chunk(2, -1)
    out[:, :, :num_turned] = part * cos + torch.cat([-second, first], -1) * sin
    return out
