"""What a sweep file says: the space, how it is searched, and what is sought."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from huggingtweets.config.overrides import did_you_mean, is_sweep
from huggingtweets.errors import ConfigError, first_line
from huggingtweets.sweep.space import (
    Dimension,
    Range,
    Scalar,
    holds,
    is_fusable,
    read_space,
    wrong,
)

Member = TypeVar("Member", bound=StrEnum)
SETTING = "sweep."
"""Prefix of arguments that change the sweep file's own settings."""


class Sampler(StrEnum):
    """Who proposes the next trial."""

    random = "random"
    tpe = "tpe"
    grid = "grid"
    cmaes = "cmaes"


class PrunerKind(StrEnum):
    """Who ends a trial early, after an epoch."""

    none = "none"
    median = "median"
    asha = "asha"
    hyperband = "hyperband"


class Measure(StrEnum):
    """What is minimised."""

    heldout = "heldout"
    """Bits per byte of the held-out posts."""
    memorisation = "memorisation"
    """Bits per byte by which training posts got better beyond what held-out posts did."""


class Way(StrEnum):
    """How trials are trained."""

    auto = "auto"
    fused = "fused"
    """Side by side in this process."""
    processes = "processes"
    """Each by a `train.py` of its own."""


class StorageKind(StrEnum):
    """Where the study is kept."""

    auto = "auto"
    """As it was begun; a journal under SLURM, else sqlite."""
    sqlite = "sqlite"
    journal = "journal"


@dataclass(frozen=True)
class Pruner:
    """Who ends a trial early, and how eagerly."""

    kind: PrunerKind = PrunerKind.none
    min_epochs: int = 1
    """No trial is ended before this many epochs."""
    factor: int = 3
    """asha, hyperband: one of this many trials goes on to this many times the epochs."""
    startup_trials: int = 1
    """median: this many trials are trained whole before any is judged."""


@dataclass(frozen=True)
class Objective:
    """What is minimised; the mean over the users."""

    measures: tuple[Measure, ...] = (Measure.heldout,)
    weights: tuple[float, ...] | None = (1.0,)
    """One number, the weighted sum; None: each measure for itself, and no trial is the best."""

    def values(self, figures: Mapping[Measure, float]) -> list[float]:
        """Return what Optuna is told."""
        if self.weights is None:
            return [figures[measure] for measure in self.measures]
        pairs = zip(self.measures, self.weights, strict=True)
        return [sum(weight * figures[measure] for measure, weight in pairs)]

    @property
    def names(self) -> tuple[str, ...]:
        """Name the values for people."""
        if self.weights is None or len(self.measures) == 1:
            return tuple(measure.value for measure in self.measures)
        pairs = zip(self.measures, self.weights, strict=True)
        return (" + ".join(f"{weight:g} x {measure}" for measure, weight in pairs),)


@dataclass(frozen=True)
class SweepSpec:
    """One sweep: its file, read."""

    name: str
    """The file's name without its ending."""
    space: Mapping[str, Dimension]
    """Keys and groups of `conf/` with their ranges or choices, see `read_space`."""
    config: tuple[str, ...] = ()
    """Arguments for `train.py` that all trials share."""
    sampler: Sampler = Sampler.random
    pruner: Pruner = field(default_factory=Pruner)
    objective: Objective = field(default_factory=Objective)
    """In the file a measure; measures with their weights; or a list, each for itself."""
    trials: int = 32
    """In all, those of earlier starts and of other tasks included; of a grid at most its points."""
    parallel: int | str = "auto"
    """Trials at once; auto: as many as there are slots, or one process per GPU."""
    storage: StorageKind = StorageKind.auto
    way: Way = Way.auto
    launch: str | None = None
    """processes: an accelerate configuration that each trial is launched with."""
    seed: int = 0
    """Of the sampler."""
    default: Mapping[str, Scalar] = field(default_factory=dict)
    """The searched keys as they stand without a search: the first trial; empty: there is none."""

    @property
    def is_default_extra(self) -> bool:
        """Whether the default is not a point of the grid, and so a trial beside all of them."""
        return (
            self.sampler is Sampler.grid
            and bool(self.default)
            and not all(holds(one, self.default[key]) for key, one in self.space.items())
        )

    @property
    def total(self) -> int:
        """How many trials there are to be, the default among them."""
        return self.trials + self.is_default_extra


def read_spec(path: Path, arguments: Sequence[str] = ()) -> SweepSpec:
    """Read a sweep file; `arguments` are `sweep.KEY=VALUE` and what all trials are given.

    An argument with several values (`recipe.lr=interval(1e-5,1e-3)`) is searched.

    Raises:
        ConfigError: one sentence naming the key.
    """
    settings, searched, overrides = _split(arguments)
    flat = _flat(_load(path)) | _flat(settings)
    where = str(path)
    raw_space = flat.pop("space", None)
    if searched and isinstance(raw_space, Mapping | None):
        raw_space = {**(raw_space or {}), **searched}
    if raw_space is None:
        expected = "the keys to search; add `space:` with a range or choices for each"
        raise wrong(where, "no space", expected)
    space = read_space(raw_space, where)
    objective = _objective(flat.pop("objective", Measure.heldout.value), f"{where} objective")
    checked = {key: _checked(key, value, where) for key, value in flat.items()}
    pruner = {key: checked.pop(f"pruner.{key}") for key in _PRUNER if f"pruner.{key}" in checked}
    # Hydra takes the last of several values: the command line goes before the file.
    checked["config"] = (*checked.get("config", ()), *overrides)
    size = grid_size(space) if checked.get("sampler") is Sampler.grid else None
    if size:
        checked["trials"] = min(size, checked.get("trials", size))
    spec = SweepSpec(path.stem, space, pruner=Pruner(**pruner), objective=objective, **checked)
    _check_together(spec, where)
    return spec


_PRUNER = ("kind", "min_epochs", "factor", "startup_trials")
_ENUMS = {"sampler": Sampler, "pruner.kind": PrunerKind, "storage": StorageKind, "way": Way}
_LEAST = {"trials": 1, "parallel": 1, "seed": 0}
_LEAST |= {"pruner.min_epochs": 1, "pruner.factor": 2, "pruner.startup_trials": 1}
_KEYS = (*_ENUMS, *_LEAST, "launch", "space", "config", "objective")


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Write the pruner's settings dotted, so that an argument changes one and leaves the others."""
    flat = dict(raw)
    pruner = flat.pop("pruner", {})
    if not isinstance(pruner, Mapping):
        pruner = {"kind": pruner}
    return flat | {f"pruner.{name}": value for name, value in pruner.items()}


def _checked(key: str, value: Any, where: str) -> Any:
    """Return the value of a key of the file as `SweepSpec` has it.

    Raises:
        ConfigError: one sentence naming the key.
    """
    if key not in _KEYS:
        names = [name for name in _KEYS if ("." in name) == ("." in key)]
        raise wrong(where, repr(key), f"some of {', '.join(names)}{did_you_mean(key, names)}")
    if key in _ENUMS:
        kind = "none" if key == "pruner.kind" and value is None else value  # what YAML calls null
        return _member(_ENUMS[key], kind, f"{where} {key}")
    if key in _LEAST:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_right = (is_whole and value >= _LEAST[key]) or (key, value) == ("parallel", "auto")
        expected = f"a whole number of {_LEAST[key]} or more; write one"
    elif key == "config":
        is_right = isinstance(value, list) and all(isinstance(text, str) for text in value)
        expected = "a list of arguments for train; write `- recipe=huggingtweets`"
    else:
        is_right = isinstance(value, str | None)
        expected = "a path; write one"
    if not is_right:
        raise wrong(f"{where} {key}", repr(value), expected)
    return value


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as err:
        expected = "a sweep file; try conf/sweep/huggingtweets.yaml"
        raise wrong("sweep", f"{path}, which is not there", expected) from err
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as err:
        raise ConfigError(
            f"{path}: cannot be read ({first_line(err)}); expected YAML; see docs/sweeps.md"
        ) from err
    if not isinstance(raw, dict):
        raise wrong(str(path), "no keys", "`space:` and more; see docs/sweeps.md")
    if "command" in raw or "method" in raw:
        ours = "`huggingtweets sweep conf/sweep/huggingtweets.yaml`"
        expected = f"one of ours; run `wandb sweep {path}`, or {ours}"
        raise wrong(str(path), "a W&B sweep file", expected)
    return {str(key): value for key, value in raw.items()}


def _split(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Tell settings of the sweep, and what is searched, from what the trials are given."""
    own = [text.removeprefix(SETTING) for text in arguments if text.startswith(SETTING)]
    try:
        settings = OmegaConf.to_container(OmegaConf.from_dotlist(own))
    except (YAMLError, OmegaConfBaseException) as err:
        expected = "sweep.KEY=VALUE, as in sweep.trials=20; write it so"
        raise wrong("sweep.", shlex.join(own), expected) from err
    assert isinstance(settings, dict)
    searched: dict[str, str] = {}
    rest = []
    for text in arguments:
        if text.startswith(SETTING):
            continue
        key, _, value = text.partition("=")
        if key != "user" and is_sweep(text):
            searched[key] = value
        else:
            rest.append(text)
    return {str(key): value for key, value in settings.items()}, searched, rest


def _member(kind: type[Member], value: Any, where: str) -> Member:
    names = [member.value for member in kind]
    if value not in names:
        hint = did_you_mean(str(value), names)
        raise wrong(where, repr(value), f"one of {', '.join(names)}{hint}")
    return kind(value)


_WEIGHTED = "{heldout: 1, memorisation: 0.5}"


def _objective(value: Any, where: str) -> Objective:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Mapping | list):
        names = []
    measures = tuple(_member(Measure, name, where) for name in names)
    if not measures or len(set(measures)) < len(measures):
        expected = (
            f"heldout, a weighted sum or a list; write {_WEIGHTED} or [heldout, memorisation]"
        )
        raise wrong(where, repr(value), expected)
    if not isinstance(value, Mapping):
        return Objective(measures, (1.0,) if len(measures) == 1 else None)
    for weight in value.values():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            raise wrong(where, f"the weight {weight!r}", f"numbers above 0; write {_WEIGHTED}")
    return Objective(measures, tuple(map(float, value.values())))


def grid_size(space: Mapping[str, Dimension]) -> int | None:
    """Return the number of points; None: a range is continuous."""
    size = 1
    for dimension in space.values():
        points = dimension.points()
        if points is None:
            return None
        size *= len(points)
    return size


def _check_together(spec: SweepSpec, where: str) -> None:
    for key, dimension in spec.space.items():
        if spec.sampler is Sampler.grid and dimension.points() is None:
            expected = "values that can be listed; write [a, b, c], or add a step"
            raise wrong(f"{where} space.{key}", "a continuous range with sampler: grid", expected)
        if spec.sampler is Sampler.cmaes and not isinstance(dimension, Range):
            expected = "ranges of numbers alone; use sampler: tpe"
            raise wrong(f"{where} space.{key}", "choices with sampler: cmaes", expected)
    if spec.sampler is Sampler.cmaes and len(spec.space) < 2:
        raise wrong(f"{where} sampler", "cmaes with one key", "two or more; use sampler: tpe")
    is_front = spec.objective.weights is None
    if is_front and spec.pruner.kind is not PrunerKind.none:
        raise wrong(
            f"{where} pruner",
            f"{spec.pruner.kind} with several objectives",
            f"none, as no trial is simply worse there; write weights, as in objective: {_WEIGHTED}",
        )
    if is_front and spec.sampler is Sampler.cmaes:
        expected = "random, tpe or grid; use sampler: tpe"
        raise wrong(f"{where} sampler", "cmaes with several objectives", expected)
    if spec.way is Way.fused and not is_fusable(spec.space):
        expected = "processes; use way: auto"
        raise wrong(f"{where} way", "fused with a space that slots cannot share", expected)
