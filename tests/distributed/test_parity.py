"""One recipe, one result: however many processes, micro-batches or shares a model is cut into."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from job_processes import (
    FSDP2,
    SMALL,
    deepspeed_environment,
    fsdp_on_a_cpu,
    history,
    run,
    write_posts,
)
from safetensors.torch import load_file

STEPS = 20
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_posts(tmp_path_factory.mktemp("posts"), "ann")


@pytest.fixture(scope="module")
def train(posts: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train 20 steps, of 8 blocks each, and return the job's folder."""

    def train(
        *overrides: str,
        world: int = 1,
        launch: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Path:
        output = tmp_path_factory.mktemp("out")
        environment, prepare = dict(environment), None
        if launch == "fsdp2":
            environment, prepare = FSDP2, fsdp_on_a_cpu
        elif launch:
            environment = deepspeed_environment(launch)
        arguments = [
            "user=ann",
            "source=jsonl",
            f"source.path={posts}",
            f"output_dir={output}",
            *SMALL,
            f"recipe.max_steps={STEPS}",
            "recipe.global_batch_size=8",
            "recipe.epochs=6",
            "recipe.dropout=0.0",
            "engine.log_every=1",
            *overrides,
        ]
        run(arguments, world, environment=environment, prepare=prepare, log=output / "log")
        return output / "ann"

    return train


@pytest.fixture(scope="module")
def reference(train: Train) -> Path:
    """One process, the whole batch at once."""
    return train("engine.micro_batch_size=8")


def losses(job: Path) -> torch.Tensor:
    return torch.tensor([line["loss"] for line in history(job) if "loss" in line])


def assert_equal(job: Path, reference: Path, tolerance: float) -> None:
    """Losses of every step, and the final weights."""
    assert len(losses(job)) == STEPS
    torch.testing.assert_close(losses(job), losses(reference), rtol=0, atol=tolerance)
    ours, theirs = (load_file(j / "model/model.safetensors") for j in (job, reference))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=tolerance, msg=name)


FP32 = 2e-5
BF16 = 2e-2


@pytest.mark.parametrize("overrides", [("isolate",), ("joined",)], ids=lambda o: o[0])
def test_the_cut_into_micro_batches_does_not_matter(
    train: Train, reference: Path, overrides: tuple[str, ...]
) -> None:
    # Packed posts leave blocks, and so micro-batches, with unequal numbers of targets.
    option = f"recipe.isolate_documents={str(overrides[0] == 'isolate').lower()}"
    whole = train(option, "engine.micro_batch_size=8")
    assert_equal(train(option, "engine.micro_batch_size=2"), whole, FP32)


@pytest.mark.distributed
def test_two_processes_equal_one(train: Train, reference: Path) -> None:
    two = train("engine.micro_batch_size=2", world=2)
    assert_equal(two, reference, FP32)
    steps = [[(line["step"], line.get("lr"), line["epoch"]) for line in history(job)]
             for job in (two, reference)]  # fmt: skip
    assert steps[0] == steps[1], "schedule and epochs are a matter of the step alone"


@pytest.mark.distributed
def test_one_process_under_torchrun_trains_as_one_alone(train: Train, reference: Path) -> None:
    launched = train("engine.micro_batch_size=8", environment={"WORLD_SIZE": "1"})
    assert_equal(launched, reference, FP32)


@pytest.mark.distributed
@pytest.mark.parametrize("launch", [None, "zero2", "fsdp2"])
def test_more_processes_than_blocks_change_nothing(train: Train, launch: str | None) -> None:
    alone = train("recipe.global_batch_size=1")
    two = train("recipe.global_batch_size=1", world=2, launch=launch)
    assert_equal(two, alone, FP32)
    assert "keeps 1 of 2 processes busy" in (two.parent / "log").read_text()


@pytest.mark.distributed
def test_a_batch_that_cannot_be_divided_evenly_changes_nothing(train: Train) -> None:
    three = ("recipe.global_batch_size=3", "recipe.block_size=16")
    two = train(*three, "engine.micro_batch_size=1", world=2)
    assert_equal(two, train(*three), FP32)
    assert (two.parent / "log").read_text().count("are cut") == 1, "the processes speak as one"


@pytest.mark.distributed
@pytest.mark.parametrize(
    "stage", [pytest.param("zero1", marks=pytest.mark.slow), "zero2", "zero3", "fsdp2"]
)
def test_a_model_in_shares_equals_a_whole_one(train: Train, reference: Path, stage: str) -> None:
    assert_equal(train("engine.micro_batch_size=2", world=2, launch=stage), reference, FP32)


@pytest.mark.distributed
def test_fsdp2_sums_losses_in_fp32_where_products_are_bf16(train: Train) -> None:
    """A summed loss in bf16 has 8 bits, 1368.0 for 1369.72, and so would evaluations."""
    ours, theirs = (
        losses(train("engine.precision=bf16", world=2, launch=launch)) for launch in ("fsdp2", None)
    )
    difference = (ours / theirs - 1).abs()[:5]
    assert float(difference.max()) < 4e-4, difference  # 8 bits: up to 2e-3


@pytest.mark.distributed
@pytest.mark.parametrize("given", ["file", "option"])
def test_deepspeed_that_shares_out_nothing_equals_one_process(
    train: Train, reference: Path, tmp_path: Path, given: str
) -> None:
    file = tmp_path / "zero0.json"
    zero1 = Path(deepspeed_environment("zero1")["ACCELERATE_DEEPSPEED_CONFIG_FILE"])
    file.write_text(zero1.read_text().replace('"stage": 1', '"stage": 0'))
    says = {
        "file": {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)},
        "option": {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"},
    }[given]
    job = train(
        "engine.micro_batch_size=2",
        world=2,
        environment={"ACCELERATE_USE_DEEPSPEED": "true"} | says,
    )
    assert_equal(job, reference, FP32)
    assert "ZeRO stage 0 shares out nothing" in (job.parent / "log").read_text()


@pytest.mark.distributed
@pytest.mark.slow
def test_offload_equals_one_process(train: Train, reference: Path) -> None:
    assert_equal(train(world=2, launch="zero3_offload"), reference, FP32)


@pytest.mark.slow
@pytest.mark.distributed
def test_bf16_is_near_fp32(train: Train, reference: Path) -> None:
    bf16 = "engine.precision=bf16"
    assert_equal(train(bf16), reference, BF16)
    assert_equal(train(bf16, world=2), reference, BF16)
    assert_equal(train(bf16, world=2, launch="zero2"), reference, BF16)


@pytest.mark.distributed
def test_the_seed_alone_decides_the_order(train: Train, reference: Path) -> None:
    other = train("seed=43", world=2)
    assert (losses(other) - losses(reference)).abs().max() > 1e-3
