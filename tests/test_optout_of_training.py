"""The opt-out list where jobs are trained."""

import subprocess
import sys
from pathlib import Path

import pytest

from huggingtweets.config.plan import make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.errors import OptedOutError
from huggingtweets.handles import Job
from huggingtweets.pipeline.stages import begin_job
from huggingtweets.posts.optout import add_optout


def test_no_job_begins_with_somebody_who_opted_out(tmp_path: Path) -> None:
    optout = str(tmp_path / "optout.txt")
    add_optout("demo", optout)
    config = TrainConfig(output_dir=str(tmp_path / "out"), optout_file=optout)
    for handles in (["demo"], ["demo", "gran_turbo"]):
        with pytest.raises(OptedOutError, match=r"^@demo: "):
            begin_job(make_plan(config, Job.of(handles)))
    assert not (tmp_path / "out").exists()
    begin_job(make_plan(config, Job.of(["gran_turbo"])))
    assert (tmp_path / "out" / "gran_turbo" / "tweets.jsonl.gz").exists()


def test_somebody_who_opted_out_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    optout = tmp_path / "optout.txt"
    add_optout("demo", str(optout))
    words = ["train", "user=demo", "model=tiny", f"optout_file={optout}"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "huggingtweets.cli", *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "@demo: is on the list" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith("| torch")]
