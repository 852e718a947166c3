"""W&B of a batch, offline: runs a user, grouped, or one run with a table."""

import json
from pathlib import Path

import pytest
from job_processes import SMALL, run, write_posts


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
