"""Where the code may ask what kind of device it has, and that both answers are tested.

No module but `runtime/` looks at a device's type or calls `torch.cuda`. The places that ask
`runtime/device.py` are listed from the syntax trees; all of them then run both ways, and each must
have been told both "cpu" and "cuda".
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
from accelerate import Accelerator
from job_processes import write_posts
from software_cuda import installed
from stacked_reference import BASE, CPU, LAYOUT, ROW, T, build_jobs
from test_finishing_on_cuda import plan_for
from test_plan import plan_of
from test_single_on_cuda import learn
from test_trained import both, to_score

from huggingtweets.bases.model import find_base
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import Adapter, EngineKind
from huggingtweets.data.blocks import pack_posts
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.evaluation.score import try_stack
from huggingtweets.jobs.fused import run_fused
from huggingtweets.jobs.runner import choose_engine
from huggingtweets.jobs.tally import Tally
from huggingtweets.models.stack import build_stack
from huggingtweets.pipeline.stacking import choose_settings
from huggingtweets.pipeline.stages import run_job
from huggingtweets.runtime import device as runtime_device
from huggingtweets.training.launch import Batch
from huggingtweets.training.meter import peak_flops, peak_memory_gib
from huggingtweets.training.modules import cross_entropy
from huggingtweets.training.modules.cross_entropy import linear_cross_entropy, linear_hits
from huggingtweets.training.modules.hashed_dropout import HashedDropout
from huggingtweets.training.modules.loss import choose_attention
from huggingtweets.training.parallel.device_blocks import DeviceBlocks
from huggingtweets.training.stacked.grouped import GroupedTuning
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.sample import TextEnds, sample_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

PACKAGE = Path(__file__).parents[2] / "huggingtweets"
ASKS = {"is_cuda", "is_cpu", "by_kind"}
"""Functions of runtime/device.py whose answer is a branch."""
ALLOWED = {"runtime/device.py", "runtime/graphs.py", "upstream.py"}
BY_TENSOR = {
    "ops/fused_attention.py": "the kernel is that of where the tensors lie",
    "training/modules/cross_entropy.py": "autocast is switched off on the device of the tensor",
    "training/stacked/grouped.py": "autocast is switched off for the device of the tensor",
    "models/grouped.py": "autocast is switched on for the device of the model",
    "training/parallel/heldout.py": "autocast is switched on for the device of the model",
}
"""Modules that look at a tensor's own device, which cannot be forced, and why."""


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


def run_all(folder: Path) -> None:
    """Pass the places: both engines, what chooses for them, what measures them."""
    jobs = [replace(job, recipe=replace(job.recipe, max_steps=2)) for job in build_jobs()[:3]]
    settings = StackedSettings(2, micro_batch_size=1, block_size=T)
    assert (
        len(list(train_stacked(FullTuning(LAYOUT, ROW), iter(jobs), settings=settings, device=CPU)))
        == 3
    )
    adapters = [
        replace(one, recipe=replace(one.recipe, adapter=Adapter.lora, dropout=0.1)) for one in jobs
    ]
    tuning = GroupedTuning(BASE, 8, CPU, bos_id=0, block_size=T)
    assert len(list(train_stacked(tuning, iter(adapters), settings=settings, device=CPU))) == 3
    learn(isolate=True, graphed=True)
    learn(isolate=False, graphed=False)
    choose_attention(CPU, torch.float32, is_sharded=False, is_compiled=False)
    build_stack(LAYOUT, ROW.unsqueeze(0), torch.bfloat16)
    stack = build_stack(LAYOUT, ROW.unsqueeze(0), torch.float32)
    blocks, pieces = pack_posts([list(range(1, 40))] * 2, block_size=64, eos_id=0)
    try_stack(stack, HeldoutSet(blocks, 80, pieces, (40, 40)))
    sampling = SamplingConfig(min_new_tokens=12, max_new_tokens=12)
    vocab_size = LAYOUT.shape.vocab_size
    one, none = torch.ones(vocab_size, dtype=torch.int64), torch.zeros(vocab_size).bool()
    ends = TextEnds(one, none, [[1, 99]])  # one of two sequences ends before the other
    sample_stacked(stack, [[[0, 1], [0, 7]]], config=sampling, eos_id=0, seeds=[1], ends=ends)
    hidden, weight, targets = torch.ones(8, 4), torch.ones(16, 4), torch.arange(8)
    linear_hits(hidden, weight, targets)
    with mock.patch.object(cross_entropy, "FEW_LOGITS", 0):
        linear_cross_entropy(hidden, weight, targets)
    HashedDropout(0.1).train()(hidden)
    DeviceBlocks(jobs[0].training_set.blocks, Batch(1, 1, 1, 1), rank=0, device=CPU)
    peak_flops(CPU, None)
    peak_memory_gib(CPU)
    choose_settings(
        FullTuning(LAYOUT, ROW), plan_of("engine.slots=2", "recipe.block_size=32"), CPU, 2
    )
    run_jobs(folder)


def run_jobs(folder: Path) -> None:
    """Run a job by either engine, one as transformers' modules, and judge models."""
    write_posts(folder / "posts", "ann", "bob", "cat", num=20)
    plan, other = plan_for(folder, "ann", graphs=True), plan_for(folder, "bob")
    base, accelerator = find_base(plan.config.model), Accelerator(cpu=True)
    auto = replace(plan.config, engine=replace(plan.config.engine, kind=EngineKind.auto))
    assert choose_engine(auto, base, accelerator, num_jobs=2) is EngineKind.fused
    run_job(plan, accelerator, base)
    run_job(plan_for(folder, "cat", "engine.activation_checkpointing=true"), accelerator, base)
    tally = Tally(None, {})
    run_fused([other], base, CPU, tally)
    assert tally.exit_code == 0
    for model in both(plan, base, CPU):
        assert len(model.score(plan, base, to_score(base, ["one", "two"]), of_base=False)) == 2


def told(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
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
        run_all(folder)
        monkeypatch.undo()
    return asked


def test_both_answers_are_tried_at_every_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = defaultdict(set)
    for kind in ("cpu", "cuda"):
        monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))
        for place in told(kind, tmp_path / kind, monkeypatch):
            found[place].add(kind)
    listed = places()
    told_both = {place for place, kinds in found.items() if len(kinds) == 2}
    print(f"{len(listed)} places ask, {len(told_both & listed)} were told both answers here")
    missing = listed - told_both
    assert not missing, sorted(missing)
