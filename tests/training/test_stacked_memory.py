from dataclasses import replace

import pytest
import torch
from test_stacked import K, T, build_batch, build_config, build_models, dropout_of, stack_models
from torch import Tensor
from transformers import GPT2Config

from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.forward import MicroBatch, begin
from huggingtweets.models.layout import Layout
from huggingtweets.models.run import stream
from huggingtweets.models.stack import Stack
from huggingtweets.training.stacked.memory import (
    MAX_TOGETHER,
    Finishing,
    choose_batch,
    choose_cpu_batch,
    need_of,
)

GPT2 = layout_of(shape_of(GPT2Config()))
GIB = 2**30


def kept_bytes(stack: Stack, grads: Stack, batch: MicroBatch) -> int:
    """Memory that the backward pass needs, as autograd is given it to keep."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        x = stream(begin(stack, batch, grads)).settled(batch.ops)
    assert x.requires_grad  # so all of it is still alive, and no address stands for two
    return sum(kept.values())


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_estimate_is_near_what_is_kept(dtype: torch.dtype, rate: float) -> None:
    models = build_models(build_config())
    _, stack, grads = stack_models(models, dtype)
    batch = replace(build_batch(use_fused=not rate, width=64), fused_gelu=True)
    if rate:
        batch = replace(batch, dropout=dropout_of(rate, 1))
    tokens = batch.input_ids.numel()
    need = need_of(layout_of(stack.shape), dtype, block_size=T, drops=rate > 0)
    kept = kept_bytes(stack, grads, batch)
    assert kept == pytest.approx(need.token * tokens, rel=0.15)
    assert K > 1


def test_a_slot_of_gpt2_takes_about_two_gigabytes() -> None:
    def slot(rank: int) -> int:
        return need_of(GPT2, torch.bfloat16, block_size=1024, drops=True, rank=rank).slot

    assert slot(rank=0) == pytest.approx(124.4e6 * 18, rel=0.01)
    assert slot(rank=8) < 30e6


@pytest.mark.parametrize(
    ("gib", "blocks", "size", "expected"),
    [(139, 1, 1024, (36, 1)), (139, 8, 256, (32, 8)), (24, 8, 256, (6, 1)), (8, 8, 256, (1, 1))],
    ids=["H200-original", "H200-tweets", "24-GiB", "8-GiB"],
)
def test_batches_of_gpt2(gib: int, blocks: int, size: int, expected: tuple[int, int]) -> None:
    chosen = choose_batch(
        need_of(GPT2, torch.bfloat16, block_size=size, drops=True),
        num_jobs=64,
        free_bytes=gib * GIB,
        global_batch_size=blocks,
        block_size=size,
        reserve=min(7 * GIB // 2, gib * GIB // 8),
    )
    assert chosen == expected


def test_recomputing_and_adapters_make_room() -> None:
    def slots(*, recompute: bool = False, rank: int = 0) -> int:
        need = need_of(
            GPT2, torch.bfloat16, block_size=1024, drops=True, recompute=recompute, rank=rank
        )
        return choose_batch(
            need,
            num_jobs=64,
            free_bytes=24 * GIB,
            global_batch_size=1,
            block_size=1024,
            reserve=3 * GIB,
        )[0]

    assert slots() < slots(recompute=True) < slots(recompute=True, rank=8)


def test_batches_of_a_cpu() -> None:
    def chosen(
        layout: Layout, jobs: int, blocks: int, size: int, *, threads: int = 1, gib: float = 8
    ) -> tuple[int, int, int]:
        return choose_cpu_batch(
            need_of(layout, torch.float32, block_size=size, drops=False),
            is_wide=layout is GPT2,
            num_jobs=jobs,
            num_threads=threads,
            free_bytes=int(gib * GIB),
            global_batch_size=blocks,
            block_size=size,
        )

    tiny = layout_of(shape_of(build_config()))
    assert chosen(tiny, 9, 8, 64) == (1, 8, 4)
    assert chosen(tiny, 9, 8, 256) == (1, 8, 1)
    assert chosen(tiny, 9, 1, 16) == (1, 8, 1)
    assert chosen(tiny, 2, 8, 256) == (1, 2, 4)
    assert chosen(tiny, 99, 8, 256, threads=4) == (4, 32, 1)
    assert chosen(tiny, 9, 8, 256, threads=4) == (4, 9, 2)
    assert chosen(tiny, 2, 8, 256, threads=4) == (2, 2, 8)
    need = need_of(tiny, torch.float32, block_size=256, drops=False)
    gib = 7 * (need.slot + 256 * need.token) / GIB
    assert chosen(tiny, 99, 8, 256, threads=4, gib=gib) == (3, 3, 8)
    assert chosen(GPT2, 9, 8, 256, threads=4) == (1, 1, 8)


def test_two_jobs_get_two_slots_and_larger_micro_batches() -> None:
    chosen = choose_batch(
        need_of(GPT2, torch.bfloat16, block_size=256, drops=True),
        num_jobs=2,
        free_bytes=24 * GIB,
        global_batch_size=8,
        block_size=256,
        reserve=3 * GIB,
    )
    assert chosen == (2, 8)


def test_finishing_takes_an_eighth_at_most_and_less_on_a_large_card() -> None:
    finishing = Finishing(GPT2, num_rows=40, num_new=160)
    for gib in (4, 16, 24, 80, 141):
        num, reserve = finishing.num_together(gib * GIB), finishing.reserve(gib * GIB)
        assert 1 <= num <= MAX_TOGETHER
        assert reserve <= gib * GIB // 8
        assert num == 1 or num * finishing.bytes_per_model <= reserve
    assert finishing.num_together(16 * GIB) == 1
    assert finishing.num_together(141 * GIB) == MAX_TOGETHER
    few = Finishing(GPT2, num_rows=1, num_new=16)
    assert few.num_together(40 * GIB) > finishing.num_together(40 * GIB)
