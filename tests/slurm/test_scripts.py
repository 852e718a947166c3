"""The batch scripts' decisions, with a stand-in for the launcher that ends as it is told."""

import time
from pathlib import Path

import pytest
from cluster import ROOT, Batch, Cluster, wait_for

from huggingtweets.jobs.slurm_word import LOGS

pytestmark = pytest.mark.slurm


def launcher(folder: Path, body: str) -> dict[str, str]:
    """An environment in which `accelerate` is a few lines of shell."""
    folder.mkdir()
    path = folder / "accelerate"
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)
    return {"LAUNCHER": str(folder)}


def start(cluster: Cluster, batch: Batch, body: str, *options: str, **env: str) -> str:
    """Queue an array of two tasks; return its number."""
    places = launcher(batch.folder / "bin", body)
    path = f"{places['LAUNCHER']}:{cluster.environment['PATH']}"
    options = ("--array=0-1", "--gpus-per-node=0", batch.log_option, *options)
    return cluster.sbatch("array.sbatch", "user=a", options=options, PATH=path, **env)


def run(cluster: Cluster, batch: Batch, body: str, *options: str, **env: str) -> str:
    """Run such an array to its end."""
    job = start(cluster, batch, body, *options, **env)
    cluster.wait(job, batch.logs)
    return job


def test_each_task_gets_its_share_and_what_follows_the_script(
    cluster: Cluster, tmp_path: Path
) -> None:
    batch = Batch(tmp_path)
    body = 'printf "<%s>" "$@"; echo 0 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"'
    job = run(cluster, batch, body, "--array=4-6")
    for task in (4, 5, 6):
        expected = f"<launch><--config_file><launch/cpu.yaml><train.py><user=a><shard={task - 4}/3>"
        assert expected in batch.log(job, task)
        assert batch.attempts(job, task) == 1
    assert not list(cluster.marks.iterdir())


def test_outside_a_clone_the_scripts_of_the_package_are_used(
    cluster: Cluster, tmp_path: Path
) -> None:
    """As `huggingtweets submit` calls them in a folder that holds nothing of ours."""
    batch = Batch(tmp_path)
    body = 'printf "<%s>" "$@"; echo 0 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"'
    path = f"{launcher(batch.folder / 'bin', body)['LAUNCHER']}:{cluster.environment['PATH']}"
    empty = tmp_path / "empty"
    empty.mkdir()
    options = ("--array=0-0", "--gpus-per-node=0", batch.log_option, f"--chdir={empty}")
    places = {"HUGGINGTWEETS_SLURM_DIR": str(ROOT / "slurm")}
    places["HUGGINGTWEETS_LAUNCH_DIR"] = str(ROOT / "launch")
    job = cluster.sbatch("array.sbatch", "user=a", options=options, PATH=path, **places)
    cluster.wait(job, batch.logs)
    file = f"<launch><--config_file><{ROOT / 'launch' / 'cpu.yaml'}>"
    assert f"{file}<-m><huggingtweets.train><user=a><shard=0/1>" in batch.log(job, 0)


def test_a_stop_is_requeued_once_and_task_by_task(cluster: Cluster, tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    body = """
    code=0  # the first attempt of the second task, which has the number of the whole array
    if [[ $HUGGINGTWEETS_ATTEMPT == 0 && $HUGGINGTWEETS_MARK == *_1 ]]; then code=75; fi
    echo $code >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"
    exit $((code != 0))
    """
    job = start(cluster, batch, body)
    after = f"--dependency=afterany:{job}"
    said = f"--wrap=squeue -h -r -j {job} -o %T >{tmp_path}/left; touch {tmp_path}/began"
    last = cluster.call("sbatch", "--parsable", after, "--output=/dev/null", said).strip()
    cluster.wait(job, batch.logs)
    cluster.wait(last)
    assert (tmp_path / "began").exists()
    assert not (tmp_path / "left").read_text(), "a dependent job waits for the last attempt"
    assert [batch.attempts(job, task) for task in (0, 1)] == [1, 2]
    assert not list(cluster.marks.iterdir())


def test_a_task_that_somebody_holds_keeps_no_last_job_waiting(
    test_cluster: Cluster, tmp_path: Path
) -> None:
    cluster, batch = test_cluster, Batch(tmp_path)
    body = 'sleep 8; echo 0 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"'
    job = start(cluster, batch, body, "--array=0-2%2")
    cluster.call("scontrol", "uhold", f"{job}_2")
    options = (
        f"--dependency=afterany:{job}",
        "--job-name=huggingtweets-last",
        "--output=/dev/null",
    )
    last = cluster.call("sbatch", "--parsable", *options, "--wrap=true").strip()
    cluster.wait(last, batch.logs)
    assert set(cluster.queue(job)) == {f"{job}_2"}
    assert batch.logs().count(f"job {last} begins without the tasks that are held") >= 1
    (batch.output / LOGS).mkdir(parents=True)  # where `submit` has them written
    (batch.output / LOGS / f"huggingtweets-{job}_0.out").touch()
    said = cluster.call("huggingtweets", "status", str(batch.output))
    assert f"task {job}_2 is held (JobHeldUser)" in said
    assert f"scontrol release {job}_2" in said
    assert f"scontrol release {job}_0" not in said
    cluster.call("scontrol", "release", f"{job}_2")
    cluster.wait(job, batch.logs)
    assert [batch.attempts(job, task) for task in (0, 1, 2)] == [1, 1, 1]
    assert not list(cluster.marks.iterdir())


HELD = "launch failed requeued held"
"""What SLURM says of a job whose launch a node has failed."""


def test_a_task_whose_launch_failed_is_let_go_by_the_others(
    test_cluster: Cluster, tmp_path: Path
) -> None:
    cluster, batch = test_cluster, Batch(tmp_path)
    body = """
    case $HUGGINGTWEETS_MARK in *_0) sleep 60 ;; esac # ends last, and looks after the other
    echo 0 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"
    """
    job = start(cluster, batch, body, "--array=0-1%1")
    wait_for(lambda: batch.attempts(job, 0), batch.logs)
    cluster.fail_next_launch()
    cluster.call("scontrol", "update", f"jobid={job}", "arraytaskthrottle=2")
    wait_for(lambda: HELD in cluster.reasons(job).values(), batch.logs)
    cluster.resume_drained()
    cluster.wait(job, batch.logs)
    assert "it is let go" in batch.logs()
    assert batch.attempts(job, 1) == 1, "the launch that failed is no attempt"
    assert not list(cluster.marks.iterdir())


def test_status_tells_of_a_task_whose_launch_failed(test_cluster: Cluster, tmp_path: Path) -> None:
    cluster, batch = test_cluster, Batch(tmp_path)
    cluster.fail_next_launch()
    body = 'echo 0 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"'
    job = start(cluster, batch, body, "--array=0-0")
    wait_for(lambda: HELD in cluster.reasons(job).values(), batch.logs)
    cluster.resume_drained()
    (batch.output / LOGS).mkdir(parents=True)  # where `submit` has them written
    (batch.output / LOGS / f"huggingtweets-{job}_0.out").touch()
    said = cluster.call("huggingtweets", "status", str(batch.output))
    assert f"task {job}_0 is held ({HELD})" in said
    release = f"scontrol release {job}_0"
    assert release in said
    cluster.call(*release.split())
    cluster.wait(job, batch.logs)
    assert batch.attempts(job, 0) == 1
    assert not list(cluster.marks.iterdir())


def test_tasks_of_a_node_that_was_down_for_seconds_end_without_help(
    test_cluster: Cluster, tmp_path: Path
) -> None:
    """SLURM may hold them: launch failed requeued held."""
    cluster, batch = test_cluster, Batch(tmp_path)
    body = """
    case $HUGGINGTWEETS_MARK in
        *_0) sleep 45 ;; # ends last, and looks after the others
        *) sleep 15 ;;
    esac
    echo 0 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"
    """
    job = start(cluster, batch, body, "--array=0-2", "--cpus-per-task=8")
    wait_for(lambda: all(batch.attempts(job, task) for task in range(3)), batch.logs)
    nodes = {cluster.node_of(f"{job}_{task}") for task in (1, 2)}
    for node in nodes:
        cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    time.sleep(2)
    for node in nodes:
        cluster.run("scontrol", "update", f"nodename={node}", "state=resume")
    seen: set[str] = set()

    def has_ended() -> bool:
        said = cluster.call("squeue", "-h", "-r", "-j", job, "-t", "PD", "-o", "%r")
        seen.update(said.splitlines())
        return not cluster.queue(job)

    wait_for(has_ended, batch.logs)
    assert all(batch.attempts(job, task) >= 2 for task in (1, 2)), (seen, batch.logs())
    held = [reason for reason in seen if "requeued held" in reason]
    assert not held or "it is let go" in batch.logs(), seen


def test_attempts_that_get_nowhere_come_to_an_end(cluster: Cluster, tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    body = """
    if [[ $HUGGINGTWEETS_MARK == *_1 && $HUGGINGTWEETS_ATTEMPT == 1 ]]; then
        touch "$HUGGINGTWEETS_MARK.progress-$HUGGINGTWEETS_ATTEMPT"
    fi
    kill -9 $$
    """
    job = run(cluster, batch, body, HUGGINGTWEETS_MAX_IDLE="2")
    assert [batch.attempts(job, task) for task in (0, 1)] == [2, 4], batch.logs()
    assert batch.logs().count("got 2 attempts in a row that finished nothing") == 2
    assert not list(cluster.marks.iterdir())


def test_a_failure_is_no_reason_to_start_again(cluster: Cluster, tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    body = 'echo 2 >"$HUGGINGTWEETS_MARK.exit-$HUGGINGTWEETS_ATTEMPT"; exit 1'
    job = run(cluster, batch, body)
    assert [batch.attempts(job, task) for task in (0, 1)] == [1, 1]


def test_gaps_in_an_array_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    batch = Batch(tmp_path)
    job = run(cluster, batch, "exit 9", "--array=0,2")
    assert "expected all of 0 to n-1" in batch.log(job, 2)
    assert batch.attempts(job, 2) == 1
    assert not list(cluster.marks.iterdir())


def test_sbatch_reads_every_line_as_it_stands() -> None:
    for path in (ROOT / "slurm").glob("*.sbatch"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
        assert len(lines) >= 9
        assert not [line for line in lines if "$" in line], "sbatch expands nothing"
        names = {line.split("=")[0] for line in lines}
        assert {"#SBATCH --signal", "#SBATCH --requeue", "#SBATCH --open-mode"} <= names
