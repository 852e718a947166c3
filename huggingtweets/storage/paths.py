"""Where things lie: every file one job writes, the cache, the user's own settings, what we ship."""

import os
from dataclasses import dataclass
from pathlib import Path

STUDY_FILES = ("study.db", "study.journal")
"""Of a sweep, in its folder: one of the two."""


def cache_dir() -> Path:
    """Folder for what can be had again: `HUGGINGTWEETS_CACHE`, else under the XDG cache."""
    own = os.environ.get("HUGGINGTWEETS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "huggingtweets"


def config_home() -> Path:
    """Folder of the user's own settings: `HUGGINGTWEETS_CONFIG`, else under the XDG one.

    It may hold `optout.txt`, and `conf/`, `launch/`, `slurm/` with own or changed files.
    """
    own = os.environ.get("HUGGINGTWEETS_CONFIG")
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return expanded(own) if own else Path(base) / "huggingtweets"


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


@dataclass(frozen=True)
class JobPaths:
    """The folder of one job, `<output_dir>/<slug>`, and what lies in it."""

    root: Path

    @property
    def config(self) -> Path:
        """The composed configuration, re-runnable."""
        return self.root / "config.yaml"

    @property
    def posts(self) -> Path:
        """The posts as received, but masked where training masks."""
        return self.root / "tweets.jsonl.gz"

    @property
    def cleaning(self) -> Path:
        """Counts per user: downloaded, retweets, short, kept."""
        return self.root / "cleaning.json"

    @property
    def dataset(self) -> Path:
        """The kept posts as cleaned, each with the side of the split it is on."""
        return self.root / "dataset.jsonl.gz"

    @property
    def pictures(self) -> Path:
        """Profile pictures, made again, where they were asked for."""
        return self.root / "pictures"

    @property
    def checkpoints(self) -> Path:
        """Training state, while training."""
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One line per logged step."""
        return self.root / "metrics.jsonl"

    @property
    def profile(self) -> Path:
        """Trace and table of `engine.profile=true`."""
        return self.root / "profile"

    @property
    def predictions(self) -> Path:
        """The samples."""
        return self.root / "predictions.jsonl"

    @property
    def lineage(self) -> Path:
        """Which artifact was made from which, also when no tracker could be reached."""
        return self.root / "lineage.json"

    @property
    def model(self) -> Path:
        """The model folder: what is published."""
        return self.root / "model"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.model / "README.md"

    @property
    def preview(self) -> Path:
        """The preview picture."""
        return self.model / "preview.png"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.root / "report.html"

    @property
    def result(self) -> Path:
        """Written last; its presence means done."""
        return self.root / "result.json"
