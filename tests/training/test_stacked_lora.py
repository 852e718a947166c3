"""Stacked adapters against peft, one model at a time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stacked_reference import (
    BASE,
    CPU,
    LAYOUT,
    PLAIN,
    ROW,
    T,
    build_base,
    build_job,
    summed_loss,
    tensors,
)

from huggingtweets.bases.lora import adapter_state, add_lora
from huggingtweets.config.schema import Adapter
from huggingtweets.data.blocks import IGNORED
from huggingtweets.models.adapter_rows import adapters_of
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

peft = pytest.importorskip("peft")

LORA = replace(PLAIN, adapter=Adapter.lora, lora_rank=4, lora_alpha=8, lr=5e-3)
RANK = 6
"""Of the slots: some jobs need less."""


def lora_jobs() -> list[TrainingJob]:
    recipes = [
        LORA,
        replace(LORA, lora_rank=6, lora_alpha=6, weight_decay=0.1, global_batch_size=2),
        replace(LORA, lora_rank=2, epochs=3),
        replace(LORA, isolate_documents=True),
    ]
    return [
        build_job(f"job-{index}", recipe, posts=12 + 5 * index, seed=index)
        for index, recipe in enumerate(recipes)
    ]


def train(
    jobs: list[TrainingJob], *, slots: int, dtype: torch.dtype = torch.float32
) -> dict[str, StackedResult]:
    settings = StackedSettings(slots=slots, micro_batch_size=1, block_size=T, dtype=dtype)
    results = train_stacked(
        FullTuning(LAYOUT, ROW, RANK), iter(jobs), settings=settings, device=CPU
    )
    return {result.slug: result for result in results}


def train_with_peft(job: TrainingJob) -> torch.nn.Module:
    """Train a peft model that begins with our adapters, in a plain loop."""
    model, recipe = build_base(), job.recipe
    add_lora(model, recipe, seed=job.seed)
    layout = adapters_of(LAYOUT, recipe.lora_rank)
    start = layout.peft_state(layout.fresh(recipe.lora_rank, seed=job.seed), recipe.lora_rank)
    for name, tensor in adapter_state(dict(model.named_parameters())).items():
        assert torch.equal(tensor, start[name])
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == len(start)
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    parts = tensors(job.training_set.blocks)
    size = recipe.global_batch_size
    total = -(-len(parts[0]) // size)
    for step in range(total):
        ids, targets, positions = (part[step * size : (step + 1) * size] for part in parts)
        loss = summed_loss(model, (ids, targets, positions), isolate=recipe.isolate_documents)
        loss = loss / (targets != IGNORED).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe=recipe, total_steps=total)
        optimizer.step()
    return model


@pytest.mark.parametrize("slots", [1, 3])
def test_adapters_equal_those_peft_trains(slots: int) -> None:
    jobs = lora_jobs()
    results = train(jobs, slots=slots)
    for job in jobs:
        model = train_with_peft(job)
        named = dict(model.named_parameters())
        ours = results[job.slug].adapters
        assert ours is not None
        for name, tensor in ours.items():
            own = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
            torch.testing.assert_close(tensor, named[own].data, rtol=0, atol=0.02 * job.recipe.lr)
        merged = build_base()
        merged.load_state_dict(results[job.slug].weights or {})
        ids = torch.arange(20)[None]
        with torch.no_grad():
            said, expected = merged(input_ids=ids).logits, model(input_ids=ids).logits
            before = BASE(input_ids=ids).logits
        torch.testing.assert_close(said, expected, rtol=0, atol=1e-4)
        assert float((said - before).abs().max()) > 1e-2


def test_peft_loads_the_adapters(tmp_path: Path) -> None:
    (job, *_) = lora_jobs()
    result = train([job], slots=2)[job.slug]
    config = peft.LoraConfig(
        r=job.recipe.lora_rank,
        lora_alpha=job.recipe.lora_alpha,
        target_modules="all-linear",
        fan_in_fan_out=True,
        task_type=peft.TaskType.CAUSAL_LM,
    )
    config.save_pretrained(str(tmp_path))
    save_file(result.adapters or {}, tmp_path / "adapter_model.safetensors")
    model = peft.PeftModel.from_pretrained(build_base(), str(tmp_path)).eval()
    merged = build_base()
    merged.load_state_dict(result.weights or {})
    ids = torch.arange(20)[None]
    with torch.no_grad():
        said, expected = model(input_ids=ids).logits, merged(input_ids=ids).logits
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-4)


def test_bf16_adapters_train() -> None:
    (job, *_) = lora_jobs()
    exact, half = (
        train([job], slots=2, dtype=dtype)[job.slug].trained
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact is not None
    assert half is not None
    assert half.final_loss == pytest.approx(exact.final_loss, rel=0.01)


def test_only_the_linear_layers_change() -> None:
    (job, *_) = lora_jobs()
    weights = train([job], slots=1)[job.slug].weights or {}
    changed = {
        name for name, tensor in BASE.state_dict().items() if not torch.equal(tensor, weights[name])
    }
    assert len(changed) == 4 * LAYOUT.shape.num_layers
    assert all(".c_" in name and name.endswith("weight") for name in changed)


def test_jobs_of_another_kind_fail_alone() -> None:
    full = build_job("full", PLAIN, posts=10, seed=1)
    wide = build_job("wide", replace(LORA, lora_rank=8), posts=10, seed=1)
    fine = lora_jobs()[0]
    results = train([full, wide, fine], slots=2)
    assert "recipe.adapter: got none of rank 0" in str(results["full"].error)
    assert "recipe.adapter: got lora of rank 8" in str(results["wide"].error)
    assert results[fine.slug].error is None
