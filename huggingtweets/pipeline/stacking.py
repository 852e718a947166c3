"""How the jobs of a batch are stacked: on what, how many, in which micro-batches."""

from dataclasses import replace

import torch

from huggingtweets.bases.model import Base, OpenBase
from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.models.families import has_own_lora, layout_of, shape_of
from huggingtweets.models.layout import Layout
from huggingtweets.runtime.device import free_bytes, is_cuda
from huggingtweets.training.meter import (
    available_bytes,
    flops_of_layout,
    flops_per_token,
)
from huggingtweets.training.parallel.heldout import products_dtype
from huggingtweets.training.progress import Speed
from huggingtweets.training.stacked.grouped import GroupedTuning
from huggingtweets.training.stacked.jobs import adapter_rank
from huggingtweets.training.stacked.look import trusted
from huggingtweets.training.stacked.memory import Finishing, choose_batch, choose_cpu_batch
from huggingtweets.training.stacked.step import overlaps
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings, Tuning


def tuning_of(
    opened: OpenBase, base: Base, recipe: RecipeConfig, device: torch.device
) -> FullTuning | GroupedTuning:
    """Return how jobs of a recipe are stacked on a base.

    A GPT-2's adapters are computed by our own forward pass: on a CPU transformers' modules take
    1.15 to 1.58 times as long at widths of 128 to 384 [measured, benchmarks/lora_steps.py].
    """
    rank = adapter_rank(recipe)
    if rank and not has_own_lora(opened.config):
        return GroupedTuning(
            opened.model, rank, device, bos_id=base.codec.bos_id, block_size=recipe.block_size
        )
    layout = layout_of(shape_of(opened.config))
    return FullTuning(layout, layout.pack(opened.weights), rank)


def speed_of(opened: OpenBase, tuning: Tuning, recipe: RecipeConfig, peak: float | None) -> Speed:
    """Return what an engine's utilisation is told by, given the peak of its device."""
    context = recipe.block_size / 2  # what a token attends to, in the mean over a causal block
    if isinstance(tuning, FullTuning):
        return Speed(flops_of_layout(tuning.layout, context), peak)
    return Speed(flops_per_token(opened.model, context), peak)


def choose_settings(
    tuning: Tuning, plan: Plan, device: torch.device, num_jobs: int
) -> StackedSettings:
    """Choose the number of slots and the micro-batch, where the plan leaves them open."""
    engine, recipe = plan.config.engine, plan.config.recipe
    settings = StackedSettings(
        slots=1,
        micro_batch_size=1,
        block_size=recipe.block_size,
        dtype=products_dtype(engine.precision),
        log_every=engine.log_every,
        compile=engine.compile,
        recompute=engine.activation_checkpointing,
        use_graphs=engine.cuda_graphs,
        overlap=overlaps(recipe, tuning.rank, device),
    )
    # Grouped adapters attend by an architecture's own code: heads of any width will do.
    head_width = tuning.layout.shape.head_width if isinstance(tuning, FullTuning) else 64
    settings = trusted(settings, head_width, device, rank=tuning.rank)
    need = tuning.need(settings, device, drops=any(tuning.rates(recipe)))
    engines = 1
    if is_cuda(device):
        slots, micro = choose_batch(
            need,
            num_jobs=num_jobs,
            free_bytes=free_bytes(device),
            global_batch_size=recipe.global_batch_size,
            block_size=recipe.block_size,
            reserve=_reserve(plan, tuning, free_bytes(device)),
        )
    else:
        engines, slots, micro = choose_cpu_batch(
            need,
            is_wide=tuning.is_wide,
            num_jobs=num_jobs,
            num_threads=torch.get_num_threads(),
            free_bytes=available_bytes(),
            global_batch_size=recipe.global_batch_size,
            block_size=recipe.block_size,
        )
    if engine.slots != "auto":
        slots = min(num_jobs, int(engine.slots))
        engines = min(engines, slots)
    if engine.micro_batch_size != "auto":
        micro = min(recipe.global_batch_size, int(engine.micro_batch_size))
    return replace(
        settings,
        slots=slots,
        micro_batch_size=micro,
        engines=1 if engine.compile else engines,  # each would compile anew, for 40 s
    )


def _reserve(plan: Plan, tuning: Tuning, free: int) -> int:
    """Return what training leaves free of a GPU for sampling and judging."""
    if isinstance(tuning, FullTuning):
        return finishing_of(plan, tuning.layout).reserve(free)
    return free // 8  # as much as `Finishing.reserve` takes at most


def finishing_of(plan: Plan, layout: Layout) -> Finishing:
    """Return what sampling and judging the models of a batch will take of a GPU."""
    sampling = plan.sampling
    rows = len(sampling.prompts) * sampling.num * sampling.best_of
    return Finishing(layout, num_rows=rows, num_new=sampling.token_limit)
