from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler

from huggingtweets.training.checkpoints.scaling import load_scaler, scaler_state

ARGS = {
    "init_scale": 2**16,
    "scale_window": 3,
    "min_scale": 1,
    "delayed_shift": 2,
    "consecutive_hysteresis": False,
}


def zero_optimizer(dtype: torch.dtype = torch.half) -> Any:
    """Where Accelerate's wrapper and a ZeRO optimizer keep DeepSpeed's own scaler."""
    scaler = CreateLossScaler(
        dtype=dtype, static_loss_scale=0, dynamic_scaling=True, dynamic_loss_args=ARGS
    )
    return SimpleNamespace(optimizer=SimpleNamespace(loss_scaler=scaler))


def scales(optimizer: Any) -> list[float]:
    """The scale over the next good steps: it doubles every third, counted from the last bad one."""
    found = []
    for _ in range(8):
        optimizer.optimizer.loss_scaler.update_scale(False)
        found.append(optimizer.optimizer.loss_scaler.cur_scale)
    return found


def test_deepspeed_goes_on_with_the_scale_it_had() -> None:
    accelerator = Accelerator(cpu=True)
    before, after, fresh = zero_optimizer(), zero_optimizer(), zero_optimizer()
    vars(before.optimizer.loss_scaler).update(
        cur_scale=1024.0, cur_iter=7, last_overflow_iter=5, cur_hysteresis=1
    )
    state = scaler_state(accelerator, before)
    assert state is not None
    load_scaler(accelerator, after, state)
    assert scaler_state(accelerator, after) == state
    expected = scales(before)
    assert scales(after) == expected
    assert scales(fresh) != expected


def test_nothing_is_kept_where_losses_are_not_scaled() -> None:
    accelerator = Accelerator(cpu=True)
    assert scaler_state(accelerator, zero_optimizer(torch.float32)) is None
    assert scaler_state(accelerator, torch.optim.AdamW([torch.ones(1)])) is None
