"""The scale of fp16 losses, whoever keeps it: a resumed training goes on with the same."""

from typing import Any

from accelerate import Accelerator

_KEYS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's scaler changes as it goes."""


def scaler_state(accelerator: Accelerator, optimizer: Any) -> dict[str, Any] | None:
    """Return plain values; None where losses are not scaled."""
    if accelerator.scaler:
        state: dict[str, Any] = accelerator.scaler.state_dict()
        return state
    scaler = _of_deepspeed(optimizer)
    return {key: getattr(scaler, key) for key in _KEYS} if scaler else None


def load_scaler(accelerator: Accelerator, optimizer: Any, state: dict[str, Any]) -> None:
    """Set what `scaler_state` returned; of another kind of scaler, nothing."""
    scaler = _of_deepspeed(optimizer)
    if accelerator.scaler and "scale" in state:
        accelerator.scaler.load_state_dict(state)
    elif scaler and "cur_scale" in state:
        vars(scaler).update(state)


def _of_deepspeed(optimizer: Any) -> Any:
    """Return the dynamic scaler of a ZeRO optimizer in Accelerate's wrapper, if there is one."""
    scaler = getattr(getattr(optimizer, "optimizer", None), "loss_scaler", None)
    return scaler if getattr(scaler, "dynamic", False) else None
