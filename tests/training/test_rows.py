"""A model as a row trains as transformers' modules do, and shares its checkpoints with them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from stacked_reference import CPU, LLAMA, PLAIN, VOCAB, build_job
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.training.checkpoints.checkpoint import (
    CheckpointState,
    Writer,
    latest_checkpoint,
    save_checkpoint,
)
from huggingtweets.training.launch import Batch
from huggingtweets.training.modules.loss import SummedLoss
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.parallel.heldout import evaluate_heldout
from huggingtweets.training.parallel.rows import RowAdamW, RowModel
from huggingtweets.training.parallel.shards import (
    GROUPS,
    full_weights,
    local_pieces,
    optimizer_step,
    restore,
    set_optimizer_step,
)
from huggingtweets.training.parallel.step import MicroBatch, ParallelModel, train_step
from huggingtweets.training.progress import Training

CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=2, n_head=2, attn_pdrop=0.0,
        resid_pdrop=0.0, embd_pdrop=0.0,
    ),
    "llama": LlamaConfig(**LLAMA, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**LLAMA, head_dim=8),
}  # fmt: skip
RECIPE = replace(PLAIN, global_batch_size=4, weight_decay=0.1, epochs=6)
FAMILIES = pytest.mark.parametrize("name", CONFIGS)


def build(config: PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def as_modules(config: PreTrainedConfig, recipe: RecipeConfig) -> ParallelModel:
    module = SummedLoss(build(config), isolate=recipe.isolate_documents).train()
    return ParallelModel(Accelerator(cpu=True), module, build_optimizer(module, recipe))


def as_row(
    config: PreTrainedConfig, training: Training, dtype: torch.dtype = torch.float32
) -> ParallelModel:
    layout, recipe = layout_of(shape_of(config)), training.job.recipe
    module = RowModel(layout, layout.pack(build(config).state_dict()), recipe, dtype).train()
    backward = partial(module.add_gradient, training=training)
    return ParallelModel(Accelerator(cpu=True), module, RowAdamW(module, recipe), backward)


def start(recipe: RecipeConfig) -> Training:
    training = Training(build_job("someone", recipe, posts=30, seed=3))
    assert training.total_steps > 6
    return training


def learn(
    model: ParallelModel, training: Training, num_steps: int, *, micro: int = 4
) -> list[tuple[float, float]]:
    """Take steps, as `fit` does; return losses and gradient norms."""
    size = training.job.recipe.global_batch_size
    batch = Batch(micro, size // micro, 1, size)
    blocks = DeviceBlocks(training.job.training_set.blocks, batch, rank=0, device=CPU)
    found = []
    for _ in range(num_steps):
        loss, norm = train_step(
            model,
            blocks.group(training.step),
            num_targets=training.num_targets,
            lr=1e-3,
            max_grad_norm=1.0,
            seeds=[0] * batch.num_micro,
        )
        training.count_step()
        found.append((float(loss), float(norm)))
    return found


def weights_of(model: ParallelModel) -> dict[str, Tensor]:
    return full_weights(model.accelerator, model.module)


@FAMILIES
@pytest.mark.parametrize("isolate", [False, True], ids=["joined", "isolated"])
def test_a_row_trains_as_the_modules_of_transformers(name: str, isolate: bool) -> None:
    recipe = replace(RECIPE, isolate_documents=isolate)
    training, other = start(recipe), start(recipe)
    row, modules = as_row(CONFIGS[name], training), as_modules(CONFIGS[name], recipe)
    figures = [learn(row, training, 6, micro=2), learn(modules, other, 6)]
    torch.testing.assert_close(*map(torch.tensor, figures), rtol=2e-5, atol=0)
    ours, theirs = weights_of(row), weights_of(modules)
    assert ours.keys() == theirs.keys()
    for one, tensor in theirs.items():
        # Adam turns rounding of near-zero gradients into steps.
        torch.testing.assert_close(ours[one], tensor, rtol=0, atol=1e-4, msg=one)
    assert training.job.heldout is not None
    scores = [
        evaluate_heldout(model, training.job.heldout, beat=lambda: None) for model in (row, modules)
    ]
    assert scores[0].loss.nats == pytest.approx(scores[1].loss.nats, rel=2e-5)
    assert scores[0].loss.num_tokens == scores[1].loss.num_tokens


def save(model: ParallelModel, root: Path, step: int) -> None:
    pieces = local_pieces(model.module, model.optimizer)
    tensors = {group: {one.name: one.flat(group) for one in pieces} for group in GROUPS}
    assert all(tensor.ndim == 1 for group in tensors.values() for tensor in group.values())
    values = {
        "starts": {one.name: one.start for one in pieces},
        "count": optimizer_step(model.optimizer),
    }
    save_checkpoint(root, CheckpointState(step, tensors, values), Writer({}))


def load(model: ParallelModel, root: Path) -> None:
    checkpoint = latest_checkpoint(root, {})
    assert checkpoint is not None
    restore(checkpoint, model.module, local_pieces(model.module, model.optimizer))
    set_optimizer_step(model.optimizer, checkpoint.values()["count"])


@FAMILIES
@pytest.mark.parametrize("first", ["row", "modules"])
def test_what_one_began_the_other_goes_on_with(tmp_path: Path, name: str, first: str) -> None:
    undisturbed = start(RECIPE)
    whole = as_row(CONFIGS[name], undisturbed)
    learn(whole, undisturbed, 6)
    training = start(RECIPE)
    row, modules = as_row(CONFIGS[name], training), as_modules(CONFIGS[name], RECIPE)
    began, goes_on = (row, modules) if first == "row" else (modules, row)
    learn(began, training, 3)
    save(began, tmp_path, 3)
    load(goes_on, tmp_path)
    for one, tensor in weights_of(began).items():
        assert torch.equal(weights_of(goes_on)[one], tensor), one
    learn(goes_on, training, 3)
    for one, tensor in weights_of(whole).items():
        torch.testing.assert_close(weights_of(goes_on)[one], tensor, rtol=0, atol=1e-4, msg=one)


@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_row_goes_on_bit_for_bit(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    recipe = replace(RECIPE, dropout=0.1)
    undisturbed, training = start(recipe), start(recipe)
    whole, began = (as_row(CONFIGS[name], one, dtype) for one in (undisturbed, training))
    learn(whole, undisturbed, 6)
    learn(began, training, 3)
    save(began, tmp_path, 3)
    goes_on = as_row(CONFIGS[name], training, dtype)
    load(goes_on, tmp_path)
    learn(goes_on, training, 3)
    assert torch.equal(goes_on.module.row, whole.module.row)


def test_dropout_does_not_depend_on_how_a_step_is_cut() -> None:
    recipe = replace(RECIPE, dropout=0.2)
    found = []
    for micro in (4, 1):
        training = start(recipe)
        found.append(learn(as_row(CONFIGS["gpt2"], training), training, 3, micro=micro))
    torch.testing.assert_close(*map(torch.tensor, found), rtol=1e-5, atol=0)
    plain = start(replace(recipe, dropout=0.0))
    assert not np.allclose(found[0], learn(as_row(CONFIGS["gpt2"], plain), plain, 3), rtol=1e-3)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    training = start(RECIPE)
    model = as_row(CONFIGS["gpt2"], training)
    learn(model, training, 1)
    before = [
        each.clone()
        for each in (model.module.row, *model.optimizer.state[model.module.row].values())
    ]

    def spoilt(blocks: MicroBatch, scale: float) -> Tensor:
        return model.module.add_gradient(blocks, float("nan"), training)  # type: ignore[no-any-return]

    [(_, norm)] = learn(replace(model, backward=spoilt), training, 1)
    assert not np.isfinite(norm)
    after = (model.module.row, *model.optimizer.state[model.module.row].values())
    assert all(map(torch.equal, after, before))
