"""What is compared: output folders, the settings of a grid, the trials of a sweep."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from huggingtweets.errors import ConfigError
from huggingtweets.standing import finished
from huggingtweets.storage.files import read_flat_yaml
from huggingtweets.storage.paths import STUDY_FILES
from huggingtweets.storage.places import check_output_dir, check_package

_PLACES = ("user", "output_dir", "shard", "job_index", "consent", "defaults", "hydra", "tracking")
"""Keys that decide nothing about a model."""


@dataclass(frozen=True)
class Figures:
    """One person's model. None: not measured."""

    bits: float
    """Held-out bits per byte."""
    base_bits: float | None = None
    copied: float | None = None
    """Share of the samples' runs of 4 to 8 words that stand in a training post."""
    long_copied: float | None = None
    """Share of the samples with five words or more in a row from a training post."""
    distinct_2: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    """In training steps."""


@dataclass(frozen=True)
class Setting:
    """One way of training, and what it made of each person."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    """Its settings under dotted names."""
    people: Mapping[str, Figures]
    """By slug."""
    has_models: bool = True
    """Whether the models lie in its folder, so that posts can be scored one by one."""


def read_settings(folders: Sequence[Path]) -> list[Setting]:
    """Read all that is to be compared.

    A folder is an `output_dir`, the folder around those of a grid, or that of a sweep, which
    stands for its default and its best trial.

    Raises:
        ConfigError: a folder holds none of these, or fewer than two are left.
    """
    found = [setting for folder in folders for setting in _read(folder)]
    found = list({setting.folder: setting for setting in found}.values())
    if len(found) < 2:
        raise ConfigError(
            f"compare: got {len(found)} finished training(s); expected two or more; name another "
            "output_dir, or the folder of a grid or of a sweep"
        )
    return found


def shared_people(settings: Sequence[Setting]) -> list[str]:
    """Return the slugs that all settings have.

    Raises:
        ConfigError: there is none.
    """
    shared = set.intersection(*(set(setting.people) for setting in settings))
    if not shared:
        raise ConfigError(
            f"compare: got no person that {', '.join(one.name for one in settings)} have in "
            "common with a held-out figure; expected the same people; train them in all"
        )
    return sorted(shared)


def differences(settings: Sequence[Setting]) -> dict[str, list[Any]]:
    """Return the settings that differ, each with its value in every one; None: it has none."""
    keys = dict.fromkeys(key for setting in settings for key in setting.config)
    rows = {key: [setting.config.get(key) for setting in settings] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _read(folder: Path) -> list[Setting]:
    check_output_dir("compare", folder)
    if any((folder / name).exists() for name in STUDY_FILES):
        return _read_sweep(folder)
    own = _read_output(folder, folder.resolve().name)
    if own is not None:
        return [own]
    inner = [
        setting
        for path in sorted(folder.iterdir())
        if path.is_dir() and (setting := _read_output(path, path.name)) is not None
    ]
    if not inner:
        raise ConfigError(
            f"compare: got {folder}, which holds no finished job with held-out figures; expected "
            "the output_dir of a run, of a grid or of a sweep; check the path"
        )
    return inner


def _read_output(folder: Path, name: str) -> Setting | None:
    people: dict[str, Figures] = {}
    config: Mapping[str, Any] = {}
    for paths, result in finished(folder):
        with suppress(ValueError, LookupError, TypeError, AttributeError):  # not ours
            figures = _figures(result)
            if figures is not None:
                people[paths.root.name] = figures
                config = config or _read_config(paths.config)
    return Setting(name, folder, config, people) if people else None


def _read_config(path: Path) -> dict[str, Any]:
    config = read_flat_yaml(path)
    return {key: value for key, value in config.items() if key.partition(".")[0] not in _PLACES}


def _figures(result: Mapping[str, Any]) -> Figures | None:
    """Return the figures of a result.json; None where nothing was held out.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is none of ours.
    """
    if not result.get("eval"):
        return None
    text = (result.get("quality") or {}).get("text") or {}
    samples = text.get("memorisation", {}).get("samples", {})
    shares = samples.get("ngram_fracs")
    distinct = text.get("diversity", {}).get("samples", {}).get("distinct")
    found = Figures(
        bits=result["eval"]["bits_per_byte"],
        base_bits=result["eval"].get("base_bits_per_byte"),
        copied=sum(shares) / len(shares) if shares else None,
        long_copied=samples.get("copied_frac"),
        distinct_2=distinct[1] if distinct else None,
        tokens=result["train"]["tokens"],
        seconds=result["train"]["seconds"],
    )
    # Told here, where this one person can still be passed over.
    are_numbers = all(isinstance(value, int | float | None) for value in astuple(found))
    if found.bits is None or not are_numbers:
        raise TypeError("figures that are no numbers")
    return found


def _read_sweep(folder: Path) -> list[Setting]:
    check_package("sweep", "optuna", "sweep")
    from huggingtweets.sweep.status import read_sweep
    from huggingtweets.sweep.study import trial_folder

    _, summary = read_sweep(folder)
    default = summary.default
    rows = [("default", default)] if default and default.values else []
    rows += [("best", summary.row(number)) for number in summary.best[:1]]
    found = []
    for name, row in rows:
        assert row is not None
        place = trial_folder(folder, row.number)
        people = {
            slug: Figures(user.heldout, tokens=user.tokens, seconds=user.seconds)
            for slug, user in row.users.items()
            if user.heldout is not None
        }
        title = f"{folder.resolve().name}/{name} (trial {row.number})"
        config = _read_config(place / "config.yaml")
        found.append(Setting(title, place, config, people, has_models=False))
    return found
