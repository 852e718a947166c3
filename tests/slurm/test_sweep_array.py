"""A sweep whose tasks share one study, one of them stopped and started again."""

from pathlib import Path

import pytest
from cluster import RECIPE, Batch, Cluster, wait_for

from huggingtweets.sweep.status import read_sweep

pytestmark = pytest.mark.slurm

SWEEP = """
space:
  recipe.lr: {low: 3e-4, high: 3e-2, log: true}
trials: 16
parallel: 2
"""


def test_the_tasks_of_a_sweep_share_one_study(
    cluster: Cluster, shared: Path, tmp_path: Path
) -> None:
    batch = Batch(tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    words = [str(tmp_path / "sweep.yaml"), "user=mikeforwi", *RECIPE]
    words += [f"source.path={shared / 'tweets'}", f"output_dir={batch.output}"]
    options = ("--array=0-1", "--time=60", batch.log_option)
    job = cluster.sbatch("sweep.sbatch", *words, options=options)
    wait_for(lambda: len(list(batch.output.glob("trial-*/trial.json"))) >= 2, batch.logs)
    cluster.call("scancel", "--signal=USR1", f"{job}_0")
    cluster.wait(job, batch.logs)
    assert [batch.attempts(job, task) for task in (0, 1)] == [2, 1]
    rows = read_sweep(batch.output)[1].rows
    assert sorted(row.number for row in rows) == list(range(16))
    assert {row.state for row in rows} == {"complete"}
    assert not list(cluster.marks.iterdir())
