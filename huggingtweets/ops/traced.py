"""The reference in the form that is compiled as one graph, `engine.compile`.

Masks are hashed again wherever they are used: that is part of the loop over the values which they
drop, where keeping them takes a pass over memory to write and one to read.
"""

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite, Site
from huggingtweets.ops.reference import PYTORCH, Ops
from huggingtweets.ops.saved import Saved


class TracedOps(Ops):
    """`Ops` that keep no masks."""

    def gelu(self, inner: Tensor, *, use_fused: bool) -> tuple[Tensor, Saved]:
        """Return it by PyTorch's own operator, which a compiler knows as one."""
        return super().gelu(inner, use_fused=True)

    def noise(self, site: ScaledSite | None, x: Tensor) -> Saved:
        """Return the site itself."""
        return site

    def drop(self, x: Tensor, noise: Saved, dtype: torch.dtype) -> Tensor:
        """See `Ops`."""
        return PYTORCH.drop(x, PYTORCH.noise(noise, x), dtype)

    def add_dropped(self, x: Tensor, branch: Tensor, noise: Saved) -> Tensor:
        """See `Ops`."""
        return PYTORCH.add_dropped(x, branch, PYTORCH.noise(noise, x))

    def softmax(
        self, scores: Tensor, bias: Tensor, site: Site | None, *, num_heads: int
    ) -> tuple[Tensor, Saved]:
        """See `Ops`."""
        dropped, (weights, _) = PYTORCH.softmax(scores, bias, site, num_heads=num_heads)
        return dropped, (weights, site)

    def softmax_backward(self, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        """See `Ops`."""
        weights, site = saved
        mask = None if site is None else site.mask(weights.dtype)
        return PYTORCH.softmax_backward(grad, (weights, mask))
