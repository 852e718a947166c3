"""Each family's forward and backward pass, K models at once, against transformers one by one."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from huggingtweets.data.blocks import IGNORED
from huggingtweets.kernels.compiled import compiled_ops
from huggingtweets.kernels.rows import RowOps
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.forward import MicroBatch, micro_batch
from huggingtweets.models.layout import Layout
from huggingtweets.models.run import logits, loss_and_gradients, target_scores
from huggingtweets.models.stack import build_stack
from huggingtweets.ops.attention import WINDOW
from huggingtweets.ops.reference import PYTORCH

torch.set_num_threads(1)

B, T, VOCAB = 2, 24, 101
LENGTHS = (9, 4, 11)
RELATIVE = 5e-6
"""Of the largest: rounding of fp32."""

SMALL = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0,
        resid_pdrop=0.0, embd_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    ),
    "llama3": LlamaConfig(**SMALL, rope_parameters=LLAMA3),
    "smollm2": LlamaConfig(**SMALL, tie_word_embeddings=True, rms_norm_eps=1e-5),
    "wide-heads": LlamaConfig(**SMALL, head_dim=16),
    "linear-scaling": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    ),
    "smollm3": SmolLM3Config(**SMALL, no_rope_layers=[1, 0], tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen2-sliding": Qwen2Config(
        **SMALL, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen3": Qwen3Config(**SMALL, head_dim=16),
}  # fmt: skip


@pytest.fixture(autouse=True)
def narrow_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several windows of attention in these short blocks."""
    monkeypatch.setitem(WINDOW, "cpu", 8)


def build_models(config: PreTrainedConfig, num: int) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    models = [AutoModelForCausalLM.from_config(config) for _ in range(num)]
    for model in models:
        model.get_input_embeddings().padding_idx = None  # as `load_model`: what pads is learnt too
        for parameter in model.parameters():  # biases and norms that matter
            parameter.data += 0.05 * torch.randn_like(parameter)
    return models


def build_batch(layout: Layout, num: int, *, isolate: bool, is_compiled: bool = True) -> MicroBatch:
    generator = torch.Generator().manual_seed(1)
    ids, targets = (torch.randint(0, VOCAB, (num, B, T), generator=generator) for _ in range(2))
    targets[:, :, 5] = IGNORED
    ids[:, :, 3] = 0  # the padding of those that have one, which ends posts too
    positions = torch.arange(T)
    if isolate:
        positions = torch.cat([torch.arange(length) for length in LENGTHS])
    ops = (compiled_ops() if is_compiled else None) or PYTORCH
    return micro_batch(
        layout.shape,
        (ids, targets, positions.expand(num, B, T).contiguous()),
        isolate=isolate,
        reach=max(LENGTHS),
        use_fused=False,
        ops=ops,
    )


def reference(model: torch.nn.Module, batch: MicroBatch, slot: int) -> Tensor:
    """Logits (B, T, V) of transformers, every document in a forward pass of its own."""
    rows = []
    for ids, positions in zip(batch.input_ids[slot], batch.position_ids[slot], strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), T]
        documents = [ids[a:b] for a, b in pairwise(starts)]
        rows.append(torch.cat([model(input_ids=d[None]).logits[0] for d in documents]))
    return torch.stack(rows)


@pytest.mark.parametrize("is_compiled", [False, True], ids=["pytorch", "compiled"])
@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_equal_transformers(
    name: str, num: int, isolate: bool, is_compiled: bool
) -> None:
    models = build_models(CONFIGS[name], num)
    layout = layout_of(shape_of(CONFIGS[name]))
    rows = torch.stack([layout.pack(model.state_dict()) for model in models])
    stack = build_stack(layout, rows, torch.float32)
    grads = build_stack(layout, torch.full_like(rows, 7.0), torch.float32)
    grads.rows[:, layout.num_values :] = 0.0
    batch = build_batch(layout, num, isolate=isolate, is_compiled=is_compiled)
    weight = torch.tensor([0.01, 0.02, 0.005])[:num]
    losses = loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    scored, _ = target_scores(stack, batch, RowOps())
    torch.testing.assert_close(losses, scored.sum((1, 2)))
    said = logits(stack, batch)
    for slot, model in enumerate(models):
        expected = reference(model, batch, slot)
        torch.testing.assert_close(said[slot], expected, rtol=0, atol=1e-5)
        loss = torch.nn.functional.cross_entropy(
            expected.flatten(0, 1),
            batch.targets[slot].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        torch.testing.assert_close(losses[slot], loss.detach(), rtol=1e-5, atol=0)
        (loss * weight[slot]).backward()
        named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        theirs = layout.pack(named)
        atol = RELATIVE * float(theirs.abs().max())
        torch.testing.assert_close(grads.rows[slot], theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_second_micro_batch_adds_up_and_recomputing_changes_nothing(name: str) -> None:
    layout = layout_of(shape_of(CONFIGS[name]))
    rows = torch.stack([layout.pack(m.state_dict()) for m in build_models(CONFIGS[name], 2)])
    stack = build_stack(layout, rows, torch.float32)
    grads = build_stack(layout, torch.zeros_like(rows), torch.float32)
    batch, weight = build_batch(layout, 2, isolate=True), torch.full((2,), 0.01)
    loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    once = grads.rows.clone()
    loss_and_gradients(stack, grads, batch, weight, accumulate=True, recompute=True)
    torch.testing.assert_close(grads.rows, 2 * once)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pass_copies_nothing_from_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA that waits for the device, and a graph cannot hold it."""
    layout = layout_of(shape_of(CONFIGS[name]))
    rows = torch.stack([layout.pack(m.state_dict()) for m in build_models(CONFIGS[name], 2)])
    stack = build_stack(layout, rows, torch.float32)
    grads = build_stack(layout, torch.zeros_like(rows), torch.float32)
    batch, weight = build_batch(layout, 2, isolate=True), torch.full((2,), 0.01)
    for maker in ("tensor", "as_tensor", "from_numpy"):
        monkeypatch.setattr(torch, maker, lambda *_, **__: pytest.fail("made of host values"))
    loss_and_gradients(stack, grads, batch, weight, accumulate=False)
    logits(stack, batch)


@pytest.mark.parametrize("name", CONFIGS)
def test_unpack_undoes_pack(name: str) -> None:
    (model,) = build_models(CONFIGS[name], 1)
    layout = layout_of(shape_of(CONFIGS[name]))
    state = layout.unpack(layout.pack(model.state_dict()))
    assert state.keys() == model.state_dict().keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(state[key], tensor), key
    decayed = sum(p.numel() for p in model.parameters() if p.ndim >= 2)
    padding = layout.shape.padded_vocab_size - VOCAB
    tables = 1 if layout.shape.is_tied else 2
    assert layout.num_decayed == decayed + tables * padding * layout.shape.width
