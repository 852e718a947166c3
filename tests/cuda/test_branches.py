"""Where the code may ask what kind of device it has, and that both answers are tested.

No module but `runtime/` looks at a device's type or calls `torch.cuda`. The places that ask
`runtime/device.py` are listed from the syntax trees; both engines then run both ways, and each
place they pass must have been told both "cpu" and "cuda".
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from array_reference import CPU, LAYOUT, ROW, T, build_jobs
from software_cuda import installed
from test_plan import plan_of
from test_single_on_cuda import learn

from huggingtweets.config.schema import SamplingConfig
from huggingtweets.jobs.fused import choose_settings
from huggingtweets.models.stack import build_stack
from huggingtweets.runtime import device as runtime_device
from huggingtweets.training import cross_entropy
from huggingtweets.training.array.loop import ArraySettings, train_array
from huggingtweets.training.array.sample import sample_array
from huggingtweets.training.cross_entropy import linear_cross_entropy, linear_hits
from huggingtweets.training.device_blocks import DeviceBlocks
from huggingtweets.training.hashed_dropout import HashedDropout
from huggingtweets.training.launch import Batch
from huggingtweets.training.loss import choose_attention
from huggingtweets.training.meter import peak_flops, peak_memory_gib

PACKAGE = Path(__file__).parents[2] / "huggingtweets"
ASKS = {"is_cuda", "is_cpu", "by_kind"}
"""Functions of runtime/device.py whose answer is a branch."""
ALLOWED = {"runtime/device.py", "runtime/graphs.py"}
BY_TENSOR = {
    "training/array/fused_attention.py": "a table of kernels, by where the tensors lie",
    "training/cross_entropy.py": "autocast is switched off on the device of the tensor",
    "training/heldout.py": "autocast is switched on for the device of the model",
}
"""Modules that look at a tensor's own device, which cannot be forced, and why."""
ELSEWHERE = {"training/array/sample.py"}
"""Asks when a sequence has ended before the others, which these short samples need not come to."""
BOTH_WAYS = ("training/array/", "training/loss.py", "training/graphs.py", "training/meter.py")
BOTH_WAYS += ("ops/", "training/cross_entropy.py", "training/hashed_dropout.py")
BOTH_WAYS += ("training/device_blocks.py",)
"""Where each place must have been told both in this file. Those of the others are in
`tests/jobs`, `tests/test_trained.py` and the rehearsal of the acceptance."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def questions(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines that ask PyTorch about the device: `x.device.type`, `x.is_cuda`, `torch.cuda`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text, owner = ast.unparse(node), ast.unparse(node.value)
            is_type = node.attr == "type" and owner.split(".")[-1].strip("_").endswith("device")
            if is_type or node.attr == "is_cuda" or text == "torch.cuda":
                found.append((node.lineno, text))
    return found


def test_no_module_asks_by_itself() -> None:
    wrong = [
        f"{name}:{line}: {what}; ask runtime/device.py"
        for name, tree in trees()
        if name not in ALLOWED | BY_TENSOR.keys()
        for line, what in questions(tree)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rule_sees_a_question() -> None:
    code = "if self._device.type == 'cuda' or x.is_cuda: torch.cuda.synchronize()"
    assert len(questions(ast.parse(code))) == 3
    assert not questions(ast.parse("is_cuda(device); DistributedType.MULTI_GPU; event.type"))


def places() -> set[tuple[str, int]]:
    """Every line of the package, outside `runtime/`, that asks which kind of device there is."""
    return {
        (name, node.lineno)
        for name, tree in trees()
        if name not in ALLOWED
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKS
    }


def run_all() -> None:
    """Pass the places: both engines, what chooses for them, what measures them."""
    jobs = [replace(job, recipe=replace(job.recipe, max_steps=2)) for job in build_jobs()[:3]]
    settings = ArraySettings(2, micro_batch_size=1, block_size=T)
    assert len(list(train_array(LAYOUT, ROW, iter(jobs), settings=settings, device=CPU))) == 3
    learn(isolate=True, graphed=True)
    choose_attention(CPU, torch.float32, is_sharded=False, is_compiled=False)
    stack = build_stack(LAYOUT, ROW.unsqueeze(0), torch.float32)
    likeliest = SamplingConfig(top_p=1e-9, min_new_tokens=0, max_new_tokens=4)
    prompts = [[[0, 1], [0, 7]]]
    drawn = sample_array(stack, prompts, config=likeliest, eos_id=0, seeds=[1])
    eos_id = drawn[0][0][0]  # so that one of two sequences ends before the other
    sample_array(stack, prompts, config=likeliest, eos_id=eos_id, seeds=[1])
    hidden, weight, targets = torch.ones(8, 4), torch.ones(16, 4), torch.arange(8)
    linear_hits(hidden, weight, targets)
    with mock.patch.object(cross_entropy, "FEW_LOGITS", 0):
        linear_cross_entropy(hidden, weight, targets)
    HashedDropout(0.1).train()(hidden)
    DeviceBlocks(jobs[0].training_set.blocks, Batch(1, 1, 1), rank=0, device=CPU)
    peak_flops(CPU, None)
    peak_memory_gib(CPU)
    choose_settings(LAYOUT, plan_of("engine.slots=2", "recipe.block_size=32"), CPU, 2)


def told(kind: str, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """Run everything on a device of a kind and return the places that asked for it."""
    asked = set()

    def answer(device: torch.device) -> str:
        frame = sys._getframe(2)  # behind is_cuda, is_cpu or by_kind
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            asked.add((path.relative_to(PACKAGE).as_posix(), frame.f_lineno))
        return kind

    with installed() if kind == "cuda" else nullcontext():
        monkeypatch.setattr(runtime_device, "kind_of", answer)
        run_all()
        monkeypatch.undo()
    return asked


def test_both_answers_are_tried_at_every_place_of_the_engines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = defaultdict(set)
    for kind in ("cpu", "cuda"):
        monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))
        for place in told(kind, monkeypatch):
            found[place].add(kind)
    listed = places()
    of_engines = {place for place in listed if place[0].startswith(BOTH_WAYS)}
    of_engines = {place for place in of_engines if place[0] not in ELSEWHERE}
    both = {place for place, kinds in found.items() if len(kinds) == 2}
    print(f"{len(listed)} places ask, {len(both & listed)} were told both answers here")
    missing = of_engines - both
    assert not missing, sorted(missing)
