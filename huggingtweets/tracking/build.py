"""Choose the tracker of a job."""

import importlib.util
from pathlib import Path

from huggingtweets.config.results_schema import TrackingConfig, TrackingKind, WandbMode
from huggingtweets.errors import ConfigError
from huggingtweets.storage.paths import JobPaths
from huggingtweets.tracking.base import Tracker
from huggingtweets.tracking.lineage import LineageTracker
from huggingtweets.tracking.tensorboard import TensorBoardTracker
from huggingtweets.tracking.wandb_access import choose_mode
from huggingtweets.tracking.wandb_names import RunNames
from huggingtweets.tracking.wandb_tracker import WandbTracker


def check_tracking(config: TrackingConfig) -> None:
    """Check that the package of a tracker is installed, without importing it.

    Raises:
        ConfigError: it is not; the sentence says how to get it.
    """
    has_package = config.kind in (TrackingKind.wandb, TrackingKind.tensorboard)
    if has_package and importlib.util.find_spec(config.kind.value) is None:
        raise ConfigError(
            f"tracking: got {config.kind}, whose package is not installed; "
            f"run pip install 'huggingtweets[{config.kind}]', or use tracking=local"
        )


def build_tracker(
    config: TrackingConfig,
    slug: str,
    paths: JobPaths,
    *,
    is_main: bool = True,
    identity: str = "",
    is_alone: bool = False,
) -> Tracker:
    """Make the tracker of one job; it starts nothing before the first phase.

    Every kind keeps lineage.json in the job's folder; with per_user=false that is all, and W&B
    hears from `build_batch_tracker`. Other processes than the main one get a tracker that does
    nothing.

    Args:
        config: which, and how.
        slug: of the job.
        paths: of the job.
        is_main: whether this is the main process.
        identity: the job's digest: every start of it goes on with the same W&B runs.
        is_alone: whether the command trains this job alone, so that a run's id and name in the
            environment are meant for it.

    Raises:
        ConfigError: the tracker's package is not installed.
    """
    if not is_main:
        return Tracker()
    check_tracking(config)
    inner: Tracker
    match config.kind:
        case TrackingKind.wandb if config.per_user and _is_wandb_on(config):
            inner = WandbTracker(config, RunNames(slug, paths.root, identity, is_alone))
        case TrackingKind.tensorboard:
            inner = TensorBoardTracker(paths.root / "tensorboard")
        case _:
            inner = Tracker()
    return LineageTracker(inner, paths.lineage, slug)


def build_batch_tracker(config: TrackingConfig, output_dir: Path) -> Tracker:
    """Make the tracker of a batch that has one run for all its users; main process only."""
    if config.kind is TrackingKind.wandb and not config.per_user and _is_wandb_on(config):
        return WandbTracker(config, RunNames(output_dir.resolve().name, output_dir / ".batch"))
    return Tracker()


def _is_wandb_on(config: TrackingConfig) -> bool:
    return choose_mode(config.mode) is not WandbMode.disabled
