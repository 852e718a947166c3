"""The fused engine on a GPU: CUDA graphs, fused kernels, and weights on their way out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stacked_reference import BASE, LAYOUT, ROW, T, build_jobs
from torch import Tensor

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import Adapter
from huggingtweets.models.stack import build_stack
from huggingtweets.ops.dropout import keep_mask, site_keys, thresholds_and_scales
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.sample import sample_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Atomic additions into the embeddings' gradient come in any order: equal runs differ by rounding.
ALL_WEIGHTS = 1e-3
"""Times the norm of the change by training: the most for the norm of the difference."""


def train(
    jobs: list[TrainingJob],
    *,
    slots: int,
    device: str = "cuda",
    adapter_rank: int = 0,
    **changes: object,
) -> dict[str, Tensor]:
    settings = StackedSettings(slots=slots, micro_batch_size=2, block_size=T)
    settings = replace(settings, **changes)  # type: ignore[arg-type]
    results = train_stacked(
        FullTuning(LAYOUT, ROW, adapter_rank),
        iter(jobs),
        settings=settings,
        device=torch.device(device),
    )
    rows = {}
    for result in results:
        assert result.error is None
        assert result.weights is not None
        rows[result.slug] = LAYOUT.pack(result.weights)
    return rows


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for slug, row in ours.items():
        change = (theirs[slug] - ROW).norm()
        assert float((row - theirs[slug]).norm()) < ALL_WEIGHTS * float(change), slug


def with_recipe(**changes: object) -> list[TrainingJob]:
    return [
        replace(job, recipe=replace(job.recipe, **changes))  # type: ignore[arg-type]
        for job in build_jobs()
    ]


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("use_graphs", [False, True], ids=["eager", "graphs"])
def test_weights_equal_those_of_the_cpu(slots: int, use_graphs: bool) -> None:
    jobs = build_jobs()
    ours = train(jobs, slots=slots, use_graphs=use_graphs)
    assert_close(ours, train(jobs, slots=slots, device="cpu"))


def test_dropout_on_a_gpu_equals_that_on_a_cpu() -> None:
    jobs = with_recipe(dropout=0.2)
    assert_close(train(jobs, slots=3), train(jobs, slots=3, device="cpu"))


def test_masks_are_the_same_bits() -> None:
    keys = site_keys(np.arange(5), np.arange(5), np.arange(5), 3).view(-1, 2)
    thresholds, _ = thresholds_and_scales(np.linspace(0, 0.9, 15))
    cpu = keep_mask(keys, thresholds, range(100), range(6, 77))
    gpu = keep_mask(keys.cuda(), thresholds.cuda(), range(100), range(6, 77))
    assert torch.equal(cpu, gpu.cpu())


def test_recomputing_changes_nothing() -> None:
    jobs = build_jobs()
    assert_close(train(jobs, slots=3, recompute=True), train(jobs, slots=3))


def test_adapters_equal_those_of_the_cpu() -> None:
    jobs = with_recipe(adapter=Adapter.lora, lora_rank=4)
    ours = train(jobs, slots=3, adapter_rank=4)
    assert_close(ours, train(jobs, slots=3, adapter_rank=4, device="cpu"))


def test_bf16_trains_nearly_the_same() -> None:
    jobs = build_jobs()
    ours = train(jobs, slots=3, dtype=torch.bfloat16)
    theirs = train(jobs, slots=3)
    for slug, row in ours.items():
        change = (theirs[slug] - ROW).norm()
        assert float((row - theirs[slug]).norm()) < 0.3 * float(change), slug


def test_the_likeliest_tokens_are_those_of_the_cpu() -> None:
    prompts = [[[0, 5, 6], [0, 7]], [[0, 8]]]
    config = SamplingConfig(top_p=1e-9, min_new_tokens=3, max_new_tokens=12)
    said = [
        sample_stacked(
            build_stack(LAYOUT, ROW.expand(2, -1).contiguous().to(device), torch.float32),
            prompts,
            config=config,
            eos_id=0,
            seeds=[1, 2],
        )
        for device in ("cuda", "cpu")
    ]
    assert said[0] == said[1]
    assert BASE.config.vocab_size > max(token for own in said[0] for ids in own for token in ids)


def test_memory_does_not_grow_with_the_jobs() -> None:
    jobs = build_jobs()
    train(jobs, slots=3)
    before = torch.cuda.memory_allocated()
    train([replace(job, slug=f"{job.slug}-{i}") for i in range(5) for job in jobs], slots=3)
    assert torch.cuda.memory_allocated() <= before + 2**20
