"""Every use of another project's private parts: what was seen where, and when it can go.

No other module of the package reads a name with a leading underscore that is not its own;
`tests/test_upstream.py` looks. The versions are those of `requirements.lock`. Libraries are
imported inside the functions, because light modules import this one.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def mend_hydra() -> None:
    """Have `hydra.main` build its command line by `hydra_args_parser`."""
    import hydra.main

    hydra.main.get_args_parser = hydra_args_parser  # type: ignore[attr-defined]


def hydra_args_parser() -> argparse.ArgumentParser:
    """Build Hydra's own parser, so that Python 3.14 takes it.

    Hydra 1.3.8 gives `--shell-completion` a help that is not text; argparse of Python 3.14 looks
    for "%" in it as soon as the argument is added, and raises. There is no public hook. Can go once
    Hydra gives a text there.
    """
    from hydra._internal.utils import get_args_parser as build

    parser_class: Any = argparse.ArgumentParser
    check: Callable[..., None] | None = getattr(parser_class, "_check_help", None)
    if check is None:  # before Python 3.14
        return build()

    def check_texts(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if action.help is not None and not isinstance(action.help, str):
            action.help = "Install or uninstall shell completion"
        check(parser, action)

    parser_class._check_help = check_texts
    try:
        return build()
    finally:
        parser_class._check_help = check


def forget_capture(pool: Any) -> None:
    """Have the allocator of the current GPU believe that no capture goes on any more.

    In torch 2.13 CUDAGraph.cpp raises in `capture_end` before it tells the allocator, which then
    keeps giving memory from the graph's pool and takes none of it back: half a gigabyte per
    snapshot. There is no public way. Can go when `capture_end` cleans up before it raises.
    """
    import torch

    index = torch.cuda.current_device()
    with suppress(RuntimeError):  # it is closed already: the function itself has failed
        torch._C._cuda_endAllocateToPool(index, pool)
        torch._C._cuda_releasePool(index, pool)


def cuda_driver_version() -> int:
    """Return what CUDA the driver can run, as 13000; 0 without one.

    torch 2.13 shows the version that it was built with, and not the driver's.
    """
    import torch

    read: Callable[[], int] = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)
    return read()


def forget_accelerator() -> None:
    """Have the next `Accelerator` of this process be one of its own kind.

    Accelerate 1.15 refuses a second one of another precision, and keeps the plugins of the first.
    The processes stay joined. There is no public way but to start Python anew.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()


def copy_tensors(targets: Sequence["Tensor"], sources: Sequence["Tensor"]) -> None:
    """Copy many tensors in few launches; torch 2.13 has no public function that does."""
    import torch

    torch._foreach_copy_(list(targets), list(sources))


def has_function_mode() -> bool:
    """Whether a `TorchFunctionMode` is active in this thread; torch 2.13 has no public answer."""
    import torch

    current: Callable[[], Any] = torch.overrides._get_current_function_mode
    return current() is not None


def fused_adamw(*states: list["Tensor"], **settings: Any) -> None:
    """Take a step of AdamW on tensors, as `torch.optim.AdamW(fused=True)` does inside.

    torch 2.13: the optimizer's own `step` takes no gradient scale per tensor. Can go if it does.
    """
    import torch

    step: Callable[..., None] = torch._fused_adamw_
    step(*states, **settings)


def fake_tensor() -> type:
    """Return the class of tensors that are shapes only; torch 2.13 has no public name for it."""
    from torch._subclasses import FakeTensor

    return FakeTensor


def aten(name: str) -> Callable[..., Any]:
    """Return an operator of PyTorch by its name in `native_functions.yaml`.

    torch 2.13: the public functions do not return what a backward pass of our own needs (the
    sums of flash attention), or have none (the backward pass of a softmax). A name is looked up
    once, where a module is imported, so that one that is gone is noticed there.

    Raises:
        AttributeError: this version of PyTorch has no such operator.
    """
    import torch

    operator: Callable[..., Any] = getattr(torch.ops.aten, name)
    return operator


def attention_kind(config: Any) -> str | None:
    """Return how a model of `transformers` attends, None where it has not been settled.

    transformers 5.23 has `set_attn_implementation` and no public way to ask.
    """
    kind: str | None = config._attn_implementation
    return kind


def set_attention_kind(config: Any, kind: str) -> None:
    """Have a model attend by a function that is registered, whatever its class says of itself.

    transformers 5.23: `set_attn_implementation` refuses where the class does not declare SDPA.
    """
    config._attn_implementation = kind


def has_sdpa(model_class: Any) -> bool:
    """Whether a class of `transformers` attends by PyTorch's SDPA; 5.23 has no public answer."""
    return bool(model_class._supports_sdpa)


def block_classes(model: Any) -> Any:
    """Return the names of what FSDP2 is to wrap, as a model of `transformers` 5.23 lists them."""
    return getattr(model, "_no_split_modules", None)


def has_zero_fragment(parameter: Any) -> bool:
    """Whether ZeRO 1 or 2 shares a parameter out, see `zero_fragment`."""
    return hasattr(parameter, "_hp_mapping")


def zero_fragment(parameter: Any) -> Any:
    """Return where ZeRO 1 and 2 keep this process's part of a parameter in fp32; None: nowhere.

    DeepSpeed 0.19.8: `deepspeed.utils.safe_get_full_fp32_param`, the public way, gathers all parts
    and takes all processes.
    """
    return parameter._hp_mapping


def first_local_row(parameter: Any) -> int:
    """Return the row of a DTensor at which this process's rows begin.

    torch 2.13 has it in `torch.distributed.tensor._utils` alone.
    """
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offsets = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    return int(offsets[0])


def running_trial(study: Any, frozen: Any) -> Any:
    """Return a trial that another process began, to go on with it.

    Optuna 5.0: `study.ask` begins new ones only.
    """
    import optuna

    return optuna.Trial(study, frozen._trial_id)


def suggest(trial: Any, name: str, distribution: Any) -> Any:
    """Draw a value of a distribution that is at hand.

    Optuna 5.0: the public `suggest_*` each build a distribution again, by kind.
    """
    return trial._suggest(name, distribution)
