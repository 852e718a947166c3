"""What a sweep file says: the space, how it is searched, and what is sought."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from huggingtweets.config.compose import did_you_mean
from huggingtweets.errors import ConfigError
from huggingtweets.sweep.space import Dimension, Range, is_fusable, read_space

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
    """Bits a byte of the held-out posts."""
    memorisation = "memorisation"
    """Bits a byte by which training posts got better beyond what held-out posts did."""


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
    """No trial is ended before so many epochs."""
    factor: int = 3
    """asha, hyperband: one of so many trials goes on to so many times the epochs."""
    startup_trials: int = 1
    """median: so many trials are trained whole before any is judged."""


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
    """One sweep."""

    name: str
    """The file's name without its ending."""
    space: Mapping[str, Dimension]
    config: tuple[str, ...] = ()
    """Arguments for `train.py` that all trials share."""
    sampler: Sampler = Sampler.random
    pruner: Pruner = field(default_factory=Pruner)
    objective: Objective = field(default_factory=Objective)
    trials: int = 32
    """In all, those of earlier starts and of other tasks included."""
    parallel: int | str = "auto"
    """Trials at once; auto: as many as there are slots, or one process a GPU."""
    storage: StorageKind = StorageKind.auto
    way: Way = Way.auto
    launch: str | None = None
    """processes: an accelerate configuration that each trial is launched with."""
    seed: int = 0
    """Of the sampler."""


def read_spec(path: Path, arguments: Sequence[str] = ()) -> SweepSpec:
    """Read a sweep file; `arguments` are `sweep.KEY=VALUE` and what all trials are given.

    Raises:
        ConfigError: one sentence naming the key.
    """
    raw = _load(path)
    settings, overrides = _split(arguments)
    raw |= settings
    where = str(path)
    known = [item.name for item in fields(SweepSpec) if item.name != "name"]
    for key in raw:
        if key not in known:
            raise ConfigError(
                f"{where}: got {key!r}; expected some of {', '.join(known)}"
                f"{did_you_mean(str(key), known)}"
            )
    if "space" not in raw:
        raise ConfigError(
            f"{where}: got no space; expected the keys to search; add `space:` with a range or "
            "choices for each"
        )
    space = read_space(raw.pop("space"), where)
    config = _texts(raw.pop("config", None) or [], f"{where} config")
    spec = SweepSpec(
        name=path.stem,
        space=space,
        config=_merged((*config, *overrides)),
        sampler=_member(Sampler, raw.get("sampler", "random"), f"{where} sampler"),
        pruner=_pruner(raw.get("pruner", "none"), f"{where} pruner"),
        objective=_objective(raw.get("objective", "heldout"), f"{where} objective"),
        trials=_trials(raw, space, where),
        parallel=_parallel(raw.get("parallel", "auto"), f"{where} parallel"),
        storage=_member(StorageKind, raw.get("storage", "auto"), f"{where} storage"),
        way=_member(Way, raw.get("way", "auto"), f"{where} way"),
        launch=raw.get("launch"),
        seed=_count(raw.get("seed", 0), f"{where} seed", least=0),
    )
    _check_together(spec, where)
    return spec


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as err:
        raise ConfigError(
            f"sweep: got {path}, which is not there; expected a sweep file; try "
            "conf/sweep/huggingtweets.yaml"
        ) from err
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as err:
        reason = str(err).partition("\n")[0]
        raise ConfigError(
            f"{path}: cannot be read ({reason}); expected YAML; see docs/sweeps.md"
        ) from err
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: got no keys; expected `space:` and more; see docs/sweeps.md")
    if "command" in raw or "method" in raw:
        raise ConfigError(
            f"{path}: got a W&B sweep file; expected one of ours; run `wandb sweep {path}`, or "
            "`huggingtweets sweep conf/sweep/huggingtweets.yaml`"
        )
    return {str(key): value for key, value in raw.items()}


def _split(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Tell settings of the sweep from what the trials are given."""
    own = [text.removeprefix(SETTING) for text in arguments if text.startswith(SETTING)]
    try:
        settings = OmegaConf.to_container(OmegaConf.from_dotlist(own))
    except (YAMLError, OmegaConfBaseException) as err:
        raise ConfigError(
            f"sweep.: got {shlex.join(own)}; expected sweep.KEY=VALUE, as in sweep.trials=20; "
            "write it so"
        ) from err
    assert isinstance(settings, dict)
    rest = [text for text in arguments if not text.startswith(SETTING)]
    return {str(key): value for key, value in settings.items()}, rest


def _merged(overrides: Sequence[str]) -> tuple[str, ...]:
    """Keep the last of several values of one key: the command line goes before the file."""
    last: dict[str, str] = {}
    for text in overrides:
        try:
            key = OverridesParser.create().parse_override(text).key_or_group
        except HydraException:
            key = text  # refused with a sentence when it is composed
        last.pop(key, None)
        last[key] = text
    return tuple(last.values())


Member = TypeVar("Member", bound=StrEnum)


def _member(kind: type[Member], value: Any, where: str) -> Member:
    names = [member.value for member in kind]
    text = "none" if value is None else value
    if text not in names:
        raise ConfigError(
            f"{where}: got {value!r}; expected one of {', '.join(names)}"
            f"{did_you_mean(str(value), names)}"
        )
    return kind(text)


def _count(value: Any, where: str, *, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(
            f"{where}: got {value!r}; expected a whole number of {least} or more; write one"
        )
    return value


def _parallel(value: Any, where: str) -> int | str:
    return "auto" if value == "auto" else _count(value, where)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ConfigError(
            f"{where}: got {value!r}; expected a list of arguments for train.py; write "
            "`- recipe=huggingtweets`"
        )
    return tuple(value)


def _pruner(value: Any, where: str) -> Pruner:
    if not isinstance(value, Mapping):
        return Pruner(_member(PrunerKind, value, where))
    known = [item.name for item in fields(Pruner)]
    for key in value:
        if key not in known:
            raise ConfigError(
                f"{where}: got {key!r}; expected some of {', '.join(known)}"
                f"{did_you_mean(str(key), known)}"
            )
    counts = {
        key: _count(value[key], f"{where}.{key}", least=2 if key == "factor" else 1)
        for key in known[1:]
        if key in value
    }
    return Pruner(_member(PrunerKind, value.get("kind"), f"{where}.kind"), **counts)


def _objective(value: Any, where: str) -> Objective:
    if isinstance(value, str):
        return Objective((_member(Measure, value, where),))
    names = list(value) if isinstance(value, Mapping | list) else []
    measures = tuple(_member(Measure, name, where) for name in names)
    if not measures or len(set(measures)) < len(measures):
        raise ConfigError(
            f"{where}: got {value!r}; expected heldout, a weighted sum or a list; write "
            "{heldout: 1, memorisation: 0.5} or [heldout, memorisation]"
        )
    if not isinstance(value, Mapping):
        return Objective(measures, (1.0,) if len(measures) == 1 else None)
    for weight in value.values():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            raise ConfigError(
                f"{where}: got the weight {weight!r}; expected numbers above 0; write "
                "{heldout: 1, memorisation: 0.5}"
            )
    return Objective(measures, tuple(map(float, value.values())))


def _trials(raw: Mapping[str, Any], space: Mapping[str, Dimension], where: str) -> int:
    """Return how many trials there are to be; a grid has no more than its points."""
    size = grid_size(space) if raw.get("sampler") == Sampler.grid else None
    if "trials" not in raw:
        return size or 32
    num = _count(raw["trials"], f"{where} trials")
    return min(num, size) if size else num


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
    if spec.sampler is Sampler.grid:
        for key, dimension in spec.space.items():
            if dimension.points() is None:
                raise ConfigError(
                    f"{where} space.{key}: got a continuous range with sampler: grid; expected "
                    "values that can be listed; write [a, b, c], or add a step"
                )
    if spec.sampler is Sampler.cmaes:
        for key, dimension in spec.space.items():
            if not isinstance(dimension, Range):
                raise ConfigError(
                    f"{where} space.{key}: got choices with sampler: cmaes; expected ranges of "
                    "numbers alone; use sampler: tpe"
                )
        if len(spec.space) < 2:
            raise ConfigError(
                f"{where} sampler: got cmaes with one key; expected two or more; use sampler: tpe"
            )
    if spec.objective.weights is None:
        if spec.pruner.kind is not PrunerKind.none:
            raise ConfigError(
                f"{where} pruner: got {spec.pruner.kind} with several objectives; expected none, "
                "as no trial is simply worse there; write weights, as in "
                "objective: {heldout: 1, memorisation: 0.5}"
            )
        if spec.sampler is Sampler.cmaes:
            raise ConfigError(
                f"{where} sampler: got cmaes with several objectives; expected random, tpe or "
                "grid; use sampler: tpe"
            )
    if spec.way is Way.fused and not is_fusable(spec.space):
        raise ConfigError(
            f"{where} way: got fused with a space that slots cannot share; expected processes; "
            "use way: auto"
        )
