"""What is computed on CUDA beside the large products, by Triton."""

import torch
from torch import Tensor

from huggingtweets.kernels import triton_launchers as launch
from huggingtweets.ops.dropout import ScaledSite
from huggingtweets.ops.linear import Gradients, Linear
from huggingtweets.ops.reference import TRITON, Flash, Joining, Loss, Norm, Ops
from huggingtweets.ops.saved import Saved

MAX_HEAD_WIDTH = 128
MAX_RANK = 64
"""Of adapters: tiles hold all of a rank."""


def _random(site: ScaledSite | None) -> tuple[Tensor | None, Tensor | None, Tensor | None, int]:
    if site is None:
        return None, None, None, 1
    return site.keys, site.thresholds, site.scales, len(site.rows)


class TritonOps(Ops):
    """`Ops` by Triton, but for what is left out."""

    def __init__(self, names: tuple[str, ...] = TRITON) -> None:
        """Compute the kinds that are named."""
        self.names = names
        if "attention" in names:
            self.flash = Flash(launch.attention, launch.attention_backward)
        if "adamw" in names:
            self.adamw = launch.adamw
        self.joins_bias = "norm" in names
        self.activates_bias = "activation" in names
        self.overwrites_logits = "loss" in names
        self.hashes = self.flash is not None and self.joins_bias

    def project(self, x: Tensor, layer: Linear, *, with_bias: bool = True) -> Tensor:
        """See `Ops`; of adapters in one kernel."""
        if not self._adapts(layer):
            return super().project(x, layer, with_bias=with_bias)
        assert layer.adapter is not None
        bias = layer.bias[0] if layer.bias is not None and with_bias else None
        low_rank = layer.adapter.tensors()
        out: Tensor = launch.lora(x.contiguous(), layer.weight[0], bias, *low_rank, layer.scale)[0]
        return out

    def project_backward(
        self, grad: Tensor, x: Tensor, layer: Linear, out: Gradients, *, accumulate: bool,
        with_bias: bool,
    ) -> Tensor:  # fmt: skip
        """See `Ops`."""
        if not self._adapts(layer):
            return super().project_backward(
                grad, x, layer, out, accumulate=accumulate, with_bias=with_bias
            )
        assert layer.adapter is not None
        assert out.second is not None
        down, up = layer.adapter.tensors()
        grad, x = grad.contiguous(), x.contiguous()
        grad_x: Tensor
        grad_x, grad_low = launch.lora(grad, layer.weight[0].T, None, up.mT, down.mT, layer.scale)
        launch.lora_sums(out.first, grad_low, x, layer.scale, accumulate)
        launch.lora_sums(out.second.mT, torch.bmm(x, down), grad, layer.scale, accumulate)
        return grad_x

    def _adapts(self, layer: Linear) -> bool:
        if "lora" not in self.names or layer.adapter is None:
            return False
        return layer.adapter.down.shape[2] <= MAX_RANK

    def embed(
        self, places: list[Tensor], table: Tensor, site: ScaledSite | None
    ) -> tuple[Tensor, Saved]:
        """See `Ops`."""
        if "norm" not in self.names:
            return super().embed(places, table, site)
        first, second = (*(rows.contiguous() for rows in places), None)[:2]
        return launch.embed(table, first, second, *_random(site)), site

    def add_norm(
        self, x: Tensor, branch: Tensor | None, joining: Joining, norm: Norm, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Saved]:
        """See `Ops`; the stream comes out as another tensor, as its norm's backward reads it."""
        if "norm" not in self.names:
            return super().add_norm(x, branch, joining, norm, dtype)
        x = x.contiguous()
        random = _random(joining.site)
        out_x, out, *kept = launch.add_norm(
            x, branch, joining.bias, *random, norm.weight, norm.bias, norm.eps, dtype
        )
        stream = x if branch is None else out_x
        return stream, out, (stream, *kept)

    def add_norm_backward(
        self, grad: Tensor | None, grad_out: Tensor, saved: Saved, joining: Joining, norm: Norm,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """See `Ops`."""
        if "norm" not in self.names:
            return super().add_norm_backward(grad, grad_out, saved, joining, norm, dtype)
        x, means, inverses = saved
        into = torch.empty_like(x) if grad is None else grad
        grad_branch, partial = launch.add_norm_backward(
            into, grad_out, x, means, inverses, norm.weight, *_random(joining.site),
            grad is not None, dtype,
        )  # fmt: skip
        first, second = (norm.out.first, norm.out.second) if norm.out else (None, None)
        if first is not None or joining.grad_bias is not None:
            launch.sum_runs(partial, first, second, joining.grad_bias, norm.accumulate)
        return into, None if dtype is None else grad_branch

    def activate(
        self, inner: Tensor, bias: Tensor | None, *, gated: bool, use_fused: bool
    ) -> tuple[Tensor, Saved]:
        """See `Ops`."""
        if "activation" not in self.names:
            return super().activate(inner, bias, gated=gated, use_fused=use_fused)
        return launch.activation(inner, bias, gated), (inner, bias)

    def activate_backward(
        self, grad: Tensor, saved: Saved, grad_bias: Tensor | None, *, gated: bool, accumulate: bool
    ) -> Tensor:
        """See `Ops`."""
        if "activation" not in self.names:
            return super().activate_backward(
                grad, saved, grad_bias, gated=gated, accumulate=accumulate
            )
        inner, bias = saved
        grad_inner: Tensor
        grad_inner, partial = launch.activation_backward(grad, inner, bias, gated)
        if grad_bias is not None:
            launch.sum_runs(partial, grad_bias, None, None, accumulate)
        return grad_inner

    def noise(self, site: ScaledSite | None, x: Tensor) -> Saved:
        """Return the site itself: its mask is hashed again wherever it is used."""
        return site if "norm" in self.names else super().noise(site, x)

    def drop(self, x: Tensor, noise: Saved, dtype: torch.dtype) -> Tensor:
        """See `Ops`."""
        if noise is None or "norm" not in self.names:
            return super().drop(x, noise, dtype)
        dropped: Tensor = launch.drop(x.contiguous(), *_random(noise), dtype)
        return dropped

    def add_dropped(self, x: Tensor, branch: Tensor, noise: Saved) -> Tensor:
        """See `Ops`."""
        if "norm" not in self.names:
            return super().add_dropped(x, branch, noise)
        return x + self.drop(branch, noise, torch.float32)

    def column_sums(self, grad: Tensor, out: Tensor, *, accumulate: bool) -> None:
        """See `Ops`."""
        if "norm" not in self.names:
            super().column_sums(grad, out, accumulate=accumulate)
        else:
            launch.column_sums(grad, out, accumulate)

    def cross_entropy(
        self, logits: Tensor, targets: Tensor, *, vocab_size: int, weight: Tensor
    ) -> Loss:
        """See `Ops`; the gradient takes the logits' place and is scaled already."""
        if "loss" not in self.names:
            return super().cross_entropy(logits, targets, vocab_size=vocab_size, weight=weight)
        return Loss(launch.loss(logits, targets, weight, vocab_size).sum(1), logits, None)
