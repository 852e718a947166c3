"""The fused engine as a GPU runs it, by software graphs: the weights are those of the CPU's way."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from software_cuda import State, installed
from stacked_reference import BASE, CPU, LAYOUT, LLAMA, ROW, T, build_jobs
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from huggingtweets.config.schema import Adapter
from huggingtweets.models.adapter_rows import adapter_layout, build_adapter_stack
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.layout import Layout
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.grouped import GroupedTuning
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.slots import build_slots
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

CLOSE = 1e-4
"""Times the norm of the change by training: the most for the norm of the difference."""


def train(
    jobs: list[TrainingJob],
    *,
    adapter_rank: int = 0,
    base: tuple[Layout, Tensor] = (LAYOUT, ROW),
    **changes: object,
) -> dict[str, Tensor]:
    settings = replace(StackedSettings(3, micro_batch_size=2, block_size=T), **changes)  # type: ignore[arg-type]
    rows = {}
    tuning = FullTuning(*base, adapter_rank)
    for result in train_stacked(tuning, iter(jobs), settings=settings, device=CPU):
        assert result.error is None, result.error
        assert result.weights is not None
        rows[result.slug] = tuning.layout.pack(result.weights)
    return rows


def by_graphs(jobs: list[TrainingJob], **changes: Any) -> tuple[dict[str, Tensor], State]:
    with installed(event_lag=2) as state:
        return train(jobs, **changes), state


def with_recipe(**changes: object) -> list[TrainingJob]:
    return [
        replace(job, recipe=replace(job.recipe, **changes))  # type: ignore[arg-type]
        for job in build_jobs()
    ]


def assert_close(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], most: float = CLOSE, base: Tensor = ROW
) -> None:
    assert ours.keys() == theirs.keys()
    for slug, row in ours.items():
        change = float((theirs[slug] - base).norm())
        assert float((row - theirs[slug]).norm()) < most * change, slug


@pytest.mark.parametrize(
    ("slots", "changes"),
    [
        (3, {"dropout": 0.2}),
        (8, {"dropout": 0.2, "max_steps": 8}),
        (1, {"dropout": 0.2, "max_steps": 4}),
        (8, {"dropout": 0.0, "max_steps": 8}),
        (3, {"dropout": 0.0, "max_steps": 8}),
    ],
    ids=["3-dropout", "8-dropout", "1-dropout", "8-plain", "3-plain"],
)
def test_weights_equal_those_of_the_cpu(slots: int, changes: dict[str, float]) -> None:
    jobs = with_recipe(**changes)
    ours, state = by_graphs(jobs, slots=slots)
    assert_close(ours, train(jobs, slots=slots))
    assert state.replays > 10


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_llama_equals_that_of_the_cpu(is_tied: bool) -> None:
    """Its angles, too, lie where a graph finds them."""
    config = LlamaConfig(**LLAMA, tie_word_embeddings=is_tied, pad_token_id=0)
    torch.manual_seed(0)
    layout = layout_of(shape_of(config))
    base = layout, layout.pack(LlamaForCausalLM(config).state_dict())
    jobs = with_recipe(dropout=0.0, max_steps=8)
    ours, state = by_graphs(jobs, base=base)
    assert_close(ours, train(jobs, base=base), base=base[1])
    assert state.replays > 10


def test_without_graphs_it_is_the_same() -> None:
    jobs = with_recipe(dropout=0.1, max_steps=4)
    ours, state = by_graphs(jobs, use_graphs=False)
    assert_close(ours, train(jobs))
    assert not state.graphs


def test_adapters_equal_those_of_the_cpu() -> None:
    jobs = with_recipe(adapter=Adapter.lora, lora_rank=4, dropout=0.1, max_steps=8)
    ours, _ = by_graphs(jobs, adapter_rank=4)
    assert_close(ours, train(jobs, adapter_rank=4))


@pytest.mark.parametrize("recompute", [False, True])
def test_grouped_adapters_equal_those_of_the_cpu(recompute: bool) -> None:
    """In transformers' modules: what they do between the products must not wait for the device."""
    jobs = with_recipe(adapter=Adapter.lora, lora_rank=4, dropout=0.1, max_steps=8)
    jobs[1] = replace(jobs[1], recipe=replace(jobs[1].recipe, dropout=None))

    def adapters(**changes: Any) -> dict[str, Tensor]:
        settings = replace(StackedSettings(3, micro_batch_size=2, block_size=T), **changes)
        tuning = GroupedTuning(BASE, 4, CPU, bos_id=0, block_size=T)
        found = {}
        for result in train_stacked(tuning, iter(jobs), settings=settings, device=CPU):
            assert result.error is None, result.error
            found[result.slug] = tuning.layout.row_of(result.adapters or {})
        return found

    with installed(event_lag=2) as state:
        ours = adapters(recompute=recompute)
    theirs = adapters()
    assert state.replays > 10
    for slug, row in ours.items():
        assert float((row - theirs[slug]).norm()) < CLOSE * float(theirs[slug].norm()), slug


@pytest.mark.parametrize("kind", ["own pass", "grouped"])
def test_adapters_have_one_copy_for_the_products(kind: str) -> None:
    """One buffer that AdamW writes along, for two tensors of each linear layer."""
    with installed():
        if kind == "grouped":
            layout = adapter_layout(BASE, 8)
            rows = torch.randn(3, layout.size)
            stack: Any = build_adapter_stack(layout, rows, torch.bfloat16)
            views, parts = stack.compute, layout.views(rows)
        else:
            stack = build_slots(LAYOUT, ROW, 3, torch.bfloat16, rank=4).stack
            stack.rows.normal_()
            views, parts = (
                [part for layer in layers for part in layer.values()]
                for layers in (stack.adapters.compute, stack.adapters.master)
            )
        stack.slots(1, 2).refresh()
    for one, other in zip(views, parts, strict=True):
        for copy, master in zip(one.tensors(), other.tensors(), strict=True):
            assert copy.untyped_storage().data_ptr() == stack.copies.data_ptr()
            assert torch.equal(copy[1], master[1].bfloat16())


def test_recomputing_changes_nothing_and_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingtweets.models import run

    recomputed: list[bool] = []
    stream = run.stream

    def spy(*args: object, recompute: bool = False) -> object:
        recomputed.append(recompute)
        return stream(*args, recompute=recompute)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "stream", spy)
    jobs = with_recipe(dropout=0.1, max_steps=6)
    ours, _ = by_graphs(jobs, recompute=True)
    assert any(recomputed)
    recomputed.clear()
    assert_close(ours, train(jobs))
    assert recomputed
    assert not any(recomputed)


def test_bf16_trains_nearly_the_same() -> None:
    jobs = with_recipe(dropout=0.1, max_steps=8)
    ours, _ = by_graphs(jobs, dtype=torch.bfloat16)
    assert_close(ours, train(jobs), most=0.3)


def test_graphs_of_settings_that_are_gone_are_dropped() -> None:
    """A sweep over beta2: each composition of the slots is another graph of the optimizer."""
    jobs = [
        replace(job, slug=f"{job.slug}-{i}", recipe=replace(job.recipe, beta2=0.9 + 0.003 * i))
        for i in range(4)
        for job in with_recipe(max_steps=5)
    ]
    _, state = by_graphs(jobs)
    assert len(state.graphs) > 10
    assert len(state.alive) <= 12


def test_equal_settings_need_few_graphs() -> None:
    jobs = with_recipe(beta1=0.9, max_steps=5)
    many = [replace(job, slug=f"{job.slug}-{i}") for i in range(3) for job in jobs]
    _, state = by_graphs(many)
    assert len(state.graphs) <= 12


def test_logged_lines_do_not_wait_for_the_device() -> None:
    jobs = [replace(job, heldout=None) for job in with_recipe(max_steps=8)]
    with installed(event_lag=2) as state:
        train(jobs, log_every=1)
        assert state.replays > 10
    assert state.waits <= 4 * len(jobs)  # each epoch's last line, and the weights
