"""Clipping within the fused optimizer is clipping before it."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.step import ParallelModel, update


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


@pytest.mark.parametrize("max_grad_norm", [0.0, 0.01, 1e6])
def test_update_clips_as_pytorch_does(max_grad_norm: float) -> None:
    accelerator = Accelerator(cpu=True)
    ours, plain = small(), small()
    recipe = RecipeConfig(lr=1e-2)
    optimizer, reference = build_optimizer(ours, recipe), build_optimizer(plain, recipe)
    x = torch.randn(5, 8)
    for _ in range(4):
        for module in (ours, plain):
            module(x).square().sum().backward()
        norm = update(ParallelModel(accelerator, ours, optimizer), max_grad_norm)
        limit = max_grad_norm or float("inf")
        expected = nn.utils.clip_grad_norm_(plain.parameters(), limit)
        reference.step()
        reference.zero_grad()
        torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
    for own, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)


def test_update_leaves_a_gradient_that_is_not_finite_alone() -> None:
    accelerator = Accelerator(cpu=True)
    module = small()
    optimizer = build_optimizer(module, RecipeConfig())
    before = [each.detach().clone() for each in module.parameters()]
    (module(torch.randn(5, 8)).sum() * float("nan")).backward()
    assert not update(ParallelModel(accelerator, module, optimizer), 1.0).isfinite()
    assert all(map(torch.equal, module.parameters(), before))
