"""The processes and devices of this run: one Accelerator, checked to be what was asked for."""

import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedType, InitProcessGroupKwargs, other
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from huggingtweets.causes import as_known
from huggingtweets.config.schema import Precision, TrainConfig
from huggingtweets.errors import HuggingtweetsError, LaunchError
from huggingtweets.logs import world_size
from huggingtweets.process import usable_cores
from huggingtweets.runtime.device import has_bf16, has_cuda, num_gpus
from huggingtweets.storage.paths import template
from huggingtweets.training.collectives import broadcast
from huggingtweets.upstream import forget_accelerator

logger = logging.getLogger(__name__)
T = TypeVar("T")

_MPI = ("PMI_", "MPI_LOCAL", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_")

_MIXED_PRECISION = {Precision.fp32: "no", Precision.bf16: "bf16", Precision.fp16: "fp16"}


def settle_precision(config: TrainConfig) -> TrainConfig:
    """Return a configuration with the precision that `auto` means on this device."""
    if config.engine.precision is not Precision.auto:
        return config
    otherwise = Precision.fp16 if has_cuda() else Precision.fp32
    precision = Precision.bf16 if has_bf16() else otherwise
    return replace(config, engine=replace(config.engine, precision=precision))


def build_accelerator(precision: Precision, *, tf32: bool = True) -> Accelerator:
    """Join the process group the launcher prepared, on CPU or CUDA.

    Args:
        precision: of the matrix products.
        tf32: whether products of fp32 numbers may be computed in TF32 on CUDA.

    Raises:
        LaunchError: fp16 without CUDA, or the processes do not form one world.
    """
    on_gpu = has_cuda()
    if precision is Precision.fp16 and not on_gpu:
        raise LaunchError(
            "engine.precision: got fp16 on a CPU; expected auto, bf16 or fp32 there; "
            "set engine.precision=auto"
        )
    if "WORLD_SIZE" not in os.environ:
        # Inside mpirun or `srun --mpi=pmi2` these tell of that launcher's processes, which are not
        # ours; Accelerate 1.15 would wait for as many to join.
        for name in [name for name in os.environ if name.startswith(_MPI)]:
            del os.environ[name]
    deepspeed = _deepspeed_plugin()
    if deepspeed is not None:
        os.environ.pop("ACCELERATE_USE_CPU", None)  # with it Accelerate 1.15 falls back to DDP
    elif not on_gpu:
        # Without it Accelerate 1.15 makes one world of one of every process.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if not on_gpu:
        # Accelerate imports DeepSpeed where it is installed, which then wonders aloud.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if deepspeed is None:
        _spare_importing()
    elif not on_gpu:
        _spare_compiling()
    if on_gpu:
        _set_products(precision, tf32=tf32)
    is_gloo = not on_gpu and (world_size() > 1 or deepspeed is not None)
    handlers = [InitProcessGroupKwargs(backend="gloo")] if is_gloo else None
    forget_accelerator()  # of an earlier point of a grid, which may have had another precision
    try:
        accelerator = Accelerator(
            mixed_precision=_MIXED_PRECISION[precision],
            deepspeed_plugin=deepspeed,
            kwargs_handlers=handlers,
        )
    except ValueError as err:
        raise LaunchError(
            f"launch: the processes cannot be joined ({err}); expected what torchrun or "
            "`accelerate launch` set; start train.py by one of them"
        ) from err
    forget_deepspeed()
    _sum_in_fp32(accelerator)
    if accelerator.num_processes != world_size():
        raise LaunchError(
            f"launch: the launcher started {world_size()} processes but they form "
            f"{accelerator.num_processes} world(s) of one; expected one world; on a CPU use "
            "`ACCELERATE_USE_CPU=true accelerate launch --multi_gpu` or torchrun"
        )
    if on_gpu:
        _tell_of_idle_gpus(accelerator)
    else:
        _tell_of_idle_cores(accelerator)
    return accelerator


def _tell_of_idle_gpus(accelerator: Accelerator) -> None:
    """Say how several GPUs are used where one process was started."""
    num = num_gpus()
    if accelerator.num_processes == 1 < num:
        logger.warning(
            "training takes 1 of %d GPUs; for all of them: accelerate launch --config_file %s "
            "--num_processes %d -m huggingtweets.train ...",
            num,
            template("launch/multi_gpu.yaml"),
            num,
        )


def _set_products(precision: Precision, *, tf32: bool) -> None:
    """Say how products of fp32 numbers are computed on CUDA, and have it so.

    TF32 keeps 10 of fp32's 23 bits in each factor and is several times as fast on tensor cores.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    if precision is Precision.fp32:
        logger.info(
            "precision=fp32 products=%s",
            "TF32 (engine.tf32=false for all 23 bits)" if tf32 else "fp32 in full",
        )


def _sum_in_fp32(accelerator: Accelerator) -> None:
    """Have FSDP2 add up gradients in fp32 and leave the loss in the precision it was computed in.

    Accelerate 1.15 sets all three precisions of the policy to that of the products: the summed loss
    of bf16 came back as 1368.0 where it was 1369.72, and gradients were added up in 8 bits.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if policy is not None and accelerator.is_fsdp2:
        changed = replace(policy, reduce_dtype=torch.float32, output_dtype=None)
        plugin.mixed_precision_policy = changed


def _tell_of_idle_cores(accelerator: Accelerator) -> None:
    """Say so where `accelerate launch` without a launch file leaves a CPU's cores idle."""
    is_by_accelerate = "ACCELERATE_DYNAMO_BACKEND" in os.environ
    num = usable_cores()
    if is_by_accelerate and accelerator.num_processes == 1 and torch.get_num_threads() == 1 < num:
        logger.warning(
            "training takes 1 of %d cores, as `accelerate launch` does by itself; for all of them "
            "add --config_file launch/cpu.yaml, or --num_cpu_threads_per_process %d",
            num,
            num,
        )


def _deepspeed_plugin() -> DeepSpeedPlugin | None:
    """Read what the launch file says of DeepSpeed; None where DDP does the same.

    ZeRO stage 0 shares out nothing. As DDP it has our own checkpoints and our guard against
    gradients that are not finite, which DeepSpeed's stage 0 has not in fp32.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
        return None
    if importlib.util.find_spec("deepspeed") is None:
        raise LaunchError(
            "launch: the launch file chose DeepSpeed, which is not installed; run "
            "pip install 'huggingtweets[deepspeed]', or take launch/multi_gpu.yaml"
        )
    named = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    if named.startswith("launch/"):  # as the launch files name it; from any folder
        os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = str(template(named))
    plugin = DeepSpeedPlugin()
    if plugin.zero_stage:
        return plugin
    logger.info("launch: ZeRO stage 0 shares out nothing; trained as with launch/multi_gpu.yaml")
    del os.environ["ACCELERATE_USE_DEEPSPEED"]
    forget_deepspeed()
    return None


def _spare_importing() -> None:
    """Have Accelerate look for a model wrapped by DeepSpeed only where DeepSpeed was imported.

    Saving any model asks, and importing DeepSpeed to learn that it is not in use takes a second.
    """
    other.is_deepspeed_available = lambda: "deepspeed" in sys.modules


def _spare_compiling() -> None:
    """Have DeepSpeed use gloo as it is, instead of compiling an exchange of its own for CPUs.

    A process killed while it compiles leaves a lock behind, and every later start waits for it.
    """
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T | None:
    """Do something on the main process while the others wait; all raise what it raises.

    Returns:
        What `work` returned, on the main process.

    Raises:
        HuggingtweetsError: what `work` raised, or stands for it (a full disk, lack of memory); any
            other exception leaves by its own process.
    """
    failure: HuggingtweetsError | None = None
    value = None
    if accelerator.is_main_process:
        try:
            value = work()
        except Exception as err:
            failure = as_known("main process", err)
            if failure is None:
                raise
    failed = broadcast(failure)
    if failed is not None:
        raise failed
    return value


@dataclass(frozen=True)
class Batch:
    """How the G blocks of a step are cut into num_micro * world_size * micro places."""

    micro: int
    """B, blocks that a process computes at once."""
    num_micro: int
    """A, micro-batches a process accumulates."""
    world_size: int
    size: int
    """G, blocks of a step; where there are more places, its last ones are empty."""

    @property
    def num_places(self) -> int:
        """Blocks a step has room for."""
        return self.micro * self.num_micro * self.world_size


MAX_AUTO_TOKENS = 16_384
"""Most tokens of a micro-batch under `micro_batch_size=auto`: 1.6 GB of bf16 logits of GPT-2."""


def split_batch(
    *, global_batch_size: int, block_size: int, micro_batch_size: int | str, world_size: int
) -> Batch:
    """Derive micro-batch and accumulation from the global batch.

    Where the processes are more than the blocks, or no divisor of them, the last ones have less to
    do, or nothing: the steps stay what they are.

    Raises:
        LaunchError: a process's share cannot be divided into micro-batches of the size asked for.
    """
    per_process = -(-global_batch_size // world_size)
    num_busy = -(-global_batch_size // per_process)
    if num_busy < world_size:
        logger.warning(
            "launch: recipe.global_batch_size=%d keeps %d of %d processes busy; for many users "
            "take engine=fused, for one a larger batch or fewer processes",
            global_batch_size,
            num_busy,
            world_size,
        )
    if micro_batch_size == "auto":
        most = max(1, MAX_AUTO_TOKENS // block_size)
        micro = max(b for b in range(1, min(per_process, most) + 1) if per_process % b == 0)
    else:
        micro = min(int(micro_batch_size), per_process)
        if per_process % micro:
            raise LaunchError(
                f"engine.micro_batch_size: got {micro_batch_size}; expected a divisor of the "
                f"{per_process} blocks a process has of recipe.global_batch_size="
                f"{global_batch_size}; set one, or engine.micro_batch_size=auto"
            )
    return Batch(micro, per_process // micro, world_size, global_batch_size)


def uses_deepspeed(accelerator: Accelerator) -> bool:
    """Whether the launch file chose DeepSpeed."""
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def forget_deepspeed() -> None:
    """Have models loaded whole from now on: under ZeRO 3, transformers shares them out as it loads.

    Accelerate reminds transformers of it whenever it prepares a model.
    """
    unset_hf_deepspeed_config()


def fill_deepspeed(accelerator: Accelerator, batch: Batch, *, max_grad_norm: float) -> None:
    """Give DeepSpeed the values its file leaves to the recipe; before `accelerator.prepare`."""
    if not uses_deepspeed(accelerator):
        return
    plugin: Any = accelerator.state.deepspeed_plugin
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": batch.micro,
        "gradient_accumulation_steps": batch.num_micro,
        "train_batch_size": batch.num_places,
        "gradient_clipping": max_grad_norm,
        "steps_per_print": 10**9,
    }
