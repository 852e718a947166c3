"""Labels smoothed by a benchmark: the loss and its gradients are those of soft labels."""

import sys

import pytest
import torch
import torch.nn.functional as F
from architecture_kinds import KINDS
from small import ROOT
from transformers import AutoModelForCausalLM

from huggingtweets.data.blocks import IGNORED
from huggingtweets.models.adapter_rows import build_adapter_stack
from huggingtweets.ops.reference import PYTORCH
from huggingtweets.training.stacked.grouped import GroupedBase, GroupedTuning

sys.path.append(str(ROOT / "benchmarks"))
from quality_real.smoothing import smoothed_labels, token_shares

peft = pytest.importorskip("peft")

VOCAB, B, T = 40, 2, 12


def test_the_loss_is_that_of_soft_labels() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS["llama2"][1](VOCAB)).eval()
    tuning = GroupedTuning(model, 4, torch.device("cpu"), bos_id=0, block_size=T)
    base = GroupedBase(tuning, torch.device("cpu"), torch.float32)
    row = tuning.layout.fresh(4, seed=0)
    stack = build_adapter_stack(tuning.layout, row[None].clone(), torch.float32)
    grads = build_adapter_stack(tuning.layout, torch.zeros_like(stack.rows), torch.float32)
    ids, targets = torch.randint(1, VOCAB, (2, 1, B, T)).unbind(0)
    targets[0, 1, 7:] = IGNORED
    positions = torch.arange(T).expand(1, B, T)
    shares = token_shares(targets.numpy(), VOCAB)
    weight = torch.ones(1)

    def trained(frac: float) -> tuple[torch.Tensor, torch.Tensor]:
        grads.rows.zero_()
        with smoothed_labels(frac, shares), base.grouped.computing(stack, grads):
            loss = base.losses((ids, targets, positions), weight, None, PYTORCH)
            loss.backward(weight)
        return loss.detach(), grads.rows.clone()

    with base.grouped.computing(stack):
        logits = base.grouped.model(**base._inputs(ids, positions, None)).logits.view(-1, VOCAB)
    known = targets.flatten() != IGNORED
    logits, goals = logits[known], targets.flatten()[known]
    soft = 0.7 * F.one_hot(goals, VOCAB) + 0.3 * shares
    expected = F.cross_entropy(logits, soft, reduction="sum")
    loss, grad = trained(0.3)
    torch.testing.assert_close(loss[0], expected, rtol=1e-5, atol=1e-5)
    # Linear in the share: gradients of 0.3 lie between those of none and of twice as much.
    ends = trained(0.0)[1], trained(0.6)[1]
    torch.testing.assert_close(grad, (ends[0] + ends[1]) / 2, rtol=1e-4, atol=1e-6)
    assert (grad - ends[0]).abs().max() > 1e-3
