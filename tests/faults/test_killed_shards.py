"""Killed while every process holds but a share of the model: ZeRO and FSDP2."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
from job_processes import (
    FSDP2,
    SMALL,
    Running,
    Start,
    deepspeed_environment,
    fsdp_on_a_cpu,
    history,
    run,
    slow_disk,
    weights_digest,
    write_posts,
)
from safetensors.torch import load_file
from torch.testing import assert_close

from huggingtweets.training.checkpoints.checkpoint import open_checkpoint

ENVIRONMENTS = {
    "zero1": deepspeed_environment("zero1"),
    "zero2": deepspeed_environment("zero2"),
    "zero3": deepspeed_environment("zero3"),
    "fsdp2": FSDP2,
}


def slow_fsdp() -> None:
    slow_disk()
    fsdp_on_a_cpu()


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_posts(tmp_path_factory.mktemp("posts"), "ann")


def arguments(posts: Path, output: Path, *overrides: str) -> list[str]:
    return [
        "user=ann",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
        *SMALL,
        "engine.save_every_s=0.05",
        *overrides,
    ]


def options(launch: str) -> dict[str, Any]:
    is_fsdp = launch == "fsdp2"
    return {
        "environment": ENVIRONMENTS[launch],
        "prepare": slow_fsdp if is_fsdp else slow_disk,
    }


def kill_after_saves(running: Running, job: Path, num: int) -> bool:
    """Kill a rank once it has saved so often more; false if it came to its end before."""
    seen = {path.name for path in job.glob("checkpoints/step-*")}
    while num and running.is_running():
        now = {path.name for path in job.glob("checkpoints/step-*")}
        num -= bool(now - seen)
        seen |= now
        time.sleep(0.002)
    if not running.is_running():
        return False
    running.kill(running.ranks[num % 2])
    running.wait()
    return True


@pytest.mark.distributed
@pytest.mark.parametrize(
    "launch",
    [*(pytest.param(f"zero{n}", marks=pytest.mark.slow) for n in (1, 2, 3)), "fsdp2"],
)
def test_a_killed_sharded_job_ends_as_an_undisturbed_one(
    posts: Path, tmp_path: Path, launch: str
) -> None:
    reference, output = tmp_path / "reference", tmp_path / "killed"
    for folder in (reference, output):
        folder.mkdir()
    options_ = options(launch)
    dropout = "recipe.dropout=0.1"
    run(arguments(posts, reference, dropout), 2, log=reference / "log", **options_)
    job, log = output / "ann", output / "log"
    rng = random.Random(launch)
    for _ in range(3):
        running = Running(Start(arguments(posts, output, dropout), 2, log=log, **options_))
        if not kill_after_saves(running, job, rng.randint(1, 2)):
            break
    assert "resume at step=" in log.read_text() or not (job / "result.json").exists()
    newest = max(job.glob("checkpoints/step-*"), default=None)
    if newest:
        assert open_checkpoint(newest).num_parts == 2, "each process its own share"
    run(arguments(posts, output, dropout), 2, log=log, **options_)
    assert "resume at step=" in log.read_text()
    assert weights_digest(job) == weights_digest(reference / "ann")
    assert history(job) == history(reference / "ann")
    assert [path.name for path in (job / "model").glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.distributed
@pytest.mark.parametrize("launch", ["zero3", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_what_shares_began_one_process_ends(posts: Path, tmp_path: Path, launch: str) -> None:
    reference, output = tmp_path / "reference", tmp_path / "moved"
    for folder in (reference, output):
        folder.mkdir()
    run(arguments(posts, reference, "recipe.dropout=0.0"), log=reference / "log")
    job, log = output / "ann", output / "log"
    steady = arguments(posts, output, "recipe.dropout=0.0")
    running = Running(Start(steady, 2, log=log, **options(launch)))
    assert kill_after_saves(running, job, 2), "it was killed"
    run(steady, log=log)
    assert "resume on 1 processes what 2 began" in log.read_text()
    ours, theirs = (
        load_file(folder / "ann/model/model.safetensors") for folder in (output, reference)
    )
    for name, tensor in theirs.items():
        assert_close(ours[name], tensor, rtol=0, atol=5e-5, msg=name)
