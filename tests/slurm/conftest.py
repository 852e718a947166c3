"""One cluster for all tests of this folder, and an undisturbed batch to compare with."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import BIN, USERS, Batch, Cluster, status
from small import ROOT

SETTINGS = {
    "SLURM_TEST_NODES": "4",
    "SLURM_TEST_GPUS": "2",
    # As on a usual cluster; saving takes its time where two cores carry all nodes.
    "SLURM_TEST_KILL_WAIT": "30",
}


@pytest.fixture(scope="session")
def cluster(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The test script's cluster; with HUGGINGTWEETS_SLURM=own that of the machine.

    There the folder for temporary files has to lie where all nodes see it (--basetemp), and
    HUGGINGTWEETS_SBATCH may hold options of sbatch, such as `--partition=debug`.
    """
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "VIRTUAL_ENV": str(BIN.parent),  # or env.sh puts .venv before a stand-in for the launcher
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HUGGINGTWEETS_MARKS": str(tmp_path_factory.mktemp("marks")),
        "HUGGINGTWEETS_CACHE": os.environ["HUGGINGTWEETS_CACHE"],
        "SBATCH_MEM_PER_NODE": "1000",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    marks = Path(environment["HUGGINGTWEETS_MARKS"])
    if os.environ.get("HUGGINGTWEETS_SLURM") == "own":
        del environment["GLOO_SOCKET_IFNAME"], environment["SBATCH_MEM_PER_NODE"]
        options = tuple(os.environ.get("HUGGINGTWEETS_SBATCH", "").split())
        yield Cluster(None, marks, options, environment)
        return
    script = shared / "slurm" / "start-test-cluster"
    if not script.is_file():
        pytest.skip(f"no test cluster at {script} (see docs/slurm.md for one's own)")
    if os.geteuid() != 0:
        pytest.skip("a test cluster can be started by root only (see docs/slurm.md for one's own)")
    prolog = tmp_path_factory.mktemp("prolog") / "prolog"
    prolog.write_text(f"#!/bin/sh\n! rm {prolog}.fails 2>/dev/null\n")
    prolog.chmod(0o755)
    settings = {**os.environ, **SETTINGS, "SLURM_TEST_EXTRA_CONF": f"Prolog={prolog}"}
    started = subprocess.run([script, "start"], env=settings, capture_output=True, text=True)
    if started.returncode != 0:
        pytest.skip(f"SLURM cannot be had here: {started.stderr.strip().splitlines()[-1]}")
    # Jobs share few cores: none is refused for want of those a script asks for.
    yield Cluster(script, marks, ("--cpus-per-task=1",), environment, prolog)
    subprocess.run([script, "stop"], env=settings, check=True)


@pytest.fixture(scope="session")
def test_cluster(cluster: Cluster) -> Cluster:
    """A cluster that may be disturbed."""
    if cluster.script is None:
        pytest.skip("crashes nodes and preempts jobs, which is for the test cluster alone")
    return cluster


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A users file of 24 real accounts."""
    path = tmp_path_factory.mktemp("users") / "users.txt"
    path.write_text("\n".join(USERS) + "\n")
    return path


@pytest.fixture(scope="session")
def undisturbed(
    cluster: Cluster, users: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Batch:
    """24 users on four tasks, by `huggingtweets submit`; one fails at first and is retried."""
    batch = Batch(tmp_path_factory.mktemp("undisturbed"))
    batch.output.mkdir()
    obstacle = batch.output / "oreo"
    obstacle.symlink_to(obstacle)  # no folder can be made where a link leads to itself
    command = ["submit", "--tasks", "4", "--gpus-per-node", "1", "--time", "60"]
    command += [f"--sbatch={option}" for option in cluster.options]
    said = cluster.call("huggingtweets", *command, *batch.arguments(users, shared))
    (batch.folder / "said").write_text(said)
    queued = next(line for line in said.splitlines() if line.startswith("queued"))
    first, last = queued.removeprefix("queued").split(", then ")
    cluster.wait(first.strip(), batch.logs)
    failed = status(cluster, batch)
    (batch.folder / "before-the-last.json").write_text(json.dumps(failed))
    obstacle.unlink()
    cluster.wait(last.strip(), batch.logs)
    return batch
