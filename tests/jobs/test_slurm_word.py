"""What `status` tells of a batch under SLURM, by what squeue answers."""

from pathlib import Path

import pytest

from huggingtweets.cli import main as cli
from huggingtweets.jobs.ledger import JobStatus, open_ledger
from huggingtweets.jobs.slurm_word import ask_slurm


def fake(folder: Path, name: str, says: str, code: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n")
    script.chmod(0o755)


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    logs = tmp_path / "out" / "slurm-logs"
    logs.mkdir(parents=True)
    (logs / "huggingtweets-4711_0.out").touch()
    (logs / "4711.command").write_text(
        "sbatch --array=0-3 slurm/array.sbatch user=file:users.txt\n"
    )
    with open_ledger(tmp_path / "out") as ledger:
        ledger.record("ann", JobStatus.queued)
    return tmp_path


def test_a_held_task_is_named_with_what_lets_it_go(
    batch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = "4711_0|PENDING|launch failed requeued held\n4711_1|PENDING|Resources\n4711_2|RUNNING|n1"
    fake(batch / "bin", "squeue", held)
    fake(batch / "bin", "sacct", "4711_3|NODE_FAIL\n4711_0|PENDING")
    assert cli.main(["status", str(batch / "out")]) == 0
    words = capsys.readouterr().out
    assert "scontrol release 4711_0" in words
    assert "1 task(s) wait (Resources)" in words
    assert "task 4711_3 ended as NODE_FAIL" in words
    assert "release 4711_1" not in words


def test_where_no_task_is_left_the_command_is_shown(batch: Path) -> None:
    fake(batch / "bin", "squeue", "")
    fake(batch / "bin", "sacct", "", code=1)
    word = ask_slurm(batch / "out", 1)
    assert word is not None
    assert "train what is missing: sbatch --array=0-3" in word.lines()[0]


def test_without_slurm_or_without_its_logs_nothing_is_asked(batch: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    fake(batch / "bin", "squeue", "4711_0|PENDING|held")
    assert ask_slurm(tmp_path / "else", 1) is None
