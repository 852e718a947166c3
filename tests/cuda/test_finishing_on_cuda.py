"""Lack of memory while models are sampled and judged: one by one, then the CPU; no job is lost.

The software device is `cpu:0`, the CPU it falls back to is `cpu`: what lies where is told by that.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from job_processes import SMALL, write_posts
from software_cuda import installed

from huggingtweets.bases.model import Base, OpenBase, find_base, load_model
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.evaluation import score
from huggingtweets.generation.guards import build_guards
from huggingtweets.handles import Job
from huggingtweets.jobs import fused
from huggingtweets.jobs.ledger import open_ledger
from huggingtweets.jobs.status import read_states
from huggingtweets.jobs.tally import Tally
from huggingtweets.pipeline import stacking, trained, whole_model
from huggingtweets.runtime import device as runtime_device
from huggingtweets.training.stacked import sample

GPU, CPU = torch.device("cpu", 0), torch.device("cpu")
HANDLES = ("ann", "bob", "carl")
FULL = torch.OutOfMemoryError("CUDA out of memory (injected)")
FULL_TOO = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
FULL_HOST = RuntimeError("DefaultCPUAllocator: can't allocate memory (injected)")

Fails = Callable[[Any, bool], Exception | None]
"""From the stack that is computed with, and whether it lies on the GPU, to what is raised."""


class Device:
    """Tells what finishing has on the GPU and on the CPU, and where memory runs out."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._lock = threading.Lock()
        self._at_once = 0
        self.most_at_once = 0
        """Calls that sampled or judged on the GPU at the same time."""
        self.raised = 0
        self.threads: tuple[str, ...] = ("sample", "finish")
        self.done_on: list[str] = []

    @property
    def is_gpu(self) -> bool:
        return getattr(self._own, "is_gpu", True)

    def kind_of(self, device: torch.device) -> str:
        return "cuda" if device.index == 0 or self.is_gpu else "cpu"

    def goes_to(self, device: torch.device) -> None:
        self._own.is_gpu = device.index == 0

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            is_gpu = self.is_gpu
            with self._lock:
                self._at_once += is_gpu
                self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                found = function(*args, **kwargs)
            finally:
                with self._lock:
                    self._at_once -= is_gpu
            self.done_on.append("cuda" if is_gpu else "cpu")
            return found

        return call

    def scarce(self, function: Callable[..., Any], fails: Fails) -> Callable[..., Any]:
        def call(stack: Any, *args: Any, **kwargs: Any) -> Any:
            is_finishing = threading.current_thread().name.startswith(self.threads)
            error = fails(stack, self.is_gpu) if is_finishing else None
            if error is not None:
                self.raised += 1
                raise error
            return function(stack, *args, **kwargs)

        return call


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device()
    new_stream, to = trained.new_stream, whole_model._on

    def stream(where: torch.device) -> Any:
        device.goes_to(where)
        return new_stream(where)

    def on(where: torch.device, model: Any) -> Any:
        device.goes_to(where)
        return to(CPU, model)

    with installed(), monkeypatch.context() as patch:
        patch.setattr(runtime_device, "kind_of", device.kind_of)
        patch.setattr(trained, "new_stream", stream)
        patch.setattr(whole_model, "_on", on)
        patch.setattr(stacking, "trusted", lambda settings, *_, **__: settings)  # see test_look.py
        patch.setattr(trained, "sample_stack", device.counted(trained.sample_stack))
        patch.setattr(trained, "score_stack", device.counted(trained.score_stack))
        patch.setattr(trained, "try_stack", device.counted(trained.try_stack))
        yield device


def plan_for(folder: Path, handle: str, *changes: str, graphs: bool = False) -> Plan:
    words = [*SMALL, "engine.slots=3", "recipe.max_steps=3", "recipe.dropout=0"]
    words += ["source=jsonl", f"source.path={folder / 'posts'}", f"output_dir={folder / 'out'}"]
    words += ["sampling.num=2", "sampling.max_new_tokens=6", "sampling.min_new_tokens=0"]
    words += ["sampling.prompts=[red]", "sampling.block_copies=0", "engine.log_every=3"]
    words += [f"engine.cuda_graphs={graphs}"]  # of training; sampling has its own
    config = to_config(compose_config([*words, f"user={handle}", *changes]))
    return make_plan(config, Job((handle,)))


def run(folder: Path, device: torch.device, *changes: str) -> dict[str, Any]:
    """Run some users and return what became of each; their samples lie in the folder."""
    register()
    write_posts(folder / "posts", *HANDLES, num=200)  # more than training scores by itself
    plans = [plan_for(folder, handle, *changes) for handle in HANDLES]
    with open_ledger(folder / "out") as ledger:
        fused.run_fused(plans, find_base(plans[0].config.model), device, Tally(ledger, {}))
    return read_states(folder / "out")


def samples(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {
        handle: [
            json.loads(line)
            for line in (folder / "out" / handle / "predictions.jsonl").read_text().splitlines()
        ]
        for handle in HANDLES
    }


def test_no_job_is_lost_where_neither_sampling_nor_judging_finds_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "cpu", CPU)

    def fails(stack: Any, is_gpu: bool) -> Exception | None:
        return FULL if is_gpu else None

    with watched(monkeypatch) as device:
        for module, name in ((sample, "decode_step"), (score, "score_rows")):
            monkeypatch.setattr(module, name, device.scarce(getattr(module, name), fails))
        states = run(tmp_path / "gpu", GPU, "publish=local")
    assert {name: state.status.value for name, state in states.items()} == dict.fromkeys(
        HANDLES, "done"
    ), [state.reason for state in states.values()]
    assert device.raised > len(HANDLES)
    assert set(device.done_on) == {"cpu"}
    assert len(device.done_on) >= 2 * len(HANDLES)  # samples, known posts
    assert device.most_at_once == 1
    assert samples(tmp_path / "gpu") == samples(tmp_path / "cpu")


def test_a_job_that_finds_memory_nowhere_fails_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    with watched(monkeypatch) as device:

        def fails(stack: Any, is_gpu: bool) -> Exception | None:
            if is_gpu:
                return FULL_TOO
            return FULL_HOST if device.raised <= 2 else None  # the first that tries the CPU

        monkeypatch.setattr(sample, "decode_step", device.scarce(sample.decode_step, fails))
        states = run(tmp_path, GPU)
    found = sorted(state.status.value for state in states.values())
    assert set(found) <= {"done", "failed"}
    assert found.count("done") >= len(HANDLES) - 1
    for state in states.values():
        if state.status.value == "failed":
            assert "can't allocate memory" in state.reason
            assert state.retryable


@pytest.fixture
def models(tmp_path: Path) -> tuple[list[trained.StackedModel], list[Plan], Base]:
    register()
    write_posts(tmp_path / "posts", *HANDLES)
    plans = [plan_for(tmp_path, handle) for handle in HANDLES]
    base = find_base(plans[0].config.model)
    model = load_model(base, plans[0].config.recipe).eval()
    studio = trained.Studio(OpenBase.of(model), GPU)
    state = model.state_dict()
    built = [{name: w * (1 + k) for name, w in state.items()} for k in range(3)]
    return [trained.StackedModel(weights, studio) for weights in built], plans, base


@pytest.mark.parametrize(
    ("fails", "done_on"),
    [
        (lambda stack, is_gpu: FULL if is_gpu and len(stack.rows) > 1 else None, ["cuda"] * 3),
        (lambda stack, is_gpu: FULL_TOO if is_gpu else None, ["cpu"] * 3),
    ],
    ids=["none for many", "none at all"],
)
def test_samples_are_the_same_wherever_there_is_memory(
    models: tuple[list[trained.StackedModel], list[Plan], Base],
    monkeypatch: pytest.MonkeyPatch,
    fails: Fails,
    done_on: list[str],
) -> None:
    users, plans, base = models
    guards = [build_guards(plan.sampling, mask_pii=False, train=[]) for plan in plans]
    cpu = trained.Studio(users[0].studio.base, CPU)
    expected = [
        trained.StackedModel(user.weights, cpu).sample(plan, base, guard)
        for user, plan, guard in zip(users, plans, guards, strict=True)
    ]
    with watched(monkeypatch) as device:
        device.threads = ("MainThread",)
        users[0].studio.turn = trained.Studio(cpu.base, GPU).turn
        monkeypatch.setattr(sample, "decode_step", device.scarce(sample.decode_step, fails))
        found = trained.sample_together(users, plans, base, guards)
    assert device.raised
    assert device.done_on == done_on
    assert found == expected


def test_the_best_of_several_goes_to_the_cpu_too(
    models: tuple[list[trained.StackedModel], list[Plan], Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    users, plans, base = models
    plan = plans[0]
    plan = replace(plan, sampling=replace(plan.sampling, best_of=2, num=1))
    guards = build_guards(plan.sampling, mask_pii=False, train=[])
    sample_posts, places = whole_model.sample_posts, []

    with watched(monkeypatch) as device:

        def scarce(*args: Any, **kwargs: Any) -> Any:
            places.append(device.is_gpu)
            if device.is_gpu:
                raise FULL
            return sample_posts(*args, **kwargs)

        monkeypatch.setattr(whole_model, "sample_posts", scarce)
        found = users[0].sample(plan, base, guards)
    assert places == [True, False]
    assert len(found.predictions) == len(plan.sampling.prompts)
