"""AdamW over slots against `torch.optim.AdamW`, one optimizer a slot."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.ops.adamw import (
    Adam,
    AdamConstants,
    Controls,
    adam_step,
    build_adam,
    constants_of,
)

SIZE, NUM_DECAYED = 5000, 4000
CPU = torch.device("cpu")

RECIPES = [
    RecipeConfig(lr=1e-2, weight_decay=0.1, max_grad_norm=1.0),
    RecipeConfig(lr=1e-3, max_grad_norm=0.0, beta1=0.8, adam_eps=1e-6),
    RecipeConfig(lr=3e-3, beta2=0.95),
]


def controls_of(recipes: list[RecipeConfig], is_due: list[float]) -> Controls:
    ones = torch.ones(len(recipes))
    return Controls(
        weight=ones,
        is_due=torch.tensor(is_due),
        num_targets=ones,
        lr=torch.tensor([recipe.lr for recipe in recipes]),
        max_grad_norm=torch.tensor([recipe.max_grad_norm or torch.inf for recipe in recipes]),
        weight_decay=torch.tensor([recipe.weight_decay for recipe in recipes]),
        beta1=torch.tensor([recipe.beta1 for recipe in recipes]),
        beta2=torch.tensor([recipe.beta2 for recipe in recipes]),
        eps=torch.tensor([recipe.adam_eps for recipe in recipes]),
    )


def gradients(step: int, num: int = 3) -> Tensor:
    return 0.03 * torch.randn(num, SIZE, generator=torch.Generator().manual_seed(step))


class Reference:
    """One model of one matrix and one vector under torch.optim.AdamW."""

    def __init__(self, row: Tensor, recipe: RecipeConfig) -> None:
        self.parts = [nn.Parameter(row[:NUM_DECAYED].clone()), nn.Parameter(row[NUM_DECAYED:])]
        self.max_grad_norm = recipe.max_grad_norm or torch.inf
        groups = [
            {"params": self.parts[:1], "weight_decay": recipe.weight_decay},
            {"params": self.parts[1:], "weight_decay": 0.0},
        ]
        betas = (recipe.beta1, recipe.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=betas, eps=recipe.adam_eps)

    def step(self, gradient: Tensor) -> Tensor:
        self.parts[0].grad = gradient[:NUM_DECAYED].clone()
        self.parts[1].grad = gradient[NUM_DECAYED:].clone()
        norm = nn.utils.clip_grad_norm_(self.parts, self.max_grad_norm)
        self.optimizer.step()
        return norm

    @property
    def row(self) -> Tensor:
        return torch.cat([part.detach() for part in self.parts])


def start() -> tuple[Tensor, Adam, AdamConstants]:
    rows = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(99))
    return rows, build_adam(rows), constants_of(RECIPES, CPU)


def test_every_slot_equals_torch_adamw() -> None:
    rows, adam, constants = start()
    references = [Reference(row.clone(), r) for row, r in zip(rows, RECIPES, strict=True)]
    controls = controls_of(RECIPES, [1.0] * 3)
    for step in range(20):
        grads = gradients(step)
        norms = torch.stack([r.step(g) for r, g in zip(references, grads, strict=True)])
        ours, taken = adam_step(rows, grads, adam, controls, constants, num_decayed=NUM_DECAYED)
        torch.testing.assert_close(ours, norms.detach())
        assert taken.tolist() == [1.0] * 3
    for row, other in zip(rows, references, strict=True):
        torch.testing.assert_close(row, other.row, rtol=1e-6, atol=5e-7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_skips_its_slot_alone(bad: float) -> None:
    rows, adam, constants = start()
    controls = controls_of(RECIPES, [1.0] * 3)
    others, other_adam, _ = start()
    for step in range(4):
        grads = gradients(step)
        good = grads.clone()
        if step == 2:
            grads[0, 17] = bad
        before = rows.clone()
        moments = adam.first.clone()
        norms, taken = adam_step(rows, grads, adam, controls, constants, num_decayed=NUM_DECAYED)
        adam_step(others, good, other_adam, controls, constants, num_decayed=NUM_DECAYED)
        if step == 2:
            assert not norms[0].isfinite()
            assert taken.tolist() == [0.0, 1.0, 1.0]
            assert torch.equal(rows[0], before[0])
            assert torch.equal(adam.first[0], moments[0])
    assert adam.steps.tolist() == [3.0, 4.0, 4.0]
    assert torch.equal(rows[1:], others[1:])


@pytest.mark.parametrize("active", [None, (True, False, True)], ids=["by-kernel", "left-out"])
def test_an_idle_slot_changes_nothing(active: tuple[bool, ...] | None) -> None:
    rows, adam, constants = start()
    before = rows.clone()
    controls = controls_of(RECIPES, [1.0, 0.0, 1.0])
    constants = replace(constants, active=active)
    adam_step(rows, gradients(0), adam, controls, constants, num_decayed=NUM_DECAYED)
    assert torch.equal(rows[1], before[1])
    assert not adam.first[1].any()
    assert adam.steps.tolist() == [1.0, 0.0, 1.0]
    assert not torch.equal(rows[0], before[0])


def test_constants_of_idle_slots_are_those_of_a_busy_one() -> None:
    constants = constants_of([None, RECIPES[1], None], CPU)
    assert constants.betas == ((0.8, 0.999),) * 3
    assert constants.active == (False, True, False)
    assert not constants.decays
    assert constants_of([None, RECIPES[0]], torch.device("cuda")).active is None
