"""W&B of a batch, offline: runs a user, grouped, or one run with a table."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from job_processes import SMALL, run, write_posts

from huggingtweets.config.plan import make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.handles import Job
from huggingtweets.jobs import runner
from huggingtweets.publishing.index import Row
from huggingtweets.tracking.base import Phase, Tracker


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    write_posts(tmp_path / "posts", "ann", "bob")
    (tmp_path / "users.txt").write_text("ann\nbob\n")
    small = [word for word in SMALL if word not in ("tracking=none", "engine=single")]
    return [
        *small,
        f"user=file:{tmp_path / 'users.txt'}",
        "source=jsonl",
        f"source.path={tmp_path / 'posts'}",
        f"output_dir={tmp_path / 'my-batch'}",
        "engine=fused",
        "tracking=wandb",
        "tracking.mode=offline",
    ]


def test_one_run_with_a_table_of_all_users(arguments: list[str], tmp_path: Path) -> None:
    run([*arguments, "tracking.per_user=false"], log=tmp_path / "log")
    output = tmp_path / "my-batch"
    assert [path.parent.name for path in output.glob("*/wandb")] == [".batch"]
    [path] = output.glob(".batch/wandb/offline-run-*/files/media/table/results*.table.json")
    table = json.loads(path.read_text())
    assert table["columns"][0] == "slug"
    assert [row[0] for row in table["data"]] == ["ann", "bob"]
    kept = table["columns"].index("kept")
    assert [row[kept] for row in table["data"]] == [60, 60]


def test_runs_a_user_are_grouped_by_the_batch(arguments: list[str], tmp_path: Path) -> None:
    run(arguments, log=tmp_path / "log")
    output = tmp_path / "my-batch"
    for name in ("ann", "bob"):
        records = list((output / name).glob("wandb/offline-run-*/*.wandb"))
        assert len(records) == 2
        assert all(b"my-batch" in path.read_bytes() for path in records)
    assert not (output / ".batch").exists()


def test_no_path_of_this_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd's folder is one, and may be named after people."""
    told: list[Any] = []

    class Heard(Tracker):
        def start_phase(self, phase: Phase, config: Mapping[str, Any]) -> None:
            told.append(config)

    crowd = tmp_path / "home" / "alice" / ".crowd"
    crowd.mkdir(parents=True)
    config = TrainConfig(user="file:users.txt", output_dir=str(tmp_path))
    config = replace(config, recipe=replace(config.recipe, warm_start=str(crowd)))
    monkeypatch.setattr(runner, "build_batch_tracker", lambda *_: Heard())
    monkeypatch.setattr(runner, "write_index", lambda *_: [Row("ann", "@ann", *[0] * 9)])
    runner._sum_up(config, [make_plan(config, Job.of(["ann"]))], has_ended=True)
    assert told[0]["warm_start"] == ".crowd"
    assert "alice" not in str(told)
