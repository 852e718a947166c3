"""Every way to attend gives the numbers of PyTorch's own kernel under an explicit mask."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from huggingtweets.data.blocks import Blocks, pack_heldout
from huggingtweets.training.host_memory import keep_freed_memory
from huggingtweets.training.modules import attention, cross_entropy
from huggingtweets.training.modules.attention import Attention, documents_of, windows_of
from huggingtweets.training.modules.hashed_dropout import HashedDropout
from huggingtweets.training.modules.loss import (
    SummedLoss,
    check_isolation,
    document_limits,
    settle_attention,
    spare_embeddings,
    swap_modules,
)

EOS, T = 0, 48
FP32, BF16 = 1e-5, 3e-2
"""Relative to the largest element: the most by which two ways may differ."""


def gpt2(rate: float = 0.0) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    rates = {"attn_pdrop": rate, "resid_pdrop": rate, "embd_pdrop": rate}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=T, n_embd=32, n_layer=2, n_head=2, **rates)
    ).train()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=T,
    )
    return LlamaForCausalLM(config).train()


def packed() -> Blocks:
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 50, rng.integers(1, 20)).tolist() for _ in range(12)]
    return pack_heldout(documents, block_size=T, eos_id=EOS)


def tensors(blocks: Blocks) -> list[Tensor]:
    return [torch.from_numpy(array).long() for array in vars(blocks).values()]


def loss_and_gradients(module: nn.Module, *, is_bf16: bool = False) -> tuple[Tensor, list[Tensor]]:
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        loss = module(*tensors(packed()))
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in module.parameters() if p.grad is not None]


def assert_same(ours: nn.Module, plain: nn.Module, *, is_bf16: bool = False) -> None:
    tolerance = BF16 if is_bf16 else FP32
    loss, gradients = loss_and_gradients(ours, is_bf16=is_bf16)
    expected, plain_gradients = loss_and_gradients(plain, is_bf16=is_bf16)
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    assert len(gradients) == len(plain_gradients) > 10
    for own, theirs in zip(gradients, plain_gradients, strict=True):
        assert (own - theirs).abs().max() <= tolerance * theirs.abs().max() + 1e-6


@pytest.mark.parametrize("is_bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_windows_train_as_an_explicit_mask_does(
    monkeypatch: pytest.MonkeyPatch, make, isolate: bool, is_bf16: bool
) -> None:
    monkeypatch.setattr(attention, "ISOLATED_WIDTH", 10)
    monkeypatch.setattr(attention, "JOINED_WIDTH", 14)
    ours = SummedLoss(make(), isolate=isolate, attention=Attention.windows)
    plain = SummedLoss(make(), isolate=isolate)
    assert ours.attention is Attention.windows
    assert_same(ours, plain, is_bf16=is_bf16)
    assert check_isolation(ours, EOS)
    ours.eval()
    plain.eval()
    assert_same(ours, plain, is_bf16=is_bf16)  # evaluation isolates in any case


def test_windows_are_as_long_as_documents() -> None:
    positions = torch.from_numpy(packed().position_ids).long()
    runs = windows_of(positions.repeat(1, 4), isolate=True, dtype=torch.float32).runs
    longest = int(positions.max()) + 1
    assert len(runs) == -(-4 * T // attention.ISOLATED_WIDTH)
    assert max(run.stop - run.first_key for run in runs) <= attention.ISOLATED_WIDTH + longest + 1


def test_documents_are_told_without_looking_at_their_number() -> None:
    blocks = packed()
    positions = torch.from_numpy(blocks.position_ids).long()
    most, longest = document_limits(blocks)
    documents = documents_of(positions, most=most * len(positions), longest=longest)
    starts = (positions.flatten() == 0).nonzero().flatten().tolist()
    found = documents.starts.tolist()
    assert len(found) == most * len(positions) + 1
    assert found[: len(starts)] == starts
    assert set(found[len(starts) :]) == {positions.numel()}
    lengths = np.diff([*starts, positions.numel()])
    assert lengths.max() <= documents.longest


def test_a_kernel_that_is_not_there_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    module = SummedLoss(gpt2(), isolate=True, attention=Attention.varlen)  # of CUDA alone
    with caplog.at_level(logging.WARNING):
        assert settle_attention(module, EOS)
    assert module.attention is Attention.masked
    assert "attention=masked instead of varlen" in caplog.text
    assert_same(module, SummedLoss(gpt2(), isolate=True))


def test_dropout_within_windows_is_that_of_its_seed_and_means_the_same() -> None:
    q, k, v = torch.randn(3, 2, 2, T, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    positions = torch.arange(T).expand(2, T)
    spans = windows_of(positions, isolate=False, dtype=torch.float32)
    module = nn.Module()

    def run(rate: float, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return attention.attend(module, q, k, v, None, dropout=rate, spans=spans)[0]

    plain = run(0.0, 0)
    assert torch.equal(run(0.3, 1), run(0.3, 1))
    assert not torch.equal(run(0.3, 1), run(0.3, 2))
    mean = torch.stack([run(0.3, seed) for seed in range(400)]).mean(0)
    assert (mean - plain).abs().mean() < 0.05
    assert (run(0.3, 1) - plain).abs().mean() > 0.1


def test_recomputed_activations_see_the_same_dropout() -> None:
    modules = [SummedLoss(gpt2(0.2), isolate=True, attention=Attention.windows) for _ in "ab"]
    for module in modules:
        swap_modules(module.model)
    modules[1].model.gradient_checkpointing_enable()
    found = []
    for module in modules:
        torch.manual_seed(7)
        found.append(loss_and_gradients(module))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_quicker_modules_compute_the_same() -> None:
    model = gpt2()
    swap_modules(model)
    assert not any(type(each) is nn.Dropout for each in model.modules())
    assert type(model.transformer.h[0].mlp.act) is nn.GELU
    assert model.state_dict().keys() == gpt2().state_dict().keys()
    assert_same(SummedLoss(model, isolate=True), SummedLoss(gpt2(), isolate=True))


@pytest.mark.parametrize("is_bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("few", [0, 2**30], ids=["chunked", "plain"])
def test_embeddings_that_touch_few_rows_get_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch, few: int, is_bf16: bool
) -> None:
    monkeypatch.setattr(cross_entropy, "FEW_LOGITS", few)
    ours, plain = (SummedLoss(gpt2(), isolate=True) for _ in "ab")
    spare_embeddings(ours)
    assert ours.model.transformer.wte.sparse
    assert_same(ours, plain, is_bf16=is_bf16)
    assert ours.model.transformer.wte.weight.grad.layout is torch.strided
    before = ours.model.transformer.wte.weight.grad.clone()
    ours(*tensors(packed())).backward()  # a second micro-batch is added
    torch.testing.assert_close(
        ours.model.transformer.wte.weight.grad,
        2 * before,
        rtol=BF16,
        atol=BF16 * before.abs().max(),
    )


def test_hashed_dropout_drops_its_share_and_scales_the_rest() -> None:
    dropout = HashedDropout(0.1)
    x = torch.ones(4, 256, 128, requires_grad=True)
    torch.manual_seed(0)
    y = dropout(x)
    y.sum().backward()
    assert (y == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)
    assert y.mean().item() == pytest.approx(1.0, abs=2e-3)
    assert torch.equal(x.grad, y.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert dropout.eval()(x) is x


def test_keeping_freed_memory_changes_no_bit() -> None:
    module = SummedLoss(gpt2(), isolate=True, attention=Attention.windows)
    loss, gradients = loss_and_gradients(module)
    keep_freed_memory(of_any_size=True)
    again, gradients_again = loss_and_gradients(module)
    assert torch.equal(loss, again)
    assert all(map(torch.equal, gradients, gradients_again))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_modules_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    module = SummedLoss(gpt2(), isolate=True)
    swap_modules(module.model)
    module.compile()
    assert_same(module, SummedLoss(gpt2(), isolate=True))
    assert any(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_varlen_trains_as_an_explicit_mask_does() -> None:
    blocks = packed()
    most, longest = document_limits(blocks)
    found = []
    for way in (Attention.varlen, Attention.masked):
        module = SummedLoss(
            gpt2(), isolate=True, attention=way, most_documents=most, longest_document=longest
        ).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            loss = module(*(each.cuda() for each in tensors(blocks)))
        loss.backward()
        found.append((loss.detach(), [p.grad for p in module.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=BF16, atol=0)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert (one - other).abs().max() <= BF16 * other.abs().max() + 1e-6
