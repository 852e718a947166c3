import subprocess
import sys
import time
from pathlib import Path

import pytest

from huggingtweets.config.results_schema import TrackingConfig, TrackingKind, WandbMode
from huggingtweets.errors import ConfigError
from huggingtweets.storage.files import read_json
from huggingtweets.storage.paths import JobPaths
from huggingtweets.tracking.base import Phase, Tracker, tweets_artifact
from huggingtweets.tracking.build import build_tracker, check_tracking
from huggingtweets.tracking.tensorboard import TensorBoardTracker


def run_job(tracker: Tracker, paths: JobPaths) -> None:
    tracker.start_phase(Phase.preprocess, {"lr": 1e-4})
    tracker.log_artifact(tweets_artifact("alice"))
    tracker.start_phase(Phase.train, {"recipe": {"lr": 1e-4, "schedule": "cosine"}})
    for step in range(1, 4):
        tracker.log_metrics({"train/loss": 3.0 / step, "train/mfu": None}, step=step)
    tracker.log_table("examples", ["Input", "Prediction"], [["My dream is", "<b>to\n| be"]])
    tracker.log_table("figures", ["Step", "Loss"], [[1, 2.5]])
    tracker.finish()


@pytest.mark.parametrize("kind", [TrackingKind.local, TrackingKind.none])
def test_tracking_without_a_tracker_leaves_the_lineage_alone(
    tmp_path: Path, kind: TrackingKind
) -> None:
    paths = JobPaths(tmp_path / "alice")
    run_job(build_tracker(TrackingConfig(kind), "alice", paths), paths)
    assert [path.name for path in paths.root.iterdir()] == ["lineage.json"]
    assert read_json(paths.lineage)["artifacts"].keys() == {"tweets-alice"}


def test_tracking_with_wandb_disabled_starts_nothing(tmp_path: Path) -> None:
    paths = JobPaths(tmp_path / "alice")
    config = TrackingConfig(TrackingKind.wandb, mode=WandbMode.disabled)
    run_job(build_tracker(config, "alice", paths), paths)
    assert [path.name for path in paths.root.iterdir()] == ["lineage.json"]


@pytest.mark.parametrize("kind", list(TrackingKind))
def test_tracking_of_other_ranks_does_nothing(tmp_path: Path, kind: TrackingKind) -> None:
    paths = JobPaths(tmp_path / "alice")
    tracker = build_tracker(TrackingConfig(kind), "alice", paths, is_main=False)
    assert type(tracker) is Tracker
    run_job(tracker, paths)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [TrackingKind.wandb, TrackingKind.tensorboard])
def test_tracking_without_the_package_says_how_to_get_it(
    kind: TrackingKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"tracking: got {kind}, .*pip install .*tracking=local"):
        check_tracking(TrackingConfig(kind))


def test_tensorboard_writes_what_it_is_told(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    paths = JobPaths(tmp_path / "alice")
    run_job(build_tracker(TrackingConfig(TrackingKind.tensorboard), "alice", paths), paths)
    events = accumulator.EventAccumulator(str(paths.root / "tensorboard" / "train"))
    events.Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 3.0),
        (2, 1.5),
        (3, 1.0),
    ]
    config, table = (
        events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "examples")
    )
    assert "    schedule: cosine\n" in config
    assert "    My dream is\t<b>to\n    | be\n" in table


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_on_a_disk_that_fails_ends_no_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    paths = JobPaths(tmp_path / "alice")
    paths.root.mkdir()
    (paths.root / "tensorboard").write_text("in the way")
    run_job(build_tracker(TrackingConfig(TrackingKind.tensorboard), "alice", paths), paths)
    assert "is not written any further" in caplog.text
    tracker = TensorBoardTracker(tmp_path / "board")
    tracker.start_phase(Phase.train, {})
    with Path("/dev/full").open("wb", buffering=0) as full:
        tracker._writer.file_writer.event_writer._async_writer._writer._writer = full
        for step in range(200):
            tracker.log_metrics({"train/loss": 1.0}, step=step)
            time.sleep(0.01)
        tracker.finish()
    assert caplog.text.count("No space left") == 1


def test_tracking_imports_nothing_heavy() -> None:
    code = (
        "import sys, huggingtweets.tracking.build;"
        "print([name for name in ('torch', 'wandb', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
