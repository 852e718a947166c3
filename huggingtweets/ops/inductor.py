"""The reference compiled operator by operator: what `engine.compile` computes with.

Of a whole step torch 2.13 makes no single graph: it breaks where autograd begins and ends. But what
compiling gains lies in the passes over memory within an operator: hashing a mask, dropping and
adding are one loop instead of ten, and no mask is kept.
"""

from typing import Any

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite, Site
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.ops.saved import Saved
from huggingtweets.upstream import compile_shapes

_COMPILED = (
    "norm", "norm_backward", "rms_norm", "rms_norm_backward", "swiglu", "swiglu_backward",
    "column_sums", "cross_entropy",
)  # fmt: skip
_MOST_SHAPES = 64
"""Of an operator: attention has one per window. PyTorch's own limit is 8; what comes after is
not compiled."""


class InductorOps(Ops):
    """`Ops`, compiled by PyTorch; a shape is compiled when it is first seen."""

    def __init__(self) -> None:
        """Compile nothing yet."""
        compile_shapes(_MOST_SHAPES)
        for name in _COMPILED:
            setattr(self, name, _compiled(getattr(PYTORCH, name)))
        self._drop, self._add_dropped = _compiled(_drop), _compiled(_add_dropped)
        self._softmax, self._softmax_backward = _compiled(_softmax), _compiled(_softmax_backward)

    def gelu(self, inner: Tensor, *, use_fused: bool) -> tuple[Tensor, Saved]:
        """Return it by PyTorch's own kernel, which is one pass already."""
        return PYTORCH.gelu(inner, use_fused=True)

    def noise(self, site: ScaledSite | None, x: Tensor) -> Saved:
        """Return the site itself: its mask is made again wherever it is used."""
        return site

    def drop(self, x: Tensor, noise: Saved, dtype: torch.dtype) -> Tensor:
        """See `Ops`."""
        result: Tensor = self._drop(x, noise, dtype)
        return result

    def add_dropped(self, x: Tensor, branch: Tensor, noise: Saved) -> Tensor:
        """See `Ops`."""
        self._add_dropped(x, branch, noise)
        return x

    def softmax(
        self, scores: Tensor, bias: Tensor, site: Site | None, *, num_heads: int
    ) -> tuple[Tensor, Saved]:
        """See `Ops`."""
        weights, dropped = self._softmax(scores, bias, site, num_heads)
        return dropped, (weights, site)

    def softmax_backward(self, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        """See `Ops`."""
        weights, site = saved
        found: tuple[Tensor, Tensor] = self._softmax_backward(grad, weights, site)
        return found


def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


def _drop(x: Tensor, site: ScaledSite | None, dtype: torch.dtype) -> Tensor:
    return PYTORCH.drop(x, PYTORCH.noise(site, x), dtype)


def _add_dropped(x: Tensor, branch: Tensor, site: ScaledSite | None) -> None:
    PYTORCH.add_dropped(x, branch, PYTORCH.noise(site, x))


def _softmax(
    scores: Tensor, bias: Tensor, site: Site | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    dropped, (weights, _) = PYTORCH.softmax(scores, bias, site, num_heads=num_heads)
    return weights, dropped


def _softmax_backward(grad: Tensor, weights: Tensor, site: Site | None) -> tuple[Tensor, Tensor]:
    mask = None if site is None else site.mask(weights.dtype)
    return PYTORCH.softmax_backward(grad, (weights, mask))
