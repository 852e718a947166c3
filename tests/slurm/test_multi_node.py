"""One model over several nodes: the same as on one, stopped and started again or not."""

import json
from pathlib import Path

import pytest
from cluster import Batch, Cluster, wait_for
from job_processes import weights_digest

pytestmark = pytest.mark.slurm


def arguments(batch: Batch, shared: Path) -> tuple[str, ...]:
    return (
        "user=mikeforwi",
        "source=jsonl",
        f"source.path={shared / 'tweets'}",
        f"output_dir={batch.output}",
        "model=tiny",
        "recipe.global_batch_size=4",
        "recipe.block_size=64",
        "recipe.max_steps=240",
        "recipe.dropout=0.1",
        "recipe.heldout_frac=0",
        "engine=single",
        "engine.precision=fp32",
        "engine.micro_batch_size=1",
        "engine.log_every=1",
        "sampling.num=0",
        "tracking=none",
        "publish=none",
    )


def losses(batch: Batch) -> list[float]:
    lines = (batch.output / "mikeforwi/metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def num_lines(batch: Batch) -> int:
    path = batch.output / "mikeforwi/metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_two_nodes_train_as_one_node_of_two_processes_does(
    cluster: Cluster, shared: Path, tmp_path: Path
) -> None:
    one, two = Batch(tmp_path / "one"), Batch(tmp_path / "two")
    shapes = {
        one: ("--nodes=1", "--gpus-per-node=2"),
        two: ("--nodes=2", "--gpus-per-node=1", "--cpus-per-task=1"),
    }
    jobs = {}
    for batch, shape in shapes.items():
        batch.folder.mkdir()
        log = f"--output={batch.folder}/%x-%j.out"
        jobs[batch] = cluster.sbatch(
            "multi_node.sbatch", *arguments(batch, shared), options=(*shape, log)
        )
    wait_for(lambda: num_lines(two) > 20, two.logs)
    # As the time limit does it: to all processes of all nodes, launchers among them.
    cluster.call("scancel", "--signal=USR1", jobs[two])
    for batch, job in jobs.items():
        cluster.wait(job, batch.logs)
    assert two.logs().count("asking to be started again") == 1
    assert two.logs().count("resume at step=") == 1
    result = json.loads((one.output / "mikeforwi/result.json").read_text())
    assert len(losses(one)) == result["train"]["steps"] > 100
    assert losses(two) == losses(one)
    assert weights_digest(two.output / "mikeforwi") == weights_digest(one.output / "mikeforwi")
    if cluster.script:
        assert "on node[" in two.logs(), "on two nodes"
        assert "on node[" not in one.logs()
    assert "\r" not in one.logs() + two.logs()
    assert not list(cluster.marks.iterdir())


def test_a_launch_file_that_is_missing_is_told_by_the_script(
    cluster: Cluster, tmp_path: Path
) -> None:
    options = ("--nodes=1", "--gpus-per-node=0", f"--output={tmp_path}/log.out")
    job = cluster.sbatch("multi_node.sbatch", "user=a", options=options, LAUNCH="launch/zero9.yaml")
    cluster.wait(job)
    said = (tmp_path / "log.out").read_text()
    assert "got launch/zero9.yaml, which is not there; expected one of launch/cpu.yaml" in said
