"""One Ctrl-C at the terminal of an interactive step: everything is saved, and said last."""

import sys
from pathlib import Path

import pytest
from at_a_terminal import check_ctrl_c
from cluster import Cluster

pytestmark = pytest.mark.slurm


def test_one_ctrl_c_under_srun(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in cluster.environment.items():
        monkeypatch.setenv(key, value)
    step = ["srun", "--pty", "--ntasks=1", "--cpus-per-task=1", "--gpus-per-node=0"]
    check_ctrl_c(tmp_path, ["/usr/bin/env", *step, sys.executable], step_s=4, wait_s=1)
