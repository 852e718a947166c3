"""How a branch leaves the residual stream of K models and comes back to it.

Out: norm, a linear layer and perhaps an activation. In: a linear layer, dropout, then the sum.
A branch comes back only when the next one leaves, so that sum and norm are one pass over memory,
and so are their backward passes; and because it takes fewer operators, see `saved`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.linear import Gradients, Linear
from huggingtweets.ops.reference import Joining, Norm, Ops
from huggingtweets.ops.saved import Saved, differentiable


@dataclass(frozen=True)
class Activation:
    """What follows a linear layer."""

    gated: bool
    """SwiGLU, of gate and up side by side; else GELU by tanh."""
    use_fused: bool
    """GELU by PyTorch's own kernel."""


@dataclass(frozen=True)
class Projection:
    """A linear layer, what follows it, and where the gradients of its parameters go."""

    layer: Linear
    out: Gradients | None
    """None: nothing is to be differentiated."""
    accumulate: bool
    """Add to what is there."""
    activation: Activation | None = None

    def forward(self, x: Tensor, ops: Ops) -> tuple[Tensor, Saved]:
        """Return what it makes of x (K, R, in), and what the activation's backward needs."""
        if self.activation is None:
            return ops.project(x, self.layer), None
        inner = ops.project(x, self.layer, with_bias=not ops.activates_bias)
        bias = self.layer.bias if ops.activates_bias else None
        how = self.activation
        return ops.activate(inner, bias, gated=how.gated, use_fused=how.use_fused)

    def backward(self, grad: Tensor, x: Tensor, saved: Saved, ops: Ops) -> Tensor:
        """Write the parameters' gradients and return that of the input."""
        has_bias = True
        if self.activation is not None:
            has_bias = not ops.activates_bias
            grad = ops.activate_backward(
                grad,
                saved,
                None if has_bias else self.grad_bias,
                gated=self.activation.gated,
                accumulate=self.accumulate,
            )
        return self.backward_of_layer(grad, x, ops, with_bias=has_bias)

    def backward_of_layer(
        self, grad: Tensor, x: Tensor, ops: Ops, *, with_bias: bool = True
    ) -> Tensor:
        """Do so without the activation, or without the bias."""
        assert self.out is not None
        return ops.project_backward(
            grad, x, self.layer, self.out, accumulate=self.accumulate, with_bias=with_bias
        )

    @property
    def grad_bias(self) -> Tensor | None:
        """Where the gradient of the bias goes; None: it has none, or is frozen."""
        if self.out is None or self.layer.adapter is not None:
            return None
        return self.out.second


@dataclass(frozen=True)
class Branch:
    """How a branch comes back to the stream."""

    by: Projection
    """The linear layer on its way."""
    site: ScaledSite | None
    """Of dropout."""

    def project(self, h: Tensor, ops: Ops) -> tuple[Tensor, Joining]:
        """Return what is to be added to the stream, and how."""
        if not ops.joins_bias:
            return ops.project(h, self.by.layer), Joining(self.site)
        added = ops.project(h, self.by.layer, with_bias=False)
        return added, Joining(self.site, self.by.layer.bias, self.by.grad_bias)


@dataclass(frozen=True)
class Stream:
    """The residual stream (K, R, C)."""

    x: Tensor
    """May be changed in place by what uses it."""
    h: Tensor | None = None
    """(K, R, in) of a branch that is yet to be added."""
    branch: Branch | None = None
    """How."""

    def settled(self, ops: Ops) -> Tensor:
        """Return the sum."""
        if self.h is None or self.branch is None:
            return self.x
        by, site = self.branch.by, self.branch.site

        def forward(x: Tensor, h: Tensor) -> tuple[Tensor, Saved]:
            noise: Saved = ops.noise(site, x)
            return ops.add_dropped(x, ops.project(h, by.layer), noise), (h, noise)

        def backward(saved: Saved, grad: Tensor) -> tuple[Tensor, Tensor]:
            (h, noise), grad = saved, grad.contiguous()
            return grad, by.backward_of_layer(ops.drop(grad, noise, h.dtype), h, ops)

        result: Tensor = differentiable(forward, backward, self.x, self.h)
        return result

    def normed(
        self, norm: Norm, dtype: torch.dtype, ops: Ops
    ) -> tuple[Tensor, Tensor, tuple[Saved, Joining]]:
        """Return the sum, its norm, and what `normed_backward` needs."""
        added, joining = None, Joining()
        if self.h is not None and self.branch is not None:
            added, joining = self.branch.project(self.h, ops)
        x, normed, saved = ops.add_norm(self.x, added, joining, norm, dtype)
        return x, normed, (saved, joining)


def normed_backward(
    grad: Tensor | None, grad_normed: Tensor, h: Tensor | None, branch: Branch | None,
    saved: tuple[Saved, Joining], norm: Norm, ops: Ops,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Return the gradients of the stream, of which `grad` is changed, and of the branch's h."""
    if h is None or branch is None:
        return ops.add_norm_backward(grad, grad_normed, *saved, norm, None)
    grad, grad_added = ops.add_norm_backward(grad, grad_normed, *saved, norm, h.dtype)
    assert grad_added is not None
    with_bias = not ops.joins_bias
    return grad, branch.by.backward_of_layer(grad_added, h, ops, with_bias=with_bias)


def branch_out(stream: Stream, norm: Norm, to: Projection, ops: Ops) -> tuple[Stream, Tensor]:
    """Return the stream, to go on with, and what a linear layer makes of its norm."""
    branch = stream.branch

    def forward(x: Tensor, h: Tensor | None) -> tuple[tuple[Tensor, Tensor], Saved]:
        total, normed, saved = Stream(x, h, branch).normed(norm, to.layer.weight.dtype, ops)
        out, of_activation = to.forward(normed, ops)
        return (total, out), (h, normed, of_activation, saved)

    def backward(saved: Saved, grad: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor | None]:
        h, normed, of_activation, of_norm = saved
        grad_normed = to.backward(grad_out.contiguous(), normed, of_activation, ops)
        # In place: all else that reads the stream's gradient is the branch's own backward pass,
        # and that is over, as it ended with `grad_out`.
        return normed_backward(grad.contiguous(), grad_normed, h, branch, of_norm, norm, ops)

    x, out = differentiable(forward, backward, stream.x, stream.h)
    return Stream(x), out
