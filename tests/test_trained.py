"""A trained model is lent to be judged: on the job's device, beside its base."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from small import SMALL_MODEL

from huggingtweets import pipeline
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.data.split import Split
from huggingtweets.generation.samples import Samples
from huggingtweets.handles import Job
from huggingtweets.trained import StackedModel, Studio, Trained, WholeModel
from huggingtweets.training.array.layout import layout_of, shape_of
from huggingtweets.training.model import Base, find_base, load_model

register()
CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(
        torch.device("cuda"),
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


@pytest.fixture(scope="module")
def job() -> tuple[Plan, Base]:
    config = to_config(compose_config(["user=demo", *SMALL_MODEL, "recipe.block_size=64"]))
    return make_plan(config, Job.of(["demo"])), find_base(config.model)


def both(plan: Plan, base: Base, device: torch.device) -> list[Trained]:
    """One trained model as either engine leaves it: the base with its weights doubled."""
    model = load_model(base, plan.recipe)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    original = load_model(base, plan.recipe).eval()
    studio = Studio(original, layout_of(shape_of(original.config)), device)
    return [WholeModel(model.eval(), device), StackedModel(weights, studio)]


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_either_engine_lends_model_and_base_on_one_device(
    job: tuple[Plan, Base], device: torch.device
) -> None:
    for trained in both(*job, device):
        for where in (None, CPU, None):
            with trained.beside_base(*job, where) as (model, original):
                expected = where or device
                assert model.device.type == original.device.type == expected.type
                for ours, theirs in zip(model.parameters(), original.parameters(), strict=True):
                    assert torch.equal(ours, 2 * theirs)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_model_is_judged_as_well_on_any_device(
    job: tuple[Plan, Base], device: torch.device
) -> None:
    prepared = SimpleNamespace(split=Split((("one post", "two posts more"),), (("a third",),)))
    judged = [
        pipeline.judge_job(*job, prepared, trained, Samples(()))[0].model  # type: ignore[arg-type]
        for trained in (*both(*job, device), *both(*job, CPU))
    ]
    bits = [model.bits_per_byte.low for model in judged if model.bits_per_byte]
    assert len(bits) == 4
    assert bits == pytest.approx([bits[-1]] * 4, rel=1e-4)


def test_what_finds_no_memory_on_the_device_is_judged_on_the_cpu(
    job: tuple[Plan, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device | None] = []

    class Lent:
        @contextmanager
        def beside_base(
            self, plan: Plan, base: Base, device: torch.device | None = None
        ) -> Iterator[tuple[None, None]]:
            asked.append(device)
            if device is None:
                raise torch.OutOfMemoryError("no memory")
            yield None, None

    monkeypatch.setattr(pipeline, "evaluate_quality", lambda *_, **__: "judged")
    prepared = SimpleNamespace(split=Split(((),), ((),)))
    assert pipeline.judge_job(*job, prepared, Lent(), Samples(())) == "judged"  # type: ignore[arg-type]
    assert asked == [None, CPU]
