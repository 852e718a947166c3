"""Compose `conf/` and overrides into a `TrainConfig`, and say in one sentence what is wrong."""

import hashlib
import io
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from huggingtweets.config.change import change_value
from huggingtweets.config.overrides import (
    CONFIG_DIR,
    GROUPS,
    check_overrides,
    explain,
    key_kinds,
    own_config_dirs,
    plain_values,
    sweep_values,
)
from huggingtweets.config.schema import TrainConfig, group_names
from huggingtweets.errors import ConfigError
from huggingtweets.logs import world_size
from huggingtweets.storage.files import flatten, read_plain
from huggingtweets.upstream import hydra_args_parser, mend_hydra


@cache
def register() -> None:
    """Make Hydra know the schema and the user's own options."""
    ConfigStore.instance().store(name="schema", node=_open_schema())
    Plugins.instance().register(OwnOptions)
    mend_hydra()


class OwnOptions(SearchPathPlugin):
    """Has Hydra look for options in the user's folders before it looks in ours."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the folders in front of the one that `conf/train.yaml` comes from."""
        for folder in reversed(own_config_dirs()):
            anchor = SearchPathQuery(provider="main", path=None)
            search_path.prepend("own", f"file://{folder}", anchor)


def _open_schema() -> DictConfig:
    """Return the schema so that values may be written into it; `to_config` freezes it again.

    OmegaConf 2.3 makes the nodes of frozen dataclasses read-only, each by itself.
    """
    schema = cast(DictConfig, OmegaConf.structured(TrainConfig))
    for node in (schema, *schema.values()):
        if isinstance(node, DictConfig):
            OmegaConf.set_readonly(node, None)
    return schema


def check_arguments(argv: Sequence[str]) -> tuple[DictConfig | None, list[str]]:
    """Check the command line of `train` before Hydra sees it, for the sake of clear errors.

    Returns:
        What it composes to: Hydra would compose it twice more, in half a second. None: a grid, or
        something that Hydra itself has to answer. And the words as Hydra takes them: of a grid
        with a folder for each setting.

    Raises:
        ConfigError: as `compose_config`; or a grid under a launcher of several processes.
    """
    register()
    with redirect_stderr(io.StringIO()) as complaint:
        try:
            args, more = hydra_args_parser().parse_known_args(list(argv))
        except SystemExit as err:
            last = complaint.getvalue().strip().splitlines()[-1]
            raise _not_words(last.rpartition("error: ")[2]) from err
    if unknown := [word for word in more if word.startswith("-")]:
        raise _not_words(f"got {shlex.join(unknown)}")
    typed = [*args.overrides, *more]  # Hydra's parser takes no further ones behind a flag
    flags = [word for word in argv if word not in typed]
    words = plain_values(typed)
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        return None, [*words, *flags]
    if args.multirun and world_size() > 1:
        raise ConfigError(
            f"train -m: got {world_size()} processes, each of which would run the whole grid; "
            f"expected one; use `{shlex.join(['huggingtweets', 'train', *argv])}`, or "
            "`huggingtweets sweep FILE` to train the settings side by side"
        )
    folders = [_folder(flag, getattr(args, flag)) for flag in ("config_dir", "config_path")]
    if args.config_path and folders[1] is None:
        # Relative to the file of train.py: Hydra itself says what is wrong with it.
        return None, [*words, *flags]
    places = [folders[0]] if folders[0] else []
    overrides = check_overrides(words, places, is_grid=args.multirun)
    if args.multirun:
        # What a setting's folder is called is known only once Hydra runs.
        first = [_first(one) for one in overrides if "${hydra:" not in str(one.input_line)]
    else:
        first = words
    composed = _compose(first, args.config_name or "train", folders[1] or CONFIG_DIR, places)
    config = to_config(composed)
    if args.multirun:
        for one in overrides:
            key = one.key_or_group
            if one.is_sweep_override() and key in key_kinds() and key != "user":
                for value in sweep_values(one):
                    change_value(config, key, value)
        root = str(cast(dict[str, object], OmegaConf.to_container(composed))["output_dir"])
        return None, [*with_own_folders(overrides, root), *flags]
    is_for_hydra = any(text.startswith("hydra") for text in words)
    return None if is_for_hydra else composed, [*words, *flags]


def _not_words(what: str) -> ConfigError:
    return ConfigError(
        f"train: {what}; expected key=value without dashes; `huggingtweets train --help` lists the "
        "keys"
    )


def _first(override: Override) -> str:
    """Return an override with the first of its values."""
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}"


def _folder(flag: str, value: str | None) -> Path | None:
    """Return the folder of `--config-dir` or `--config-path`; None: not given, or not absolute.

    Raises:
        ConfigError: there is no such folder.
    """
    if value is None or (flag == "config_path" and not Path(value).is_absolute()):
        return None
    if not Path(value).is_dir():
        raise ConfigError(
            f"--{flag.replace('_', '-')}: got {value!r}, which is not a folder; expected one with "
            "YAML files of settings; check the path"
        )
    return Path(value).resolve()


def with_own_folders(overrides: Sequence[Override], root: str) -> list[str]:
    """Give each setting of a grid (`-m recipe.lr=1e-4,2e-4`) a folder below `output_dir`.

    Without it the second setting would find the models of the first in its place. An `output_dir`
    that tells the settings apart by itself stays as it is.

    Args:
        overrides: of the command line.
        root: the `output_dir` that they compose to, interpolations as they are.

    Returns:
        The words of the command line for Hydra.
    """
    words = [str(one.input_line) for one in overrides]
    named = [word for word in words if word.startswith("output_dir=")]
    keys = [one.key_or_group for one in overrides if one.is_sweep_override()]
    keys = [key for key in keys if key != "user"]
    if not keys or "output_dir" in keys or "${" in "".join([root, *named[-1:]]):
        return words
    OmegaConf.register_new_resolver(FOLDER_NAME, folder_name, replace=True)
    parts = []
    for key in keys:
        source = f"hydra:runtime.choices.{key}" if key in GROUPS else key
        parts.append(f"{key.rpartition('.')[2]}-${{{FOLDER_NAME}:${{{source}}}}}")
    rest = [word for word in words if word not in named]
    # In quotes: Hydra's grammar knows no interpolation within an interpolation.
    path = f"{root.rstrip('/')}/{'_'.join(parts)}".replace("'", "\\'")
    return [*rest, f"output_dir='{path}'"]


FOLDER_NAME = "folder_name"
"""Name of the resolver behind `folder_name`."""
_NAME_CHARS = 40
"""Of one value: names have 255 bytes at most, and settings several values."""


def folder_name(value: object) -> str:
    """Return a value of a setting as part of the name of one folder, another for each value."""
    text = str(value)
    plain = re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:_NAME_CHARS]  # a path has slashes
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return plain if text and plain == text else f"{plain}-{digest}".lstrip("-")


def compose_config(words: Sequence[str]) -> DictConfig:
    """Compose what `train.py` would run with these overrides.

    Raises:
        ConfigError: one sentence naming the key, what was got, what is allowed, the nearest name.
    """
    words = plain_values(words)
    check_overrides(words)
    return _compose(words)


def read_config(words: Sequence[str]) -> TrainConfig:
    """Return the same, frozen.

    Raises:
        ConfigError: as `compose_config` and `to_config`.
    """
    return to_config(compose_config(words))


def _compose(
    words: Sequence[str],
    config_name: str = "train",
    config_dir: Path = CONFIG_DIR,
    more: Sequence[Path] = (),
    *,
    with_hydra: bool = False,
) -> DictConfig:
    """Have Hydra compose overrides that were checked.

    Args:
        words: the overrides.
        config_name: of the primary config.
        config_dir: where that lies.
        more: folders with options of groups beside it.
        with_hydra: whether Hydra's own settings are part of the answer.

    Raises:
        ConfigError: a file of settings has something wrong.
    """
    register()
    places = ",".join(f"'file://{folder}'" for folder in more)
    searched = [f"hydra.searchpath=[{places}]"] if places else []
    GlobalHydra.instance().clear()  # Hydra 1.3 refuses to be initialised twice in one process
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            return compose(config_name, [*words, *searched], return_hydra_config=with_hydra)
        except (HydraException, OmegaConfBaseException) as err:
            raise ConfigError(explain(err)) from err


def group_choices(words: Sequence[str]) -> dict[str, str]:
    """Return which option of each group these overrides choose."""
    chosen = _compose(words, with_hydra=True).hydra.runtime.choices
    return {group: str(chosen[group]) for group in group_names()}


def to_config(composed: DictConfig) -> TrainConfig:
    """Freeze a composed configuration.

    Raises:
        ConfigError: a value is out of its range.
    """
    try:
        config = cast(TrainConfig, OmegaConf.to_object(composed))
    except (ValueError, OmegaConfBaseException) as err:
        raise ConfigError(explain(err)) from err
    for key, value in flatten(asdict(config)).items():
        for item in value if isinstance(value, list) else [value]:
            try:
                str(item).encode("utf-8")  # else neither YAML nor JSON can hold it
            except UnicodeEncodeError:
                raise ConfigError(
                    f"{key}: got {item!a}, with bytes that are not UTF-8; expected UTF-8; rename "
                    "the file or folder, or run under a UTF-8 locale (LC_ALL=C.UTF-8)"
                ) from None
    return config


def dump_config(config: TrainConfig) -> str:
    """Write a configuration as YAML for `train.py --config-path FOLDER --config-name NAME`.

    By PyYAML's C library: OmegaConf takes fifty times as long, and a batch writes thousands.
    """
    return _RERUN_HEAD + yaml.dump(asdict(config), Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.CSafeDumper):
    """Quotes texts that OmegaConf, which knows more kinds of numbers, would misread."""


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = text[:1].isalpha() or text[:1] in ("/", "_")
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), None if is_plain else "'")


_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(StrEnum, _represent_text)


def load_config(path: Path) -> TrainConfig:
    """Read what `dump_config` wrote.

    Raises:
        ConfigError: the file is damaged or from another version of the schema.
    """
    try:
        values = cast(DictConfig, OmegaConf.create(read_plain(path).decode("utf-8")))
        for key in ("defaults", "hydra"):
            values.pop(key, None)
        return to_config(cast(DictConfig, OmegaConf.merge(_open_schema(), values)))
    # Of hostile YAML anything may come: a list has no `pop`, depth ends the recursion.
    except (OSError, YAMLError, OmegaConfBaseException, AttributeError, TypeError,
            LookupError, ValueError, RecursionError) as err:  # fmt: skip
        raise ConfigError(
            f"{path}: cannot be read ({explain(err)}); expected the configuration of a job; "
            "delete the file to start the job again"
        ) from err


# What `conf/train.yaml` says to Hydra: a job's config.yaml stands in its place in a rerun.
_RERUN_HEAD = """\
defaults:
- schema
- _self_
- override hydra/hydra_logging: none
- override hydra/job_logging: none
hydra:
  run: {dir: .}
  output_subdir: null
"""
