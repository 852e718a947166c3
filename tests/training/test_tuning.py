"""The micro-batch that measures fastest is taken and remembered; the training is the same."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from huggingtweets.data.blocks import Blocks, pack_heldout
from huggingtweets.training.launch import Batch
from huggingtweets.training.modules.loss import SummedLoss
from huggingtweets.training.parallel import tuning
from huggingtweets.training.parallel.step import ParallelModel
from huggingtweets.training.parallel.tuning import fastest, pick

LARGEST = Batch(4, 1, 1, 4)


def blocks() -> Blocks:
    documents = [[1 + (i + j) % 40 for j in range(9)] for i in range(30)]
    return pack_heldout(documents, block_size=20, eos_id=0)


def module() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    return SummedLoss(GPT2LMHeadModel(config), isolate=True).train()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))
    return tmp_path / "micro_batches.json"


def choose(num_steps: int, **key: object) -> Batch:
    model = ParallelModel(Accelerator(cpu=True), module(), None)
    return fastest(model, blocks(), LARGEST, num_steps=num_steps, key=dict(key))


def test_pick_takes_the_least_time_of_several_looks() -> None:
    times = {4: [9.0, 5.0], 2: [4.0, 8.0], 1: [6.0, 6.0]}
    candidates = tuning._candidates(LARGEST)
    assert [one.micro for one in candidates] == [4, 2, 1]
    assert all(one.micro * one.num_micro == 4 for one in candidates)
    assert pick(candidates, lambda one: times[one.micro].pop(0)).micro == 2


def test_a_micro_batch_that_does_not_fit_is_not_chosen() -> None:
    candidates = tuning._candidates(LARGEST)
    chosen = pick(candidates, lambda one: float("inf") if one.micro > 1 else 3.0)
    assert chosen.micro == 1


def test_what_was_measured_is_remembered(cache: Path) -> None:
    first = choose(tuning.MIN_STEPS, width=32)
    assert first.micro * first.num_micro == 4
    [(name, micro)] = json.loads(cache.read_text()).items()
    assert "width=32" in name
    assert micro == first.micro
    other = 1 if micro != 1 else 2
    cache.write_text(json.dumps({name: other}))
    assert choose(10, width=32).micro == other
    assert choose(10, width=64) == LARGEST  # another model: too short to measure


def test_measuring_leaves_the_model_alone(cache: Path) -> None:
    model = module()
    before = [each.detach().clone() for each in model.parameters()]
    parallel = ParallelModel(Accelerator(cpu=True), model, None)
    fastest(parallel, blocks(), LARGEST, num_steps=tuning.MIN_STEPS, key={"a": 1})
    assert cache.exists()
    assert all(map(torch.equal, model.parameters(), before))
    assert all(each.grad is None for each in model.parameters())


def test_a_damaged_cache_is_measured_anew(cache: Path) -> None:
    cache.write_text("{")
    assert choose(tuning.MIN_STEPS).micro in (1, 2, 4)
    assert json.loads(cache.read_text())
