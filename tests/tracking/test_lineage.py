import errno
import hashlib
from pathlib import Path

import pytest

from huggingtweets.people.found_jobs import FoundJob, pages_of
from huggingtweets.storage.files import read_json
from huggingtweets.tracking import lineage
from huggingtweets.tracking.base import (
    Phase,
    Tracker,
    base_artifact,
    dataset_artifact,
    model_artifact,
    tweets_artifact,
)
from huggingtweets.tracking.lineage import LineageTracker


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    path = tmp_path / "tweets.jsonl.gz"
    path.write_bytes(b"posts")
    return path


def run_phases(path: Path, posts: Path) -> None:
    tracker = LineageTracker(Tracker(), path, "alice")
    tracker.start_phase(Phase.preprocess, {})
    tracker.log_artifact(tweets_artifact("alice", posts))
    tracker.log_artifact(dataset_artifact("alice"))
    tracker.start_phase(Phase.train, {})
    tracker.use_artifact(dataset_artifact("alice"))
    tracker.use_artifact(base_artifact("gpt2"))
    tracker.log_artifact(model_artifact("alice", posts.parent / "model"))
    tracker.finish()


def test_lineage_holds_edges_and_artifacts(tmp_path: Path, posts: Path) -> None:
    path = tmp_path / "lineage.json"
    run_phases(path, posts)
    saved = read_json(path)
    assert [tuple(edge.values()) for edge in saved["edges"]] == [
        ("@alice-preprocess", "output", "tweets-alice"),
        ("@alice-preprocess", "output", "dataset-alice"),
        ("@alice-train", "input", "dataset-alice"),
        ("@alice-train", "input", "gpt2"),
        ("@alice-train", "output", "alice"),
    ]
    assert saved["artifacts"]["tweets-alice"] == {
        "type": "raw-dataset",
        "reference": None,
        "files": {"tweets.jsonl.gz": {"bytes": 5, "sha256": hashlib.sha256(b"posts").hexdigest()}},
    }
    assert saved["artifacts"]["gpt2"]["reference"] == "https://huggingface.co/gpt2"


def test_lineage_of_a_second_attempt_is_the_same(tmp_path: Path, posts: Path) -> None:
    path = tmp_path / "lineage.json"
    run_phases(path, posts)
    first = path.read_bytes()
    run_phases(path, posts)
    assert path.read_bytes() == first


def test_pages_of_an_earlier_attempt_stay(tmp_path: Path) -> None:
    class Online(Tracker):
        def urls(self) -> dict[Phase, str]:
            return {Phase.train: "https://wandb.example/lab/p/runs/1"}

    path = tmp_path / "alice" / "lineage.json"
    LineageTracker(Online(), path, "alice").start_phase(Phase.train, {})
    LineageTracker(Tracker(), path, "alice").start_phase(Phase.train, {})  # without a network
    assert read_json(path)["pages"] == {"@alice-train": "https://wandb.example/lab/p/runs/1"}
    assert pages_of(FoundJob(path.parent, "alice", frozenset(), None)) == [
        "https://wandb.example/lab/p/runs/1"
    ]


def test_lineage_survives_a_stop_between_phases(tmp_path: Path, posts: Path) -> None:
    path = tmp_path / "lineage.json"
    tracker = LineageTracker(Tracker(), path, "alice")
    tracker.start_phase(Phase.preprocess, {})
    tracker.log_artifact(tweets_artifact("alice", posts))
    tracker.start_phase(Phase.train, {})
    assert len(read_json(path)["edges"]) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"edges": [1]}', '{"edges": {}}'])
def test_lineage_replaces_a_damaged_file(tmp_path: Path, posts: Path, damage: str) -> None:
    path = tmp_path / "lineage.json"
    path.write_text(damage)
    run_phases(path, posts)
    assert len(read_json(path)["edges"]) == 5


def test_lineage_records_large_files_by_size(
    tmp_path: Path, posts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "MAX_HASHED_BYTES", 4)
    run_phases(tmp_path / "lineage.json", posts)
    files = read_json(tmp_path / "lineage.json")["artifacts"]["tweets-alice"]["files"]
    assert files == {"tweets.jsonl.gz": {"bytes": 5}}


def test_lineage_of_a_file_that_cannot_be_read_ends_no_job(
    tmp_path: Path, posts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    run_phases(tmp_path / "lineage.json", posts)
    monkeypatch.undo()
    saved = read_json(tmp_path / "lineage.json")
    assert len(saved["edges"]) == 5
    assert "tweets-alice" not in saved["artifacts"]


def test_lineage_that_cannot_be_saved_ends_no_job(
    tmp_path: Path, posts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    run_phases(tmp_path / "file" / "lineage.json", posts)
    assert "lineage not saved" in caplog.text
