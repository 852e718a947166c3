"""AdamW for K models at once, every slot with its own everything; nothing leaves the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.ops.reference import Ops
from huggingtweets.runtime.device import is_cuda
from huggingtweets.upstream import fused_adamw


@dataclass(frozen=True)
class Adam:
    """The state of K slots, on the device."""

    first: Tensor
    """(K, N) moments."""
    second: Tensor
    steps: Tensor
    """(K,) fp32; steps taken, for the bias correction. A skipped one does not count."""

    def slots(self, start: int, stop: int) -> "Adam":
        """Return the state of some neighbouring slots; shares memory."""
        return Adam(self.first[start:stop], self.second[start:stop], self.steps[start:stop])


@dataclass(frozen=True)
class Controls:
    """What is set again for every step: (K,) fp32 each, on the device."""

    weight: Tensor
    """One over the targets of the slot's step: what its summed loss is multiplied by."""
    is_due: Tensor
    """1 where the slot takes the step, 0 where it is idle."""
    num_targets: Tensor
    lr: Tensor
    max_grad_norm: Tensor
    """Infinite: never clip."""
    weight_decay: Tensor
    beta1: Tensor
    beta2: Tensor
    eps: Tensor


@dataclass(frozen=True)
class AdamConstants:
    """What PyTorch's kernels take by value: one value per slot, known on the host."""

    betas: tuple[tuple[float, float], ...]
    eps: tuple[float, ...]
    decays: bool
    """Whether any slot has weight decay."""
    active: tuple[bool, ...] | None = None
    """On a CPU: which slots to compute at all; None: all of them."""


def build_adam(rows: Tensor) -> Adam:
    """Return fresh state for a (K, N) buffer of parameters."""
    steps = torch.zeros(len(rows), device=rows.device)
    return Adam(torch.zeros_like(rows), torch.zeros_like(rows), steps)


def constants_of(recipes: Sequence[RecipeConfig | None], device: torch.device) -> AdamConstants:
    """Return the constants of K slots; None is an idle one."""
    some = next((recipe for recipe in recipes if recipe is not None), RecipeConfig())
    filled = [recipe or some for recipe in recipes]
    return AdamConstants(
        betas=tuple((recipe.beta1, recipe.beta2) for recipe in filled),
        eps=tuple(recipe.adam_eps for recipe in filled),
        decays=any(recipe is not None and recipe.weight_decay > 0 for recipe in recipes),
        active=None if is_cuda(device) else tuple(recipe is not None for recipe in recipes),
    )


@torch.no_grad()
def adam_step(
    rows: Tensor,
    grads: Tensor,
    adam: Adam,
    controls: Controls,
    constants: AdamConstants,
    *,
    num_decayed: int,
) -> tuple[Tensor, Tensor]:
    """Clip each slot's gradient by its norm and take one AdamW step where it is due.

    As `clip_grad_norm_` and `torch.optim.AdamW`. A slot whose gradient is not finite takes no
    step and keeps its moments. One fused kernel per slot: a row is long enough to fill any device.

    Args:
        rows: (K, N) parameters.
        grads: (K, N); clipped in place.
        adam: their state.
        controls: settings of this step.
        constants: settings that rarely change.
        num_decayed: leading values of a row to which weight decay applies.

    Returns:
        (K,) gradient norms before clipping, and (K,) ones where a step was taken.
    """
    norms, taken, divisor = _begun(grads, adam, controls)
    skipped = 1.0 - taken
    if constants.decays:
        # By hand: the kernel would decay all of a row. Before the step, as AdamW does.
        rows[:, :num_decayed].mul_((1 - controls.lr * controls.weight_decay * taken).unsqueeze(1))
    for slot, (beta1, beta2) in enumerate(constants.betas):
        if constants.active is not None and not constants.active[slot]:
            continue
        fused_adamw(
            [rows[slot]],
            [grads[slot]],
            [adam.first[slot]],
            [adam.second[slot]],
            [],
            [adam.steps[slot]],
            lr=controls.lr[slot],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=constants.eps[slot],
            amsgrad=False,
            maximize=False,
            grad_scale=divisor[slot],
            found_inf=skipped[slot],
        )
    return norms, taken


@torch.no_grad()
def adam_step_by_rows(
    rows: Tensor,
    copies: Tensor | None,
    grads: Tensor,
    adam: Adam,
    controls: Controls,
    ops: Ops,
    *,
    num_decayed: int,
) -> tuple[Tensor, Tensor]:
    """Do what `adam_step` does in one kernel over all rows, `Ops.adamw`.

    What a slot is set to is data, so one graph serves all compositions of slots.

    Args:
        rows: (K, N) parameters.
        copies: (K, N) in the precision of the products; written along.
        grads: (K, N).
        adam: their state.
        controls: settings of this step.
        ops: has the kernel.
        num_decayed: leading values of a row to which weight decay applies.
    """
    norms, taken, divisor = _begun(grads, adam, controls)
    betas = torch.stack([controls.beta1, controls.beta2]).double()  # 1 - beta^t is small
    left_1, left_2 = (1 - betas**adam.steps).unbind(0)
    settings = torch.stack([
        taken, divisor, controls.lr, controls.weight_decay, controls.beta1, controls.beta2,
        left_1.float(), left_2.sqrt().float(), controls.eps,
    ])  # fmt: skip
    assert ops.adamw is not None
    ops.adamw(rows, copies, grads, adam.first, adam.second, settings, num_decayed)
    return norms, taken


def _begun(grads: Tensor, adam: Adam, controls: Controls) -> tuple[Tensor, Tensor, Tensor]:
    """Count the step; return norms, ones where it is taken, and what gradients are divided by."""
    norms = torch.linalg.vector_norm(grads, dim=1)
    # A product, not a condition: nothing is read back, so that a CUDA graph holds the step.
    taken = controls.is_due * norms.isfinite()
    # clip_grad_norm_ multiplies by max_norm / (norm + 1e-6), at most 1; the kernel divides.
    divisor = ((norms + 1e-6) / controls.max_grad_norm).clamp(min=1.0)
    adam.steps.add_(taken)
    return norms, taken, divisor
