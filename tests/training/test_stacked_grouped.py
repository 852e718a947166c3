"""Adapters grouped on one base in transformers' modules: a slot against a lone run, bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from architecture_kinds import KINDS
from stacked_reference import CPU, EOS, PLAIN, VOCAB, T, build_job, summed_loss, tensors
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from huggingtweets.bases.lora import adapter_state, add_lora
from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.blocks import IGNORED
from huggingtweets.kernels.choose import choose_ops
from huggingtweets.models.adapter_rows import AdapterStack, build_adapter_stack, merge_adapters
from huggingtweets.models.grouped import SlotDropout
from huggingtweets.ops.dropout import site_keys, thresholds_and_scales
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.schedule import lr_at
from huggingtweets.training.stacked.grouped import GroupedBase, GroupedTuning
from huggingtweets.training.stacked.jobs import StackedResult
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import StackedSettings

peft = pytest.importorskip("peft")

FAMILIES = ("llama2", "qwen3", "gemma3_text", "gpt_neox", "opt", "gpt2")
"""Grouped-query heads, norms of heads, a scaled embedding, parallel residuals, flattened rows in
the feed-forward layers, Conv1D."""
LORA = replace(PLAIN, adapter=Adapter.lora, lora_rank=4, lora_alpha=8, lr=5e-3)
RANK = 12
"""Of the slots: most jobs need less."""
K, B = 4, 2


@cache
def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(KINDS[kind][1](VOCAB)).eval()
    assert isinstance(model, PreTrainedModel)
    return model


@cache
def tuning_of(kind: str, rank: int = RANK) -> GroupedTuning:
    return GroupedTuning(model_of(kind), rank, CPU, bos_id=EOS, block_size=T)


def random_rows(tuning: GroupedTuning, ranks: Sequence[int]) -> Tensor:
    rows = torch.stack([tuning.layout.fresh(rank, seed=seed) for seed, rank in enumerate(ranks)])
    generator = torch.Generator().manual_seed(7)
    for adapter in tuning.layout.views(rows):
        for slot, rank in enumerate(ranks):
            size = (rank, adapter.up.shape[2])
            adapter.up[slot, :rank] = 0.05 * torch.randn(size, generator=generator)
    return rows


def random_blocks() -> tuple[Tensor, Tensor, Tensor]:
    """Blocks of documents; those of the last slot are longer, so that they see further back."""
    generator = torch.Generator().manual_seed(1)
    ids, targets = torch.randint(1, VOCAB, (2, K, B, T), generator=generator).unbind(0)
    targets[1, 1, 20:] = IGNORED
    positions = (torch.arange(T) % 8).expand(K, B, T).clone()
    positions[-1] = torch.arange(T)
    return ids, targets, positions


def dropout_of(base: GroupedBase, rates: Sequence[float]) -> SlotDropout:
    """What the slots with these places drop; a slot's masks are its own."""
    slots = torch.arange(len(rates)).repeat_interleave(B).numpy()
    keys = site_keys(slots, slots * 0, slots * 0, base.grouped.num_sites)
    made = thresholds_and_scales(torch.tensor(rates).repeat_interleave(B).double().numpy())
    none = torch.zeros(len(slots), dtype=torch.bool)
    return SlotDropout(len(rates), keys, *made, none)


def gradients(
    tuning: GroupedTuning,
    rows: Tensor,
    scales: Tensor,
    blocks: tuple[Tensor, Tensor, Tensor],
    rates: Sequence[float] | None = None,
    part: slice = slice(None),
) -> tuple[Tensor, Tensor]:
    """Losses and gradients of some of the slots, computed without the others."""
    base = GroupedBase(tuning, CPU, torch.float32)
    stack = build_adapter_stack(tuning.layout, rows[part].clone(), torch.float32)
    stack.scale.copy_(scales[part])
    grads = build_adapter_stack(tuning.layout, torch.zeros_like(stack.rows), torch.float32)
    dropout = None if rates is None else of_slots(dropout_of(base, rates), part)
    weight = 1 / (blocks[1][part] != IGNORED).sum((1, 2))
    chosen = tuple(one[part] for one in blocks)
    with base.grouped.computing(stack, grads, dropout):
        losses = base.losses(chosen, weight, dropout, choose_ops(CPU, 0, 0))  # type: ignore[arg-type]
        losses.backward(weight)
    return losses.detach(), grads.rows


def of_slots(dropout: SlotDropout, part: slice) -> SlotDropout:
    slots = range(dropout.num_slots)[part]
    blocks = slice(slots.start * B, slots.stop * B)
    return SlotDropout(
        len(slots),
        dropout.keys[:, blocks],
        dropout.thresholds[blocks],
        dropout.scales[blocks],
        dropout.is_base[blocks],
    )


@pytest.mark.parametrize("rates", [None, (0.1, 0.0, 0.3, 0.1)], ids=["plain", "dropout"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_slot_has_the_bits_of_a_lone_run(kind: str, rates: tuple[float, ...] | None) -> None:
    tuning, blocks = tuning_of(kind), random_blocks()
    rows, scales = random_rows(tuning, (4, 2, 6, RANK)), torch.tensor([2.0, 1.0, 0.5, 4.0])
    losses, grads = gradients(tuning, rows, scales, blocks, rates)
    for slot in range(K):
        part = slice(slot, slot + 1)
        alone = gradients(tuning, rows, scales, blocks, rates, part)
        assert torch.equal(alone[0][0], losses[slot])
        assert torch.equal(alone[1][0], grads[slot])
        assert float(alone[1].abs().max()) > 1e-3


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_small_rank_has_the_bits_of_slots_of_that_rank(kind: str) -> None:
    wide, narrow = tuning_of(kind, 8), tuning_of(kind, 2)
    assert wide.layout.rank == narrow.layout.rank == 8  # slots hold multiples of 8
    blocks, scales = random_blocks(), torch.ones(K)
    rows = random_rows(wide, (2, 8, 8, 8))
    _, grads = gradients(wide, rows, scales, blocks)
    _, alone = gradients(narrow, rows, scales, blocks, part=slice(0, 1))
    assert torch.equal(alone[0], grads[0])
    for adapter in narrow.layout.views(alone):
        assert not adapter.down[..., 2:].any()
        assert not adapter.up[:, 2:].any()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_slot_that_is_not_finite_disturbs_none(kind: str) -> None:
    tuning, blocks = tuning_of(kind), random_blocks()
    rows, scales = random_rows(tuning, (4, 4, 4, 4)), torch.ones(K)
    losses, grads = gradients(tuning, rows, scales, blocks)
    rows[1] = torch.nan
    broken, theirs = gradients(tuning, rows, scales, blocks)
    others = [0, 2, 3]
    assert broken[1].isnan()
    assert torch.equal(broken[others], losses[others])
    assert torch.equal(theirs[others], grads[others])


@pytest.mark.parametrize("kind", FAMILIES)
def test_recomputing_gives_the_same_bits(kind: str) -> None:
    tuning, blocks = tuning_of(kind), random_blocks()
    base = GroupedBase(tuning, CPU, torch.float32)
    rows = random_rows(tuning, (4, 4, 4, 4))
    weight, found = torch.ones(K), []
    for recompute in (False, True):
        stack, grads = (
            build_adapter_stack(tuning.layout, one, torch.float32)
            for one in (rows, torch.zeros_like(rows))
        )
        dropout = dropout_of(base, (0.1, 0.0, 0.3, 0.1))
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with base.grouped.computing(stack, grads, dropout, recompute=recompute):
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                losses = base.losses(blocks, weight, dropout, choose_ops(CPU, 0, 0))
            losses.backward(weight)
        found.append((losses.detach(), grads.rows, kept))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[1][2] < found[0][2] / 2


def lora_jobs() -> list[TrainingJob]:
    recipes = [
        LORA,
        replace(LORA, lora_rank=6, lora_alpha=6, weight_decay=0.1, global_batch_size=2),
        replace(LORA, lora_rank=2, epochs=3, max_grad_norm=0.1),
        replace(LORA, isolate_documents=True, lr=2e-3),
        replace(LORA, dropout=0.2),
        replace(LORA, dropout=None),
    ]
    return [
        build_job(f"job-{index}", recipe, posts=12 + 5 * index, seed=index)
        for index, recipe in enumerate(recipes)
    ]


def train(
    kind: str, jobs: Sequence[TrainingJob], *, slots: int, dtype: torch.dtype = torch.float32
) -> dict[str, StackedResult]:
    settings = StackedSettings(slots=slots, micro_batch_size=1, block_size=T, dtype=dtype)
    results = train_stacked(tuning_of(kind), iter(jobs), settings=settings, device=CPU)
    return {result.slug: result for result in results}


def adapters_of(result: StackedResult) -> dict[str, Tensor]:
    assert result.error is None
    assert result.adapters is not None
    return result.adapters


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_job_has_the_bits_of_a_lone_run_through_refills(kind: str) -> None:
    jobs = lora_jobs()
    together = train(kind, jobs, slots=3)
    for job in jobs:
        alone = train(kind, [job], slots=1)[job.slug]
        ours, theirs = adapters_of(together[job.slug]), adapters_of(alone)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        trained, lone = together[job.slug].trained, alone.trained
        assert trained is not None
        assert lone is not None
        assert [line.heldout for line in trained.evals] == [line.heldout for line in lone.evals]


def train_with_peft(kind: str, job: TrainingJob) -> dict[str, Tensor]:
    """Train a peft model that begins with our adapters, in a plain loop."""
    model, recipe = AutoModelForCausalLM.from_config(model_of(kind).config), job.recipe
    model.load_state_dict(model_of(kind).state_dict())
    add_lora(model.eval(), recipe, seed=job.seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
    parts, size = tensors(job.training_set.blocks), recipe.global_batch_size
    total = -(-len(parts[0]) // size)
    for step in range(total):
        blocks = [part[step * size : (step + 1) * size] for part in parts]
        loss = summed_loss(model, blocks, isolate=recipe.isolate_documents)
        loss = loss / (blocks[1] != IGNORED).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, recipe=recipe, total_steps=total)
        optimizer.step()
    return adapter_state(dict(model.named_parameters()))


@pytest.mark.parametrize("kind", FAMILIES)
def test_adapters_equal_those_peft_trains(kind: str) -> None:
    jobs = lora_jobs()[:4]
    results = train(kind, jobs, slots=3)
    for job in jobs:
        theirs = train_with_peft(kind, job)
        ours = adapters_of(results[job.slug])
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=0.02 * job.recipe.lr)


def test_bf16_adapters_train() -> None:
    job = lora_jobs()[0]
    exact, half = (
        train("llama2", [job], slots=2, dtype=dtype)[job.slug].trained
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact is not None
    assert half is not None
    assert half.final_loss == pytest.approx(exact.final_loss, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_engines_share_the_base(dtype: torch.dtype) -> None:
    tuning, settings = tuning_of("llama2"), StackedSettings(1, 1, T, dtype=dtype)
    first, second = (tuning.hold(1, CPU, settings)._base.grouped.model for _ in range(2))
    places = [
        {name: module.weight.data_ptr() for name, module in model.named_modules() if "proj" in name}
        for model in (first, second)
    ]
    assert places[0] == places[1]
    assert len(places[0]) == 7 * len(first.model.layers)
    assert first.model.layers[0].mlp.up_proj.weight.dtype == dtype


@pytest.mark.parametrize("kind", ["llama2", "gpt2"])
def test_merged_they_say_what_the_slot_says(kind: str) -> None:
    tuning = tuning_of(kind)
    rows = random_rows(tuning, (4,))
    ids = torch.arange(20)[None]
    base = GroupedBase(tuning, CPU, torch.float32)
    stack = build_adapter_stack(tuning.layout, rows, torch.float32)
    stack.load(0, rows[0], 2.0)
    merged = AutoModelForCausalLM.from_config(model_of(kind).config).eval()
    merged.load_state_dict(model_of(kind).state_dict())
    merge_adapters(merged, tuning.layout.peft_state(rows[0], 4), 2.0)
    with torch.no_grad(), base.grouped.computing(stack):
        said = base.grouped.model(input_ids=ids).logits
        torch.testing.assert_close(said, merged(input_ids=ids).logits, rtol=0, atol=1e-5)
        before = model_of(kind)(input_ids=ids).logits
    assert float((said - before).abs().max()) > 1e-2


def test_jobs_of_another_kind_fail_alone() -> None:
    full = build_job("full", PLAIN, posts=10, seed=1)
    wide = build_job("wide", replace(LORA, lora_rank=16), posts=10, seed=1)
    fine = lora_jobs()[0]
    results = train("llama2", [full, wide, fine], slots=2)
    assert "recipe.adapter: got none of rank 0" in str(results["full"].error)
    assert "recipe.adapter: got lora of rank 16" in str(results["wide"].error)
    assert results[fine.slug].error is None


STACKED = frozenset(KINDS) - {"openai-gpt", "bloom", "falcon-alibi", "mamba"}


@pytest.mark.parametrize("kind", KINDS)
def test_which_architectures_are_stacked(kind: str) -> None:
    """What is listed in docs/bases.md; the others go to the single engine, with the reason."""
    tuning = GroupedTuning(model_of(kind), 2, CPU, bos_id=EOS, block_size=T)
    assert (tuning.why_not is None) == (kind in STACKED), tuning.why_not


def test_posts_longer_than_a_sliding_window_are_not_stacked() -> None:
    tuning = GroupedTuning(model_of("gemma3_text"), 2, CPU, bos_id=EOS, block_size=128)
    assert tuning.why_not == "its posts go through it one by one"


def test_need_is_near_what_is_kept() -> None:
    tuning, blocks = tuning_of("llama2"), random_blocks()
    base = GroupedBase(tuning, CPU, torch.float32)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = random_rows(tuning, (4, 4, 4, 4))
    stack, grads = (
        build_adapter_stack(tuning.layout, one, torch.float32)
        for one in (rows, torch.zeros_like(rows))
    )
    weight = torch.ones(K)
    with (
        base.grouped.computing(stack, grads),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        losses = base.losses(blocks, weight, None, choose_ops(CPU, 0, 0))
    assert losses.requires_grad
    weights = {tensor.data_ptr() for tensor in base.grouped.model.parameters()}
    total = sum(size for place, size in kept.items() if place not in weights)
    need = tuning.need(StackedSettings(1, 1, T), CPU, drops=False)
    assert total == pytest.approx(need.token * K * B * T, rel=0.25)


def test_an_adapter_goes_into_a_row_and_back() -> None:
    layout = tuning_of("opt").layout
    row = random_rows(tuning_of("opt"), (3,))[0]
    assert torch.equal(layout.row_of(layout.peft_state(row, 3)), row)


def recipe_rates(kind: str, recipe: RecipeConfig) -> tuple[float, float, float]:
    return tuning_of(kind).rates(recipe)


def test_bases_without_dropout_of_their_own_drop_nothing() -> None:
    own = replace(LORA, dropout=None)
    assert not any(recipe_rates("llama2", own))
    assert any(recipe_rates("gpt2", own))
    assert recipe_rates("gpt2", replace(own, dropout=0.3))[:2] == (0.3, 0.0)


def stack_size(stack: AdapterStack) -> int:
    return stack.rows.numel()


def test_a_slot_takes_little() -> None:
    tuning = tuning_of("llama2")
    stack = build_adapter_stack(tuning.layout, torch.zeros(K, tuning.layout.size), torch.bfloat16)
    need = tuning.need(StackedSettings(1, 1, T, torch.bfloat16), CPU, drops=False)
    assert need.slot == stack_size(stack) // K * 18
