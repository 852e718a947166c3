"""Where things lie: every file one job writes, the cache, the user's own settings, what we ship."""

import os
from dataclasses import dataclass
from pathlib import Path

STUDY_FILES = ("study.db", "study.journal")
"""Of a sweep, in its folder: one of the two."""


def cache_dir() -> Path:
    """Folder for what can be had again: `HUGGINGTWEETS_CACHE`, else under the XDG cache."""
    return _own_folder("HUGGINGTWEETS_CACHE", "XDG_CACHE_HOME", "~/.cache")


def config_home() -> Path:
    """Folder of the user's own settings: `HUGGINGTWEETS_CONFIG`, else under the XDG one.

    It may hold `optout.txt`, and `conf/`, `launch/`, `slurm/` with own or changed files.
    """
    return _own_folder("HUGGINGTWEETS_CONFIG", "XDG_CONFIG_HOME", "~/.config")


def _own_folder(variable: str, xdg: str, default: str) -> Path:
    # Variables that no shell has set, as those of an `--env-file`, may begin with `~`.
    if own := os.environ.get(variable):
        return expanded(own)
    return expanded(os.environ.get(xdg) or default) / "huggingtweets"


def expanded(path: str) -> Path:
    """Write `~` and `~name` out; like a shell, leave them where nobody knows such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def shipped(name: str) -> Path:
    """Path of a file or folder of `conf/`, `launch/` or `slurm/` as the project ships it.

    The wheel has these folders inside the package, a clone beside it.
    """
    package = Path(__file__).parents[1]
    inside = package / name
    return inside if inside.exists() else package.parent / name


def template(name: str) -> Path:
    """Path of a shipped file, or of the user's own in its place: here, else in their settings.

    The path is relative where it begins in the current folder; so is one that is nowhere.
    """
    places = (Path(name), config_home() / name, shipped(name))
    return next((path for path in places if path.is_file()), Path(name))


class _Inside:
    """A file or folder at a fixed place in a job's folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, paths: "JobPaths", owner: type["JobPaths"]) -> Path:
        return paths.root / self._name


@dataclass(frozen=True)
class JobPaths:
    """The folder of one job, `<output_dir>/<slug>`, and what lies in it."""

    root: Path

    config = _Inside("config.yaml")
    """The composed configuration, re-runnable."""
    posts = _Inside("tweets.jsonl.gz")
    """The posts as received, but masked where training masks."""
    cleaning = _Inside("cleaning.json")
    """Counts per user: downloaded, retweets, short, kept."""
    dataset = _Inside("dataset.jsonl.gz")
    """The kept posts as cleaned, each with the side of the split it is on."""
    pictures = _Inside("pictures")
    """Profile pictures, made again, where they were asked for."""
    checkpoints = _Inside("checkpoints")
    """Training state, while training."""
    metrics = _Inside("metrics.jsonl")
    """One line per logged step."""
    profile = _Inside("profile")
    """Trace and table of `engine.profile=true`."""
    predictions = _Inside("predictions.jsonl")
    """The samples."""
    lineage = _Inside("lineage.json")
    """Which artifact was made from which, also when no tracker could be reached."""
    model = _Inside("model")
    """The model folder: what is published."""
    card = _Inside("model/README.md")
    """The model card."""
    preview = _Inside("model/preview.png")
    """The preview picture."""
    report = _Inside("report.html")
    """One self-contained page."""
    result = _Inside("result.json")
    """Written last; its presence means done."""
