"""Gradients that stay in one place, as CUDA graphs need them, are the gradients of a plain step."""

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.training.modules.attention import Attention
from huggingtweets.training.modules.loss import SummedLoss, swap_modules
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.graphs import GraphedBackward
from huggingtweets.training.parallel.step import MicroBatch, ParallelModel, train_step

T = 16


def micro_batches(step: int, device: torch.device) -> list[MicroBatch]:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, 50, (2, 3, T + 1), generator=generator)
    positions = torch.arange(T).expand(3, T)
    parts = [(each[:, :-1], each[:, 1:], positions) for each in ids]
    return [tuple(part.contiguous().to(device) for part in three) for three in parts]  # type: ignore[misc]


def train(*, graphed: bool, device: torch.device) -> tuple[list[float], list[Tensor]]:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=T, n_embd=32, n_layer=2, n_head=2)
    attention = Attention.windows if device.type == "cpu" else Attention.masked
    module = SummedLoss(GPT2LMHeadModel(config).to(device), isolate=False, attention=attention)
    swap_modules(module.model)
    accelerator = Accelerator(cpu=device.type == "cpu")
    optimizer = build_optimizer(module.train(), RecipeConfig(lr=1e-2))
    backward = GraphedBackward(module, optimizer, device) if graphed else None
    losses = []
    for step in range(6):
        model = ParallelModel(accelerator, module, optimizer, backward)
        loss, norm = train_step(
            model,
            micro_batches(step, device),
            num_targets=6 * T,
            lr=1e-2,
            max_grad_norm=1.0,
            seeds=[2 * step, 2 * step + 1],
        )
        losses += [float(loss), float(norm)]
    return losses, [each.detach() for each in module.parameters()]


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("name", DEVICES)
def test_gradients_in_place_train_the_same_model(name: str) -> None:
    losses, weights = train(graphed=True, device=torch.device(name))
    expected, plain = train(graphed=False, device=torch.device(name))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[0] > losses[-2]
    for own, theirs in zip(weights, plain, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-4)
