"""The space of a sweep: for each key a range, or choices. Checked against the schema."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Quote,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException

from huggingtweets.config.change import change_value
from huggingtweets.config.compose import compose_config, to_config
from huggingtweets.config.overrides import (
    check_option,
    did_you_mean,
    key_kind,
    strip_optional,
    sweep_values,
)
from huggingtweets.config.schema import group_names
from huggingtweets.errors import ConfigError

Scalar: TypeAlias = str | int | float | bool | None

PER_SLOT = frozenset(
    {
        "seed",
        "recipe.epochs",
        "recipe.max_steps",
        "recipe.lr",
        "recipe.schedule",
        "recipe.warmup_frac",
        "recipe.weight_decay",
        "recipe.beta1",
        "recipe.beta2",
        "recipe.adam_eps",
        "recipe.max_grad_norm",
        "recipe.dropout",
        "recipe.lora_rank",
        "recipe.lora_alpha",
        "recipe.global_batch_size",
        "recipe.keep",
    }
)
"""Keys in which the slots of the fused engine may differ."""
_HEEDED = ("seed", "cleaning", "model", "recipe", "engine")
"""All trials have the same posts, no samples, and nothing published: other keys change none."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both among them."""

    low: float
    high: float
    is_log: bool = False
    """Drawn evenly on a logarithmic scale."""
    step: float | None = None
    is_whole: bool = False

    def ends(self) -> tuple[Scalar, ...]:
        """Return what has to hold for all values to hold."""
        return (self.low, self.high)

    def points(self) -> tuple[Scalar, ...] | None:
        """Return all values; None: there are too many to list."""
        step = self.step or (1 if self.is_whole else None)
        if step is None or self.is_log:
            return None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        values = [self.low + index * step for index in range(count)]
        # Rounded, as 3 * 0.1 is a little more than 0.3, and so beyond an end of 0.3.
        return tuple(int(value) if self.is_whole else float(f"{value:.12g}") for value in values)


@dataclass(frozen=True)
class Choices:
    """One of a few values."""

    values: tuple[Scalar, ...]

    def ends(self) -> tuple[Scalar, ...]:
        """Return what has to hold for all values to hold."""
        return self.values

    def points(self) -> tuple[Scalar, ...]:
        """Return all values."""
        return self.values


Dimension: TypeAlias = Range | Choices


def read_space(raw: Any, where: str) -> dict[str, Dimension]:
    """Read `space:` of a sweep file; keys and kinds are checked, values by `check_space`.

    A text is read by Hydra's own grammar of sweeps: `interval(1e-5, 1e-3)`, both ends among the
    values, `tag(log, interval(...))`, `range(1, 10)`, its end not among them as in Python, `a,b,c`
    and `choice(a, b, c)`. A list and `{low:, high:, log:, step:}` say the same in YAML.

    Raises:
        ConfigError: one sentence naming the key.
    """
    if not isinstance(raw, Mapping) or not raw:
        example = "`recipe.lr: {low: 1.0e-5, high: 1.0e-3, log: true}`"
        expected = f"keys with their ranges or choices; write {example}"
        raise wrong(f"{where} space", _shown(raw), expected)
    return {str(key): _read_dimension(str(key), value, where) for key, value in raw.items()}


def wrong(where: str, got: str, expected: str) -> ConfigError:
    """Return the refusal of a value; `expected` ends with what to do."""
    return ConfigError(f"{where}: got {got}; expected {expected}")


def _read_dimension(key: str, raw: Any, where: str) -> Dimension:
    try:
        kind = str if key in group_names() else strip_optional(key_kind(key))
    except ConfigError as err:
        raise ConfigError(f"{where} space: {err}") from err
    name = f"{where} space.{key}"
    if key.partition(".")[0] not in _HEEDED:
        raise wrong(name, "a key that no trial heeds", f"keys of {', '.join(_HEEDED)}; drop it")
    if isinstance(raw, str):
        raw = _parse(name, key, raw)
    if isinstance(raw, Mapping):
        return _read_range(name, raw, kind)
    if isinstance(raw, list):
        return _read_choices(name, raw)
    raise wrong(name, _shown(raw), "a range or a list of choices; write interval(1, 10) or [a, b]")


def _parse(name: str, key: str, text: str) -> Any:
    """Return what a sweep of Hydra's grammar is in YAML; any other text as it is."""
    try:
        override = OverridesParser.create().parse_override(f"{key}={text}")
    except HydraException as err:
        raise wrong(
            name,
            f"{_shown(text)}, which Hydra cannot read",
            "a range or choices; write interval(1, 10), tag(log, interval(1e-5, 1e-3)), "
            "range(1, 10) or a,b,c",
        ) from err
    match override.value():
        case ChoiceSweep():
            return sweep_values(override)
        case IntervalSweep(start=low, end=high, tags=tags):
            # Hydra reads the ends as floats; `interval(1, 10)` of a whole number means whole ends.
            ends = {
                name: int(end) if float(end).is_integer() else end
                for name, end in (("low", low), ("high", high))
                if end is not None
            }
            return ends | ({"log": True} if "log" in tags else {})
        case RangeSweep(start=start, stop=stop, step=step, tags=tags) if stop is not None:
            low, step = start or 0, step or 1
            last = low + (math.ceil((stop - low) / step) - 1) * step
            whole = {"low": low, "high": last} | ({} if step == 1 else {"step": step})
            return whole | ({"log": True} if "log" in tags else {})
        case _:
            return text


def holds(dimension: Dimension, value: Scalar) -> bool:
    """Whether a value lies in a dimension."""
    if isinstance(dimension, Choices):
        return value in dimension.values
    if isinstance(value, str) or value is None or not dimension.low <= value <= dimension.high:
        return False
    step = dimension.step or (1 if dimension.is_whole else None)
    steps = (value - dimension.low) / step if step else 0.0
    return abs(steps - round(steps)) < 1e-9


def _read_choices(name: str, raw: Sequence[Any]) -> Choices:
    if not raw:
        raise wrong(name, "an empty list", "choices; name at least two values")
    kinds = {_kind_name(value) for value in raw if value is not None}
    if len(kinds) > 1 or kinds & {"list", "mapping"}:
        raise wrong(
            name,
            f"{_shown(raw)} of {' and '.join(sorted(kinds))}",
            "choices of one type; write all as numbers, all as text or all as true and false",
        )
    if len(set(raw)) < len(raw):
        raise wrong(name, _shown(raw), "different choices; drop the repeated one")
    return Choices(tuple(raw))


def _kind_name(value: Any) -> str:
    kinds = {bool: "true or false", int: "number", float: "number", str: "text", dict: "mapping"}
    return kinds.get(type(value), "list")


def _read_range(name: str, raw: Mapping[Any, Any], kind: Any) -> Range:
    known = ("low", "high", "log", "step")
    for key in raw:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise wrong(name, repr(key), f"low, high, and log or step{hint}")
    if kind not in (int, float):
        raise wrong(name, "a range", "choices, as the key holds no number; write [a, b]")
    for key in ("low", "high", "step"):
        value = raw.get(key)
        if key in raw and not _is_number(value):
            raise wrong(f"{name}.{key}", _shown(value), "a number; write one")
        if key not in raw and key != "step":
            raise wrong(name, f"no {key}", f"low and high; add {key}")
        if key in raw and kind is int and not float(raw[key]).is_integer():
            raise wrong(f"{name}.{key}", str(value), "a whole number; write one")
    is_log = raw.get("log", False)
    if not isinstance(is_log, bool):
        raise wrong(f"{name}.log", _shown(is_log), "true or false; write one")
    low, high, step = raw["low"], raw["high"], raw.get("step")
    if not low < high:
        raise wrong(
            name, f"the empty range {low:g} to {high:g}", "low below high; swap or widen them"
        )
    if is_log and low <= 0:
        raise wrong(f"{name}.low", f"{low:g} with log: true", "a number above 0; raise it")
    if step is not None and (step <= 0 or is_log):
        expected = "a number above 0, and no log: true; drop one of the two"
        raise wrong(f"{name}.step", f"{step:g}", expected)
    return Range(low, high, is_log, step, kind is int)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def check_space(space: Mapping[str, Dimension], overrides: Sequence[str], where: str) -> None:
    """Make sure that the schema takes each choice and the ends of each range.

    Args:
        space: of the sweep.
        overrides: of all trials, see `compose_config`.
        where: the sweep file, for the sentence.

    Raises:
        ConfigError: one value is out of bounds.
    """
    config = to_config(compose_config(overrides))
    for key, dimension in space.items():
        for value in dimension.ends():
            try:
                if key in group_names():
                    check_option(key, value)
                else:
                    change_value(config, key, value)
            except ConfigError as err:
                raise ConfigError(f"{where} space: {err}") from err


def is_fusable(space: Mapping[str, Dimension]) -> bool:
    """Whether the trials can be trained side by side by the fused engine."""
    return PER_SLOT.issuperset(space)


def as_override(key: str, value: Scalar) -> str:
    """Write one value as an argument of `train.py`."""
    if isinstance(value, str):
        return f"{key}={QuotedString(value, Quote.single).with_quotes()}"
    return f"{key}={json.dumps(value)}"


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
