"""What `huggingtweets submit` refuses, before anything is queued."""

import os
import shlex
from pathlib import Path

import pytest
from cluster import RECIPE, Cluster

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["user=file:{folder}/user.txt"], "did you mean {folder}/users.txt?"),
        (["user=file:{folder}/bad.txt"], "bad.txt line 2: got 'handle!'"),
        (["recipe.lrr=1"], "did you mean recipe.lr?"),
        (["source.path={folder}/nowhere"], "nowhere does not exist"),
        (["--partition", "nowhere"], "invalid partition specified: nowhere"),
        (["--launch", "launch/zero9.yaml"], "got launch/zero9.yaml, which is not there"),
        (["--tasks", "0"], "--tasks: got 0; expected 1 or more"),
        (["--time", "soon"], "Invalid --time specification"),
        (["shard=0/2"], "each task gets its share"),
    ],
    ids=lambda value: value[-1].rpartition("/")[2] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_nothing_is_queued(
    cluster: Cluster, shared: Path, tmp_path: Path, change: list[str], sentence: str
) -> None:
    (tmp_path / "users.txt").write_text("nasa\n")
    (tmp_path / "bad.txt").write_text("nasa\nno handle!\n")
    words = [f"user=file:{tmp_path}/users.txt", f"source.path={shared / 'tweets'}"]
    words += [*RECIPE, f"output_dir={tmp_path / 'out'}", "consent=permission"]
    words += [word.format(folder=tmp_path) for word in change]
    name = f"mistake-{os.getpid()}"
    done = cluster.run("huggingtweets", "submit", f"--sbatch=--job-name={name}", *words)
    assert done.returncode == 2
    assert sentence.format(folder=tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not cluster.call("squeue", "-h", "-n", f"{name},huggingtweets-last", "-o", "%i")


def test_dry_run_shows_commands_that_sbatch_takes(
    cluster: Cluster, shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "users.txt").write_text("nasa\noreo\n")
    words = [f"user=file:{tmp_path}/users.txt", f"source.path={shared / 'tweets'}", *RECIPE]
    words += [f"output_dir={tmp_path / 'out'}", "consent=permission", "--dry-run", "--tasks=2"]
    said = cluster.call("huggingtweets", "submit", *words, "--at-once=1", "--gpus-per-node=1")
    first, last = (shlex.split(line) for line in said.splitlines() if "sbatch" in line)
    assert "--array=0-1%1" in first
    assert "--dependency=afterany:JOB" in last
    assert last[-1] == "only_curable=true"
    assert not (tmp_path / "out").exists()
    place = first.index("sbatch")
    taken = cluster.run(*first[place : place + 2], "--test-only", *first[place + 2 :])
    assert "to start at" in taken.stderr
