"""Packed posts are as good as alone; the chunked cross-entropy equals the plain one."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from huggingtweets.data.blocks import IGNORED, pack_heldout
from huggingtweets.training.modules import cross_entropy
from huggingtweets.training.modules.attention import document_mask
from huggingtweets.training.modules.cross_entropy import linear_cross_entropy
from huggingtweets.training.modules.loss import SummedLoss, check_isolation

EOS = 0
DOCUMENTS = [[5, 6, 7], [8, 9], list(range(10, 24)), [3], [4, 4, 4, 4, 4]]


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("make", [gpt2, llama])
def test_packed_logits_equal_each_post_alone(make) -> None:
    model = make()
    blocks = pack_heldout(DOCUMENTS, block_size=20, eos_id=EOS)
    ids, positions = (
        torch.from_numpy(array).long() for array in (blocks.input_ids, blocks.position_ids)
    )
    with torch.no_grad():
        packed = model(
            input_ids=ids,
            attention_mask=document_mask(positions),
            position_ids=positions,
            use_cache=False,
        ).logits
        found = 0
        for row in range(len(ids)):
            starts = [*(positions[row] == 0).nonzero().flatten().tolist(), ids.shape[1]]
            for start, end in pairwise(starts):
                alone = model(input_ids=ids[row : row + 1, start:end], use_cache=False).logits
                torch.testing.assert_close(packed[row, start:end], alone[0], rtol=1e-5, atol=1e-5)
                found += ids[row, start:end].tolist()[1:] in DOCUMENTS
    assert found == len(DOCUMENTS)
    assert check_isolation(SummedLoss(model, isolate=True), EOS)


def test_isolation_check_notices_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt2()
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda attention_mask=None, **inputs: forward(**inputs),
    )
    monkeypatch.setattr(
        "transformers.masking_utils.find_packed_sequence_indices", lambda *_: None, raising=False
    )
    assert not check_isolation(SummedLoss(model, isolate=True), EOS)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_summed_loss_equals_the_models_own_over_single_posts(make) -> None:
    model = make()
    blocks = pack_heldout(DOCUMENTS, block_size=20, eos_id=EOS)
    tensors = [
        torch.from_numpy(array).long()
        for array in (blocks.input_ids, blocks.targets, blocks.position_ids)
    ]
    module = SummedLoss(model, isolate=True).eval()
    expected = 0.0
    for document in DOCUMENTS:
        ids = torch.tensor([[EOS, *document, EOS]])
        expected += model(input_ids=ids, labels=ids).loss.item() * (len(document) + 1)
    assert module(*tensors).item() == pytest.approx(expected, rel=1e-5)


def test_joined_blocks_train_as_transformers_does() -> None:
    model = gpt2()
    ids = torch.randint(0, 50, (3, 16))
    targets = torch.cat([ids[:, 1:], torch.full((3, 1), IGNORED)], dim=1)
    positions = torch.arange(16).expand(3, 16)
    module = SummedLoss(model, isolate=False).train()
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
    model.config.attn_pdrop = 0.0
    for block in model.transformer.h:
        block.attn.attn_dropout.p = 0.0
    ours = module(ids, targets, positions)
    theirs = model(input_ids=ids, labels=ids).loss * (3 * 15)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_logits", [64 * 50, 100 * 50, 2**20])
@pytest.mark.parametrize("is_bf16", [False, True])
def test_chunked_cross_entropy_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, chunk_logits: int, is_bf16: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (300,), generator=generator)
    targets[10:20] = IGNORED
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", chunk_logits)
    monkeypatch.setattr(cross_entropy, "FEW_LOGITS", 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        plain = F.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")
        ours = linear_cross_entropy(hidden, weight, targets)
    expected = torch.autograd.grad(3 * plain, (hidden, weight))
    got = torch.autograd.grad(3 * ours, (hidden, weight))
    tolerance = 2e-2 if is_bf16 else 1e-5
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    for theirs, own in zip(expected, got, strict=True):
        assert (own - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_a_frozen_head_has_no_gradient_and_leaves_that_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 100 * 50)
    monkeypatch.setattr(cross_entropy, "FEW_LOGITS", 0)
    hidden, weight = torch.randn(300, 16, requires_grad=True), torch.randn(50, 16)
    targets = torch.randint(0, 50, (300,))
    frozen = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), hidden)
    weight.requires_grad_()
    trained = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), (hidden, weight))
    assert torch.equal(frozen[0], trained[0])
    assert trained[1].abs().max() > 0


@pytest.mark.parametrize("few", [0, 2**30], ids=["chunked", "plain"])
def test_rows_without_a_target_are_left_out_for_nothing(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(cross_entropy, "FEW_LOGITS", few)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 16, generator=generator, requires_grad=True)
    weight = torch.randn(50, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (300,), generator=generator)
    targets[torch.randperm(300, generator=generator)[:170]] = IGNORED
    rows = cross_entropy.rows_with_target(targets)
    assert rows is not None
    assert len(rows) == 192
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction="sum", ignore_index=IGNORED)
    ours = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(plain, (hidden, weight))
    got = torch.autograd.grad(ours, (hidden, weight))
    for theirs, own in zip(expected, got, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)
