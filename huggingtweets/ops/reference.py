"""What models compute between matrix products, by PyTorch's operators, on any device.

`kernels` does the same on a CPU in a tenth of the passes over memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from huggingtweets.ops.dropout import ScaledSite, Site
from huggingtweets.ops.linear import Gradients, Linear, project, project_backward, put
from huggingtweets.ops.saved import Saved
from huggingtweets.upstream import aten

_SOFTMAX_BACKWARD = aten("_softmax_backward_data")

TRITON = ("attention", "norm", "activation", "loss", "adamw", "lora")
"""Kinds of kernels that there are in Triton, each of which can be left out."""

# GELU(x) = x / 2 (1 + tanh(u / 2)) = x sigmoid(u), with u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
_GELU_1 = 2 * math.sqrt(2 / math.pi)
_GELU_3 = _GELU_1 * 0.044715


@dataclass(frozen=True)
class Loss:
    """What `Ops.cross_entropy` finds."""

    total: Tensor
    """(K,) fp32, summed over the rows, in nats."""
    gradient: Tensor
    """(K, R, V) of the logits, in their precision, yet to be multiplied by `scale`: that is left to
    the narrow sides of the two products that follow."""
    scale: Tensor | None
    """(K, R, 1) fp32; None: the gradient is whole."""


@dataclass(frozen=True)
class Norm:
    """One norm of K models."""

    weight: Tensor
    """(K, C), or (1, C) and frozen; of the precision of the stream."""
    bias: Tensor | None
    """Likewise; None: an RMS norm."""
    eps: float
    out: Gradients | None = None
    """Where the gradients of weight and bias go; None: nowhere."""
    accumulate: bool = False
    """Add to what is there."""


@dataclass(frozen=True)
class Joining:
    """How a branch comes into the residual stream."""

    site: ScaledSite | None = None
    """Of its dropout."""
    bias: Tensor | None = None
    """(K or 1, C): what `Ops.joins_bias` leaves to be added to it."""
    grad_bias: Tensor | None = None
    """Where the gradient of that goes."""


@dataclass(frozen=True)
class Flash:
    """Attention as one kernel forward and two backward; see `triton_launchers`."""

    forward: Callable[..., tuple[Tensor, Tensor]]
    """Queries, keys and values side by side -> output, and the logarithms of its sums."""
    backward: Callable[..., Tensor]


class Ops:
    """Tensors are of K models and R tokens each; the dtype is that of the matrix products."""

    flash: Flash | None = None
    """Attention by kernels of its own, with dropout; see `attention.Spans`."""
    joins_bias = False
    """`add_norm` adds the bias of the branch's linear layer, and takes its gradient."""
    activates_bias = False
    """`activate` does so with the bias of the layer before it."""
    overwrites_logits = False
    """`cross_entropy` gives the gradient in the logits' place, scaled already."""
    adamw: Callable[..., None] | None = None
    """AdamW in one kernel over all rows; see `adamw.adam_step_by_rows`."""
    hashes = False
    """Dropout and attention on a GPU keep no masks and no weights for the backward pass."""

    def project(self, x: Tensor, layer: Linear, *, with_bias: bool = True) -> Tensor:
        """Return (K, R, out) for x (K, R, in); see `linear.project`."""
        return project(x, layer, with_bias=with_bias)

    def project_backward(
        self, grad: Tensor, x: Tensor, layer: Linear, out: Gradients, *, accumulate: bool,
        with_bias: bool,
    ) -> Tensor:  # fmt: skip
        """Put the gradients of the layer's parameters into `out` and return that of x."""
        add_bias = self.column_sums if with_bias else None
        return project_backward(grad, x, layer, out, accumulate=accumulate, add_bias=add_bias)

    def embed(
        self, places: list[Tensor], table: Tensor, site: ScaledSite | None
    ) -> tuple[Tensor, Saved]:
        """Return the sum of rows of a table, with dropout, and what drops their gradients."""
        x = F.embedding(places[0], table)
        for more in places[1:]:
            x += F.embedding(more, table)
        noise = self.noise(site, x)
        return (x if noise is None else self.drop(x, noise, x.dtype)), noise

    def add_norm(
        self, x: Tensor, branch: Tensor | None, joining: Joining, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Saved]:
        """Return the stream x (K, R, C) with a branch added, perhaps in place, and its norm.

        Args:
            x: the stream, fp32.
            branch: (K, R, C); None: nothing is added.
            joining: how.
            norm: of the sum.
            dtype: of the norm.
        """
        noise = None
        if branch is not None:
            noise = self.noise(joining.site, x)
            x = self.add_dropped(x, branch, noise)
        out, saved = self.norm(x, norm, dtype)
        return x, out, (saved, noise)

    def add_norm_backward(
        self, grad: Tensor | None, grad_out: Tensor, saved: Saved, joining: Joining, norm: Norm,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Return the gradient of the stream before, and that of the branch in a precision.

        Args:
            grad: of the stream behind, changed in place; None: nothing else reads it.
            grad_out: of the norm.
            saved: by `add_norm`.
            joining: how the branch came in.
            norm: receives the gradients of its weights.
            dtype: of the branch; None: there was none.
        """
        of_norm, noise = saved
        grad = self.norm_backward(grad_out, of_norm, norm, grad)
        return grad, None if dtype is None else self.drop(grad, noise, dtype)

    def activate(
        self, inner: Tensor, bias: Tensor | None, *, gated: bool, use_fused: bool
    ) -> tuple[Tensor, Saved]:
        """Return SwiGLU, silu(gate) * up of both side by side, if `gated`, else GELU by tanh.

        `bias` is what `activates_bias` left to be added.
        """
        assert bias is None
        if gated:
            gate, up = _wide(inner).chunk(2, -1)
            return (F.silu(gate) * up).to(inner.dtype), inner
        return self.gelu(inner, use_fused=use_fused)

    def activate_backward(
        self, grad: Tensor, saved: Saved, grad_bias: Tensor | None, *, gated: bool, accumulate: bool
    ) -> Tensor:
        """Return the gradient of `inner`; write that of the bias."""
        if not gated:
            return self.gelu_backward(grad, saved)
        gate, up = _wide(saved).chunk(2, -1)
        wide = _wide(grad)
        sigmoid = gate.sigmoid()
        slope = sigmoid * (1 + gate * (1 - sigmoid))  # of silu(x) = x sigmoid(x)
        return torch.cat([wide * up * slope, wide * gate * sigmoid], -1).to(saved.dtype)

    def norm(self, x: Tensor, of: Norm, dtype: torch.dtype) -> tuple[Tensor, Saved]:
        """Return the norm of x (K, R, C) fp32, in another precision."""
        if of.bias is None:
            wide = _wide(x)
            inverse = wide.square().mean(-1, keepdim=True).add_(of.eps).rsqrt_()
            normalised = wide * inverse
            return (normalised * of.weight.unsqueeze(1)).to(dtype), (normalised, inverse)
        width = x.shape[-1]
        # With a weight and a bias the CPU kernel is twice as fast as without.
        ones, zeros = x.new_ones(width), x.new_zeros(width)
        normalised, _, inverse = torch.native_layer_norm(x, [width], ones, zeros, of.eps)
        out = torch.addcmul(of.bias.unsqueeze(1), normalised, of.weight.unsqueeze(1))
        return out.to(dtype), (normalised, inverse)

    def norm_backward(
        self, grad_out: Tensor, saved: Saved, of: Norm, grad: Tensor | None = None
    ) -> Tensor:
        """Return the gradient of the norm's input, fp32.

        Args:
            grad_out: (K, R, C) of the norm's output.
            saved: by `norm`.
            of: receives the gradients of its weights.
            grad: (K, R, C) fp32; receives the sum of itself and what is returned.
        """
        normalised, inverse = saved
        grad_in = _wide(grad_out)
        if of.out is not None:
            put(of.out.first, (grad_in * normalised).sum(1), accumulate=of.accumulate)
            if of.out.second is not None:
                put(of.out.second, grad_in.sum(1), accumulate=of.accumulate)
        grad_in = grad_in * of.weight.unsqueeze(1)
        if of.bias is None:
            slope = (grad_in * normalised).mean(-1, keepdim=True)
            grad_in.addcmul_(normalised, slope, value=-1)
        else:
            # Of an input that has mean 0 and deviation 1, hence the zeros and ones.
            grad_in, _, _ = torch.ops.aten.native_layer_norm_backward(
                grad_in,
                normalised,
                [grad_in.shape[-1]],
                torch.zeros_like(inverse),
                torch.ones_like(inverse),
                grad_in.new_ones(grad_in.shape[-1]),
                None,
                [True, False, False],
            )
        if grad is not None:
            return grad.addcmul_(grad_in, inverse)
        return grad_in.mul_(inverse)

    def gelu(self, inner: Tensor, *, use_fused: bool) -> tuple[Tensor, Saved]:
        """Return GELU by tanh of inner (K, R, 4 C); by PyTorch's own kernel if `use_fused`."""
        if use_fused:
            return F.gelu(inner, approximate="tanh"), (inner, None)
        x = _wide(inner)
        # The gate s with GELU(x) = x * s: a sigmoid takes a fifth of the time of tanh.
        one = torch.full((), _GELU_1, device=x.device, dtype=x.dtype)
        gate = torch.addcmul(one, x, x, value=_GELU_3).mul_(x).sigmoid_()
        return (x * gate).to(inner.dtype), (x, gate)

    def gelu_backward(self, grad: Tensor, saved: Saved) -> Tensor:
        """Return grad * (s + x s (1 - s) u'), with s the gate, the sigmoid of u(x)."""
        x, gate = saved
        if gate is None:
            out: Tensor = torch.ops.aten.gelu_backward(grad, x, approximate="tanh")
            return out
        one = torch.full((), _GELU_1, device=x.device, dtype=x.dtype)
        slope = torch.addcmul(one, x, x, value=3 * _GELU_3).mul_(x)  # x u'
        slope = torch.addcmul(slope, slope, gate, value=-1)
        return torch.addcmul(gate, gate, slope).mul_(_wide(grad)).to(grad.dtype)

    def noise(self, site: ScaledSite | None, x: Tensor) -> Saved:
        """Return what drops elements of tensors like x (K, R, C); None: nothing is dropped."""
        return None if site is None else site.scaled_mask().view(x.shape).to(_wide_dtype(x))

    def drop(self, x: Tensor, noise: Saved, dtype: torch.dtype) -> Tensor:
        """Return x (K, R, C) with elements dropped and the others scaled, in a precision."""
        return (x if noise is None else x * noise).to(dtype)

    def add_dropped(self, x: Tensor, branch: Tensor, noise: Saved) -> Tensor:
        """Return the stream x (K, R, C) fp32 with a branch, elements dropped; here in place."""
        if noise is None:
            return x.add_(branch)
        return x.addcmul_(_wide(branch), noise)

    def softmax(
        self, scores: Tensor, bias: Tensor, site: Site | None, *, num_heads: int
    ) -> tuple[Tensor, Saved]:
        """Return attention weights with elements dropped but not scaled; may change the scores.

        Args:
            scores: (n * heads, queries, keys).
            bias: (n or 1, 1, queries, m) fp32, added to the scores of the last m keys.
            site: of dropout.
            num_heads: heads.
        """
        by_block = scores.view(-1, num_heads, *scores.shape[1:])
        by_block[..., -bias.shape[-1] :].add_(bias)
        weights = torch.softmax(scores, -1)
        if site is None:
            return weights, (weights, None)
        mask = site.mask(weights.dtype)
        return weights * mask, (weights, mask)

    def softmax_backward(self, grad: Tensor, saved: Saved) -> tuple[Tensor, Tensor]:
        """Return the gradient of the scores, and what `softmax` returned; may change grad."""
        weights, mask = saved
        dropped = weights
        if mask is not None:
            grad.mul_(mask)
            dropped = weights * mask
        grad_scores = _SOFTMAX_BACKWARD(grad, weights, -1, weights.dtype)
        return grad_scores, dropped

    def column_sums(self, grad: Tensor, out: Tensor, *, accumulate: bool) -> None:
        """Sum grad (K, R, C) over R into (K, C) fp32: the gradient of a bias."""
        put(out, grad.sum(1, dtype=_wide_dtype(grad)), accumulate=accumulate)

    def cross_entropy(
        self, logits: Tensor, targets: Tensor, *, vocab_size: int, weight: Tensor
    ) -> Loss:
        """Return losses and gradients; may change the logits.

        Args:
            logits: (K, R, V).
            targets: (K, R) int64; negative ones count for nothing.
            vocab_size: logits from here on are padding.
            weight: (K,) what each slot's loss is multiplied by, for the gradients only.
        """
        dtype = logits.dtype
        target = targets.unsqueeze(2)
        counts = target >= 0
        target = target.clamp(min=0)
        logits = _wide(logits)
        logits[..., vocab_size:] = -torch.inf  # padding: no share of the sum, no gradient
        logits.sub_(logits.amax(2, keepdim=True))
        target_logits = logits.gather(2, target)
        total = logits.exp_().sum(2, keepdim=True)
        loss = ((total.log() - target_logits) * counts).sum((1, 2))
        # The gradient is (p - 1[target]) * weight with p = exp / total.
        gradient = logits.scatter_add_(2, target, -total).to(dtype)
        return Loss(loss, gradient, counts * weight.view(-1, 1, 1) / total)


def _wide(x: Tensor) -> Tensor:
    """Return x in fp32, or as it is in fp64, in which tests differentiate."""
    return x.to(_wide_dtype(x))


def _wide_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


PYTORCH = Ops()
