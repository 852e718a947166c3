"""The single engine: one model over all processes of the launch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator, DistributedType
from torch import Tensor

from huggingtweets.bases.architectures import TRIED
from huggingtweets.bases.lora import add_lora, hold_frozen
from huggingtweets.bases.model import Base, load_model, open_base
from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.blocks import Blocks
from huggingtweets.errors import ConfigError
from huggingtweets.kernels.choose import CPU_MAX_WIDTH
from huggingtweets.models.families import layout_of, shape_of, why_not_fused
from huggingtweets.runtime.device import is_cpu, is_cuda
from huggingtweets.storage.lock import JobLock
from huggingtweets.storage.paths import cache_dir
from huggingtweets.training.collectives import broadcast
from huggingtweets.training.host_memory import keep_freed_memory
from huggingtweets.training.launch import fill_deepspeed, forget_deepspeed, split_batch
from huggingtweets.training.meter import (
    command_began,
    flops_of_layout,
    flops_per_token,
    peak_flops,
)
from huggingtweets.training.modules.attention import Attention
from huggingtweets.training.modules.loss import (
    SummedLoss,
    choose_attention,
    document_limits,
    settle_attention,
    spare_embeddings,
    swap_modules,
)
from huggingtweets.training.modules.optimizer import build_optimizer
from huggingtweets.training.modules.profiling import profiled
from huggingtweets.training.parallel.checkpoint_session import CheckpointSession
from huggingtweets.training.parallel.graphs import GraphedBackward
from huggingtweets.training.parallel.heldout import products_dtype
from huggingtweets.training.parallel.loop import fit
from huggingtweets.training.parallel.memory import remembered
from huggingtweets.training.parallel.rows import RowAdamW, RowModel
from huggingtweets.training.parallel.shards import is_sharded
from huggingtweets.training.parallel.step import ParallelModel
from huggingtweets.training.parallel.tuning import fastest
from huggingtweets.training.progress import Speed, Training, TrainingJob, Weights
from huggingtweets.training.records import TrainResult


def train_single(
    accelerator: Accelerator,
    base: Base,
    training: Training,
    plan: Plan,
    lock: JobLock | None,
    *,
    since: float | None = None,
) -> tuple[TrainResult, Weights]:
    """Fine-tune the base on one job, or go on with it; every rank calls it.

    Args:
        accelerator: the processes of the launch.
        base: what to begin with.
        training: of the job; reports all lines of its history, when it is resumed.
        plan: of the job.
        lock: that of the job's folder; on the main process only.
        since: when the user began to wait, by `time.monotonic`; None: with the command.

    Returns:
        The figures; on the main process the weights, fp32 on the CPU, by transformers' names, with
        `recipe.adapter=lora` those of `add_lora`.

    Raises:
        ConfigError: the base is not a causal language model.
        TrainingError: training diverged, or memory does not suffice.
        StoppedError: a stop was asked for; all is saved.
        CheckpointError: a checkpoint is of another training, or cannot be written.
        LaunchError: the batch cannot be divided over the processes.
    """
    batch = split_batch(
        global_batch_size=plan.config.recipe.global_batch_size,
        block_size=plan.config.recipe.block_size,
        micro_batch_size=plan.config.engine.micro_batch_size,
        world_size=accelerator.num_processes,
    )
    batch = broadcast(remembered(plan.paths.checkpoints, batch))
    if is_cpu(accelerator.device):
        keep_freed_memory(of_any_size=True)
    blocks = training.job.training_set.blocks
    fill_deepspeed(accelerator, batch, max_grad_norm=plan.config.recipe.max_grad_norm)
    if _suits_rows(accelerator, base, plan):
        built = _build_row(accelerator, base, training, plan)
    else:
        built = _build_modules(accelerator, base, training.job, plan)
    identity = plan.identity | {"data": _data_digest(blocks), "base": built.digest}
    model, speed = built.model, built.speed
    if plan.config.engine.micro_batch_size == "auto":
        model.module.train()
        key = _speed_key(base, built.attention, plan)
        batch = fastest(model, blocks, batch, num_steps=training.total_steps, key=key)
    if _can_graph(accelerator, plan):
        backward = GraphedBackward(model.module, model.optimizer, model.device)
        model = replace(model, backward=backward)
    is_profiled = plan.config.engine.profile and accelerator.is_main_process
    profiling = profiled(model.module, plan.paths.profile) if is_profiled else nullcontext()
    with CheckpointSession(model, plan, identity, lock) as session, profiling:
        result, weights = fit(
            training,
            model,
            session,
            batch,
            speed=speed,
            log_every=plan.config.engine.log_every,
            since=command_began() if since is None else since,
        )
    del built, model, session, profiling
    accelerator.free_memory()
    forget_deepspeed()
    return result, weights


@dataclass(frozen=True, eq=False)
class _Built:
    """What is trained, and what is told about it."""

    model: ParallelModel
    speed: Speed
    digest: str
    """Of the base; see `_base_digest`."""
    attention: str
    """How is attended, for the cache of speeds."""


def _suits_rows(accelerator: Accelerator, base: Base, plan: Plan) -> bool:
    """Whether our own forward pass trains: all weights of a family of ours, here alone on a CPU.

    It has no modules that others could share out, compile, profile or checkpoint. Wide models stay
    with transformers: there its C++ computes nothing, and imports do not count.
    """
    engine = plan.config.engine
    return (
        is_cpu(accelerator.device)
        # One process under torchrun has DDP around its model too.
        and accelerator.distributed_type is DistributedType.NO
        and plan.config.recipe.adapter is Adapter.none
        and not (engine.compile or engine.profile or engine.activation_checkpointing)
        and why_not_fused(base.config) is None
        and base.config.hidden_size <= CPU_MAX_WIDTH
    )


def _build_row(accelerator: Accelerator, base: Base, training: Training, plan: Plan) -> _Built:
    """Read a base into a row."""
    opened = open_base(base, plan.config.recipe)
    layout = layout_of(shape_of(opened.config))
    row = layout.pack(opened.weights)
    dtype = products_dtype(plan.config.engine.precision)
    module = RowModel(layout, row, plan.config.recipe, dtype)
    model = ParallelModel(
        accelerator,
        module,
        RowAdamW(module, plan.config.recipe),
        partial(module.add_gradient, training=training),
    )
    speed = Speed(
        flops_of_layout(layout, _mean_context(training.job)),
        peak_flops(accelerator.device, plan.config.engine.peak_tflops),
    )
    return _Built(model, speed, _base_digest(layout.named(row)), "rows")


def _build_modules(accelerator: Accelerator, base: Base, job: TrainingJob, plan: Plan) -> _Built:
    """Load a model of transformers and make of it what is trained.

    The order matters: documents are held apart on the model as transformers has it, adapters come
    before the arithmetic is counted, and modules are exchanged once nothing looks at them any more.
    """
    model = load_model(base, plan.config.recipe)
    digest = _base_digest(dict(model.named_parameters()))
    sets = [each.blocks for each in (job.training_set, job.heldout, job.probe) if each is not None]
    module = _wrap(accelerator, model, base, sets, plan)
    if plan.config.recipe.adapter is Adapter.lora:
        add_lora(model, plan.config.recipe, seed=plan.config.seed)
        if accelerator.mixed_precision == "bf16" and base.dtype == torch.bfloat16:
            hold_frozen(model, torch.bfloat16)
            if not is_sharded(accelerator):
                module.hold_head(accelerator.device, torch.bfloat16)
    if plan.config.engine.activation_checkpointing:
        # transformers 5.2x has it under a new name, and warns of the old one.
        old = model.gradient_checkpointing_enable
        getattr(model, "activation_checkpointing_enable", old)()
    speed = Speed(
        flops_per_token(model, _mean_context(job)),
        peak_flops(accelerator.device, plan.config.engine.peak_tflops),
        accelerator.num_processes,
    )
    swap_modules(model)
    if is_cpu(accelerator.device) and accelerator.distributed_type is DistributedType.NO:
        spare_embeddings(module)
    if plan.config.engine.compile:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
        module.compile()
    prepared = accelerator.prepare(module, build_optimizer(module, plan.config.recipe))
    return _Built(ParallelModel(accelerator, *prepared), speed, digest, module.attention.value)


def _mean_context(job: TrainingJob) -> float:
    """Return how many positions a token attends to on average."""
    return float(job.training_set.blocks.position_ids.mean()) + 1


def _can_graph(accelerator: Accelerator, plan: Plan) -> bool:
    """Whether a micro-step may be a CUDA graph: nothing in it waits for the host or for others."""
    return (
        plan.config.engine.cuda_graphs
        and is_cuda(accelerator.device)
        and accelerator.distributed_type is DistributedType.NO  # DDP of one wants more warm-ups
        and accelerator.scaler is None
        and not plan.config.engine.profile
        and not plan.config.engine.activation_checkpointing
    )


def _speed_key(base: Base, attention: str, plan: Plan) -> dict[str, Any]:
    """Return what the speed of a micro-batch depends on beside the machine."""
    shape = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    recipe, engine = plan.config.recipe, plan.config.engine
    return {name: getattr(base.config, name, None) for name in shape} | {
        "attention": attention,
        "isolated": recipe.isolate_documents,
        "dropout": recipe.dropout,
        "block_size": recipe.block_size,
        "global_batch_size": recipe.global_batch_size,
        "adapter": recipe.adapter.value,
        "precision": engine.precision.value,
        "compile": engine.compile,
        "recompute": engine.activation_checkpointing,
    }


def _wrap(
    accelerator: Accelerator,
    model: transformers.PreTrainedModel,
    base: Base,
    sets: Sequence[Blocks],
    plan: Plan,
) -> SummedLoss:
    """Wrap a model with the attention that suits its device, and hold it to keep posts apart."""
    half = accelerator.mixed_precision != "no"
    attention = choose_attention(
        accelerator.device,
        torch.bfloat16 if half else torch.float32,
        is_sharded=is_sharded(accelerator),
        is_compiled=plan.config.engine.compile,
    )
    most, longest = document_limits(*sets)
    module = SummedLoss(
        model,
        isolate=plan.config.recipe.isolate_documents,
        attention=attention,
        most_documents=most,
        longest_document=longest,
    )
    if not plan.config.recipe.isolate_documents and len(sets) == 1:
        return module
    if attention is Attention.varlen:
        module.to(accelerator.device)
    with accelerator.autocast() if attention is Attention.varlen else nullcontext():
        is_isolated = settle_attention(module, base.codec.bos_id)
    if not is_isolated:
        raise not_causal(base)
    return module


def try_base(base: Base, recipe: RecipeConfig) -> None:
    """Try an architecture that no test of ours has trained, on its own weights.

    Raises:
        ConfigError: it sees words before they come, or cannot be run.
    """
    if base.config.model_type in TRIED:
        return
    module = SummedLoss(load_model(base, recipe), isolate=True)
    if not settle_attention(module, base.codec.bos_id):
        raise not_causal(base)


def not_causal(base: Base) -> ConfigError:
    """Return the refusal of a base that sees the words to come, or cannot be run at all."""
    return ConfigError(
        f"model.path: {base.name} ({base.config.model_type}) cannot be trained: what it says of a "
        "word depends on words that come after it or in other posts, in every way of running it; "
        "expected a causal language model; choose another base, as model=gpt2"
    )


def _data_digest(blocks: Blocks) -> str:
    digest = hashlib.sha256()
    for array in vars(blocks).values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _base_digest(parameters: Mapping[str, Tensor]) -> str:
    """Tell one base from another by some of the elements of each parameter."""
    digest = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // 256)].float()
        digest.update(f"{name}{list(parameter.shape)}".encode())
        digest.update(some.cpu().contiguous().numpy().data)  # sync: once per job
    return digest.hexdigest()[:16]
