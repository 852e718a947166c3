"""Compose `conf/` and overrides into a `TrainConfig`, and say in one sentence what is wrong."""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from huggingtweets.config.schema import TrainConfig, group_names
from huggingtweets.errors import ConfigError

CONFIG_DIR = Path(__file__).parents[2] / "conf"
_SECRET_KEY = re.compile(r"(^|[._])(token|secret|password|api_?key)s?$", re.IGNORECASE)


def register() -> None:
    """Put the schema into Hydra's ConfigStore, once."""
    node = OmegaConf.structured(TrainConfig)
    _thaw(node)
    ConfigStore.instance().store(name="schema", node=node)


def _thaw(node: DictConfig) -> None:
    """Let Hydra write into a schema made of frozen dataclasses; what comes out is frozen again."""
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _thaw(child)


def compose_config(overrides: Sequence[str], config_name: str = "train") -> DictConfig:
    """Compose what `train.py` would run with these overrides.

    Raises:
        ConfigError: one sentence naming the key, what was got, what is allowed, the nearest name.
    """
    _check_overrides(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            return compose(config_name, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as err:
            raise ConfigError(_explain(err)) from err


def to_config(composed: DictConfig) -> TrainConfig:
    """Freeze a composed configuration.

    Raises:
        ConfigError: a value is out of its range.
    """
    try:
        return cast(TrainConfig, OmegaConf.to_object(composed))
    except (ValueError, OmegaConfBaseException) as err:
        raise ConfigError(_explain(err)) from err


def _check_overrides(overrides: Sequence[str]) -> None:
    keys = dict(_schema_keys(TrainConfig))
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as err:
            raise ConfigError(
                f"{text!r}: cannot be read as an override; expected key=value; "
                "quote values with special characters, as in \"key='a=b'\""
            ) from err
        key = override.key_or_group
        if key.startswith("hydra.") or key == "hydra":
            continue
        if _SECRET_KEY.search(key):
            raise ConfigError(
                f"{key}: secrets are never given on the command line, where everyone on the "
                "machine can read them; set the environment variable (HF_TOKEN, WANDB_API_KEY)"
            )
        if override.is_add() or override.is_delete() or override.is_force_add():
            raise ConfigError(
                f"{text!r}: keys cannot be added or removed; expected key=value with one of the "
                f"known keys; did you mean {_nearest(key, keys)}?"
            )
        if key in group_names() or key == "experiment":
            _check_option(key, override.value())
        elif key not in keys:
            raise ConfigError(
                f"{key}: there is no such key; expected one of the keys that `python train.py "
                f"--help` lists; did you mean {_nearest(key, keys)}?"
            )
        elif override.is_sweep_override():
            continue
        else:
            _check_value(key, override.value(), keys[key])


def _check_option(group: str, option: object) -> None:
    options = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
    if isinstance(option, str) and option not in options and "," not in option:
        raise ConfigError(
            f"{group}: got {option!r}; expected one of {', '.join(options)}; "
            f"did you mean {group}={_nearest(option, options)}?"
        )


def _check_value(key: str, value: object, kind: Any) -> None:
    if isinstance(kind, type) and issubclass(kind, StrEnum) and isinstance(value, str):
        allowed = [member.value for member in kind]
        if value not in allowed:
            raise ConfigError(
                f"{key}: got {value!r}; expected one of {', '.join(allowed)}; "
                f"did you mean {key}={_nearest(value, allowed)}?"
            )
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    if kind in names:
        text = str(value).lower()
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_valid = {
            int: is_number and float(cast(float, value)).is_integer(),
            float: is_number,
            bool: isinstance(value, bool) or text in ("true", "false", "yes", "no", "on", "off"),
        }[kind]
        if not is_valid:
            raise ConfigError(f"{key}: got {str(value)!r}; expected {names[kind]}")


def _schema_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of a schema with its type."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        kind = hints[item.name]
        if is_dataclass(kind) and item.default_factory is not MISSING:
            yield from _schema_keys(cast(type, kind), f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", kind


def _nearest(word: str, candidates: Any) -> str:
    """Return the candidate most like a word, by its last part when the whole is unlike all."""
    names = list(candidates)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not close:
        last = {name.rpartition(".")[2]: name for name in reversed(names)}
        close = [
            last[name]
            for name in difflib.get_close_matches(word.rpartition(".")[2], last, n=1, cutoff=0.0)
        ]
    return close[0] if close else "another"


def _explain(err: BaseException) -> str:
    """Squeeze a library's error into one sentence, the innermost cause first."""
    causes = [err]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    lines = [line.strip() for line in str(causes[-1]).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    text = lines[0] if lines else type(err).__name__
    return f"{key}: {text}" if key and key not in text else text
