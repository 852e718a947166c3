"""The single engine's micro-step as a GPU runs it, by software graphs."""

from typing import Any

import pytest
import torch
from software_cuda import installed
from stacked_reference import VOCAB, T, build_base
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.training.modules.attention import Attention
from huggingtweets.training.modules.loss import SummedLoss, choose_attention, swap_modules
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.graphs import GraphedBackward

CPU = torch.device("cpu")


def micro_batches(num: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    found = []
    for index in range(num):
        ids = torch.randint(1, VOCAB, (2, T + 1), generator=random)
        targets = ids[:, 1:].clone()
        targets[:, index % T] = -100
        places = torch.arange(T).remainder(8 + index).expand(2, T).contiguous()
        found.append((ids[:, :-1].contiguous(), targets, places))
    return found


def learn(*, isolate: bool, graphed: bool) -> tuple[list[float], Tensor]:
    model = build_base()
    module = SummedLoss(model, isolate=isolate, attention=Attention.masked).train()
    swap_modules(model)
    optimizer = build_optimizer(module, RecipeConfig(lr=1e-3))
    backward = GraphedBackward(module, optimizer, CPU) if graphed else None
    losses = []
    for batch in micro_batches(6):
        if backward is not None:
            loss = backward(batch, 0.01)
        else:
            loss = module(*batch)
            (loss * 0.01).backward()
        losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    return losses, torch.cat([each.detach().flatten() for each in module.parameters()])


@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
def test_a_graph_of_the_micro_step_trains_the_same(isolate: bool) -> None:
    plain_losses, plain = learn(isolate=isolate, graphed=False)
    with installed() as state:
        losses, weights = learn(isolate=isolate, graphed=True)
        assert state.replays == 4, "a graph could not be captured"
    assert losses == pytest.approx(plain_losses, rel=1e-5)
    torch.testing.assert_close(weights, plain, rtol=0, atol=1e-6)


def test_attention_suits_the_device() -> None:
    def chosen(dtype: torch.dtype) -> Attention:
        return choose_attention(CPU, dtype, is_sharded=False, is_compiled=False)

    assert chosen(torch.bfloat16) is Attention.windows
    with installed():
        assert chosen(torch.bfloat16) is Attention.varlen
        assert chosen(torch.float32) is Attention.masked


class _Reads(TorchDispatchMode):
    """Remembers what asked for a value of a tensor: on a GPU that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_local_scalar_dense" in str(func) or "is_nonzero" in str(func):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
def test_a_pass_with_a_mask_waits_for_nothing(isolate: bool) -> None:
    module = SummedLoss(build_base(), isolate=isolate, attention=Attention.masked).train()
    [batch] = micro_batches(1)
    whole = module(*batch)
    with installed(), _Reads() as reads:
        loss = module(*batch)
    assert reads.found == []
    torch.testing.assert_close(loss, whole)
