"""Words of the command line, `key=value`: which there are, and what is wrong with one."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException

from huggingtweets.config.schema import TrainConfig, group_names
from huggingtweets.errors import ConfigError, first_line
from huggingtweets.logs import SECRET_KEY
from huggingtweets.storage.paths import config_home, expanded, shipped

CONFIG_DIR = shipped("conf")
GROUPS = (*group_names(), "experiment")
"""Whose values are options, a YAML file each; an experiment changes keys of any group."""


def own_config_dirs() -> list[Path]:
    """Return the folders whose options go before the shipped ones, the first first.

    `conf/` here, if `huggingtweets init` or somebody else made it from ours, and that of the
    user's settings.
    """
    here = Path.cwd() / "conf"
    dirs = [here] if _is_ours(here / "train.yaml") else []
    dirs += [folder for folder in (config_home() / "conf",) if folder.is_dir()]
    return [folder for folder in dirs if folder.resolve() != CONFIG_DIR.resolve()]


def _is_ours(config: Path) -> bool:
    """Whether a primary config is of this project; another project may have a `conf/` too."""
    try:
        return "\n  - schema\n" in config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def option_names(group: str, more: Sequence[Path] = ()) -> list[str]:
    """Return the options of a config group, the user's own and those of more folders among them."""
    folders = [*more, *own_config_dirs(), CONFIG_DIR]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def is_sweep(override: str) -> bool:
    """Whether an override has several values; one that cannot be read is refused elsewhere."""
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def sweep_values(override: Override) -> list[Any]:
    """Return the values of an override that has several."""
    values = override.sweep_iterator()
    return [one.text if isinstance(one, QuotedString) else one for one in values]


def plain_values(words: Sequence[str]) -> list[str]:
    """Write overrides as our keys take them: what sweeps of others hand out is of another kind.

    `recipe.epochs=3.0` becomes `recipe.epochs=3` (W&B's `q_uniform` gives floats), and `None`, for
    a key that may be empty, `null`. Paths are quoted, as Hydra reads few letters without, and so
    are options whose names Hydra would read as numbers.
    """
    kinds = key_kinds()
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        kind = kinds.get(key)
        # Of `int`, `int | None` and `int | str`.
        if equals and int in (kind, *get_args(kind)):
            value = _NUMBER.sub(_without_fraction, value)
        if equals and value == "None" and type(None) in get_args(kind):
            value = "null"
        is_path = kind is not None and key.endswith(PATHS)
        if (is_path or (key in GROUPS and value[:1].isdecimal())) and not _NOT_PLAIN.search(value):
            value = ",".join(_quoted(piece.strip()) for piece in value.split(","))
        found.append(f"{key}{equals}{value}")
    return found


PATHS = ("path", "_dir", "_file", ".warm_start")
"""Ends of the keys that hold one."""
_NOT_PLAIN = re.compile(r"[\\(){}$'\"\[\]]")
"""Quotes, functions, lists and interpolations: left to Hydra."""
# Not within a word, a longer number or a negative exponent: `a.0`, `1.0.0`, `1e-4` stay, and so
# does what is whole as it stands, or begins with a 0, which is refused.
_NUMBER = re.compile(r"(?<![\w.])(?:0|[1-9]\d*)(?:\.\d*(?:[eE]\+?\d\d?)?|[eE]\+?\d\d?)(?![\w.])")


def _without_fraction(number: re.Match[str]) -> str:
    value = Fraction(number[0])  # exact, however long
    return str(value.numerator) if value.denominator == 1 else number[0]


def _quoted(path: str) -> str:
    if path.startswith("~"):  # which not every shell expands behind a `=`
        path = str(expanded(path))
    return path if path in ("", "null") else f"'{path}'"


def check_overrides(
    words: Sequence[str], more: Sequence[Path] = (), *, is_grid: bool = False
) -> list[Override]:
    """Check each override by itself, as far as it can be before all are composed.

    Args:
        words: of the command line, as `plain_values` writes them.
        more: folders with options of groups beside the usual ones.
        is_grid: whether a key may have several values.

    Raises:
        ConfigError: names the key, what was got, what is allowed, the nearest name.
    """
    found = []
    for text in words:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as err:
            raise ConfigError(
                f"{text!r}: cannot be read as an override; expected key=value; "
                "quote values with special characters, as in \"key='a=b'\""
            ) from err
        found.append(override)
        key = override.key_or_group
        if key.startswith("hydra.") or key == "hydra":
            continue
        _check_key(text, override)
        value = override.value()
        if override.is_sweep_override() and not isinstance(value, ChoiceSweep | RangeSweep):
            raise ConfigError(
                f"{text!r}: got no values that can be listed; expected some; write a,b,c or "
                "range(1, 4), or have `huggingtweets sweep` search it"
            )
        if key == "user":  # told by the selection of jobs, with the quoting to use
            continue
        for one in sweep_values(override) if override.is_sweep_override() else [value]:
            if key in GROUPS:
                check_option(key, one, more)
            else:
                check_value(key, one, key_kind(key))
    if not is_grid:
        _check_single(found)
    return found


def _check_key(text: str, override: Override) -> None:
    """Refuse keys that are not ours to set, or that nobody knows.

    Raises:
        ConfigError: what to do instead, or the nearest name.
    """
    key = override.key_or_group
    if key.startswith("hydra/"):
        raise ConfigError(
            f"{key}: Hydra's launchers, sweepers and loggers are not used here; expected none; "
            "`huggingtweets submit` sends jobs to SLURM, `huggingtweets sweep` searches "
            "settings, -m runs a grid"
        )
    if SECRET_KEY.search(key):
        raise ConfigError(
            f"{key}: secrets are never given on the command line, where everyone on the "
            "machine can read them; set the environment variable (HF_TOKEN, WANDB_API_KEY)"
        )
    if override.is_add() or override.is_delete() or override.is_force_add():
        raise ConfigError(
            f"{text!r}: keys cannot be added or removed; expected key=value with one of the "
            f"known keys{did_you_mean(key.lstrip('+~'), key_kinds())}"
        )
    if key not in GROUPS:
        key_kind(key)


def _check_single(overrides: Sequence[Override]) -> None:
    """Refuse several values of one key, where no grid was asked for.

    Raises:
        ConfigError: how to ask for a grid, and how to write what is meant as one value.
    """
    for override in overrides:
        if not override.is_sweep_override():
            continue
        text = str(override.input_line)
        key, _, value = text.partition("=")
        way = "or write a list, as in 'user=[a,b]'"
        if key.endswith(PATHS):  # whose pieces were quoted each
            way = f"or quote a path that has a comma, \"{key}='{value.replace(chr(39), '')}'\""
        raise ConfigError(
            f"{text!r}: got several values; expected one; add -m to run one job after the other, "
            f"{way}"
        )


def check_option(group: str, option: object, more: Sequence[Path] = ()) -> None:
    """Refuse what is no option of a group.

    Raises:
        ConfigError: with those there are.
    """
    options = option_names(group, more)
    if option not in options:
        raise ConfigError(
            f"{group}: got {_shown(option)}; expected one of {', '.join(options)}"
            f"{did_you_mean(str(option), options, f'{group}=')}"
        )


def check_value(key: str, value: object, kind: Any) -> None:
    """Check the kind of one value.

    Raises:
        ConfigError: it is not what a key of this type holds.
    """
    bare = strip_optional(kind)
    if value is None and bare is not kind:
        return
    allowed = choices_of(kind)
    if allowed and value not in allowed:
        raise ConfigError(
            f"{key}: got {_shown(value)}; expected one of {', '.join(allowed)}"
            f"{did_you_mean(str(value), allowed, f'{key}=')}"
        )
    if bare == list[str] and not isinstance(value, list):
        raise ConfigError(f"{key}: got {_shown(value)}; expected a list, as in '{key}=[a,b]'")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_whole = is_number and float(cast(float, value)).is_integer()
    words_of_bool = ("true", "false", "yes", "no", "on", "off")
    valid_and_expected = {
        int: (is_whole, "a whole number"),
        int | str: (is_whole or isinstance(value, str), "auto or a whole number"),
        float: (is_number, "a number"),
        bool: (isinstance(value, bool) or str(value).lower() in words_of_bool, "true or false"),
        str: (not isinstance(value, (list, dict)) and value is not None, "text"),
    }
    is_valid, expected = valid_and_expected.get(bare, (True, ""))
    if not is_valid:
        raise ConfigError(f"{key}: got {_shown(value)}; expected {expected}")


def _shown(value: object) -> str:
    return "null" if value is None else repr(str(value))


def choices_of(kind: Any) -> list[str]:
    """Return what a key of this type may be, if it is one of a few words; else nothing."""
    bare = strip_optional(kind)
    is_enum = isinstance(bare, type) and issubclass(bare, StrEnum)
    return [member.value for member in bare] if is_enum else []


def strip_optional(kind: Any) -> Any:
    """Return the type without `None`; a union of several others stays."""
    if get_origin(kind) in (Union, UnionType):
        others = [one for one in get_args(kind) if one is not type(None)]
        return others[0] if len(others) == 1 else kind
    return kind


def key_kind(key: str) -> Any:
    """Return the type of a key.

    Raises:
        ConfigError: there is no such key.
    """
    kinds = key_kinds()
    if key not in kinds:
        raise ConfigError(
            f"{key}: there is no such key; expected one of the keys that `huggingtweets "
            f"train --help` lists{did_you_mean(key, [*kinds, *GROUPS])}"
        )
    return kinds[key]


@cache
def key_kinds() -> Mapping[str, Any]:
    """Return every key that `huggingtweets train --help` lists with its type."""
    return dict(schema_keys(TrainConfig))


def schema_keys(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key of a schema with its type."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        kind = hints[item.name]
        if is_dataclass(kind) and item.default_factory is not MISSING:
            yield from schema_keys(cast(type, kind), f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", kind


def did_you_mean(word: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Ask about the candidate most like a word, by its last part when the whole is unlike all."""
    names = list(candidates)
    last = {name.rpartition(".")[2]: name for name in reversed(names)}
    # `lr` is unlike `recipe.lr` as a whole, and equal to its last part.
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6) or [
        last[part] for part in difflib.get_close_matches(word.rpartition(".")[2], last, n=1)
    ]
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def explain(err: BaseException) -> str:
    """Squeeze a library's error into one sentence, the innermost cause first."""
    causes = [err]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    lines = (line.strip() for line in str(causes[-1]).splitlines())
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    text = first_line(causes[-1])
    return f"{key}: {text}" if key and key not in text else text
