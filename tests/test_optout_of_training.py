"""The opt-out list where jobs are trained."""

from pathlib import Path

import pytest

from huggingtweets.config.plan import make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.errors import OptedOutError
from huggingtweets.handles import Job
from huggingtweets.pipeline import begin_job
from huggingtweets.tweets.optout import add_optout


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
