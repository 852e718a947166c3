"""The real launchers: `accelerate launch` with our files, torchrun, two machines in miniature."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_processes import ROOT, SMALL, free_port, history, is_alive, write_posts

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

BIN = Path(sys.executable).parent
LIMIT_S = 400
"""DeepSpeed compiles an operator when it first runs on a CPU."""


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_posts(tmp_path_factory.mktemp("posts"), "ann")


def start(launcher: list[str], posts: Path, output: Path, **environment: str) -> subprocess.Popen:
    output.mkdir(exist_ok=True)
    arguments = [
        "user=ann",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
        *SMALL,
        "recipe.max_steps=20",
        "recipe.dropout=0.0",
        "engine.log_every=1",
    ]
    with (output / f"log-{time.monotonic_ns()}").open("w") as log:
        return subprocess.Popen(
            [str(BIN / launcher[0]), *launcher[1:], "train.py", *arguments],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
        )


def words(output: Path) -> str:
    return "\n".join(path.read_text()[-5000:] for path in sorted(output.glob("log-*")))


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in history(output / "ann") if "loss" in line]


@pytest.fixture(scope="module")
def reference(posts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    output = tmp_path_factory.mktemp("reference")
    cpu = ["accelerate", "launch", "--config_file", "launch/cpu.yaml"]
    assert start(cpu, posts, output).wait(LIMIT_S) == 0, words(output)
    return losses(output)


@pytest.mark.parametrize("name", ["multi_gpu", "zero1", "zero2", "zero3", "zero3_offload"])
def test_accelerate_launch_runs_each_file_on_two_processes(
    posts: Path, tmp_path: Path, reference: list[float], name: str
) -> None:
    launcher = ["accelerate", "launch", "--config_file", f"launch/{name}.yaml"]
    launcher += ["--num_processes", "2"]
    environment = {} if name.startswith("zero") else {"ACCELERATE_USE_CPU": "true"}
    assert start(launcher, posts, tmp_path, **environment).wait(LIMIT_S) == 0, words(tmp_path)
    assert losses(tmp_path) == pytest.approx(reference, abs=2e-5)


def test_two_machines_in_miniature(posts: Path, tmp_path: Path, reference: list[float]) -> None:
    port = str(free_port())
    machines = []
    for rank in (0, 1):
        launcher = ["accelerate", "launch", "--config_file", "launch/multi_node.yaml"]
        launcher += ["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(rank)]
        launcher += ["--main_process_ip", "127.0.0.2", "--main_process_port", port]
        environment = {"ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
        machines.append(start(launcher, posts, tmp_path, **environment))
    assert [machine.wait(LIMIT_S) for machine in machines] == [0, 0], words(tmp_path)
    assert losses(tmp_path) == pytest.approx(reference, abs=2e-5)


def test_torchrun_that_is_killed_leaves_nobody_and_can_be_started_again(
    posts: Path, tmp_path: Path, reference: list[float]
) -> None:
    launcher = ["torchrun", "--nproc_per_node", "2", f"--master_port={free_port()}"]
    killed = start(launcher, posts, tmp_path)
    job = tmp_path / "ann"
    while not (job / "metrics.jsonl").exists():
        assert killed.poll() is None, words(tmp_path)
        time.sleep(0.01)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    assert len(children) == 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    while any(is_alive(int(pid)) for pid in children):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.05)
    assert start(launcher, posts, tmp_path).wait(LIMIT_S) == 0, words(tmp_path)
    assert losses(tmp_path) == pytest.approx(reference, abs=2e-5)


def test_a_rank_that_no_launcher_started_is_refused(posts: Path, tmp_path: Path) -> None:
    environment = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    process = start(["python"], posts, tmp_path, **environment)
    assert process.wait(LIMIT_S) == 1
    assert "launch: the processes cannot be joined" in words(tmp_path)
    assert "Traceback" not in words(tmp_path)
