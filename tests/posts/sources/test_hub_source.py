"""Datasets: local folders for real, the Hub only as far as its absence."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Timeline

Load = Callable[..., Timeline]

ROWS = {
    "username": ["NASA", "esa", "nasa"],
    "text": ["a", "b", "c"],
    "created_at": ["2020-01-01", "2020-01-02", "2020-01-03"],
    "extra": [1, 2, 3],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_saved_dataset_is_read_by_user(tmp_path: Path, load: Load) -> None:
    import datasets

    datasets.Dataset.from_dict(ROWS).save_to_disk(str(tmp_path / "saved"))
    timeline = load("hub", tmp_path / "saved", "nasa")
    assert [(post.text, post.created_at) for post in timeline.posts] == [
        ("c", "2020-01-03T00:00:00Z"),
        ("a", "2020-01-01T00:00:00Z"),
    ]
    with pytest.raises(SourceError, match="nearest: 'nasa'"):
        load("hub", tmp_path / "saved", "nas")
    with pytest.raises(SourceError, match=r"source.text_column=texd; .*nearest: 'text'"):
        load("hub", tmp_path / "saved", "nasa", text_column="texd")


def test_a_shuffled_and_filtered_dataset_is_read_as_it_is_now(tmp_path: Path, load: Load) -> None:
    import datasets

    dataset = datasets.Dataset.from_dict(ROWS).select([2, 0])
    datasets.DatasetDict({"test": dataset}).save_to_disk(str(tmp_path / "saved"))
    timeline = load("hub", tmp_path / "saved", "nasa", hub_split="test")
    assert len(timeline.posts) == 2
    with pytest.raises(SourceError, match="got train; expected one of test"):
        load("hub", tmp_path / "saved", "nasa")


def test_a_folder_of_data_files(tmp_path: Path, load: Load) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("username,text\nNASA,a\nesa,b\n")
    timeline = load("hub", tmp_path / "set", "nasa")
    assert [post.text for post in timeline.posts] == ["a"]


def test_code_in_a_dataset_is_never_run(tmp_path: Path, load: Load) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(SourceError, match="cannot be had"):
        load("hub", folder, "nasa")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({"HF_HUB_OFFLINE": "1"}, id="offline"),
        pytest.param({"HF_ENDPOINT": "http://127.0.0.1:9"}, id="dead", marks=pytest.mark.slow),
    ],
)
def test_without_network_and_cache_it_is_one_sentence(
    tmp_path: Path, setting: dict[str, str]
) -> None:
    code = (
        "from huggingtweets.config.posts_schema import SourceConfig, SourceKind\n"
        "from huggingtweets.errors import SourceError\n"
        "from huggingtweets.posts.sources.load import load_timeline\n"
        "source = SourceConfig(kind=SourceKind.hub, path='someone/some_dataset')\n"
        "for user in range(100):\n"
        "    try: load_timeline(source, f'user{user}')\n"
        "    except SourceError as err: print(err)\n"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(tmp_path), **setting},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.count("'someone/some_dataset' cannot be had") == 100
    assert done.stdout.count("\n") == 100
    assert time.monotonic() - start < 60
