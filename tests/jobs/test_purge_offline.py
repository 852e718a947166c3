"""Runs that W&B's own client has recorded offline are purged with the person they are about."""

import json
from pathlib import Path

import pytest
from job_processes import SMALL, run, write_posts

from huggingtweets.jobs.purge import plan_purge, purge

ANN, BOB = "ann_example", "bob_example"


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a batch of two people, tracked offline."""
    folder = tmp_path_factory.mktemp("batch")
    write_posts(folder / "posts", ANN, BOB)
    (folder / "users.txt").write_text(f"{ANN}\n{BOB}\n")
    arguments = [
        *SMALL,
        f"user=file:{folder / 'users.txt'}",
        "source=jsonl",
        f"source.path={folder / 'posts'}",
        f"output_dir={folder / 'out'}",
        "recipe.max_steps=2",
        "tracking=wandb",
        "tracking.mode=offline",
    ]
    run(arguments, log=folder / "log")
    return folder / "out"


def files_about(batch: Path, needles: list[str]) -> set[str]:
    """Files whose name or bytes hold one of the texts."""
    found = set()
    for path in batch.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        if any(needle in str(path.relative_to(batch)) or needle.encode() in data
               for needle in needles):  # fmt: skip
            found.add(str(path.relative_to(batch)))
    return found


def records(batch: Path) -> set[Path]:
    return {path for path in batch.rglob("run-*.wandb") if path.is_file()}


@pytest.mark.slow
def test_offline_runs_of_a_person_are_deleted(batch: Path) -> None:
    posts = (batch.parent / "posts" / f"{ANN}.jsonl").read_text().splitlines()
    needles = [ANN, *(json.loads(line)["text"] for line in posts[:20])]
    before = files_about(batch, needles)
    assert any(name.endswith(".wandb") for name in before)
    others = {path for path in records(batch) if BOB.encode() in path.read_bytes()}
    assert others
    purge(plan_purge(ANN, batch))
    assert files_about(batch, needles) == set()
    assert records(batch) == others
    assert (batch / BOB / "result.json").exists()
