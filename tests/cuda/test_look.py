"""The look before the leap: what computes something else on a device is left out, and said."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from software_cuda import CUDAGraph, installed
from stacked_reference import CPU, LAYOUT, ROW
from test_plan import plan_of
from transformers import GPT2Config

from huggingtweets.errors import TrainingError
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.ops.linear import Linear
from huggingtweets.ops.reference import TRITON, Ops
from huggingtweets.pipeline import stacking
from huggingtweets.training.stacked import look
from huggingtweets.training.stacked import tuning as tuning_module
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

SETTINGS = StackedSettings(8, micro_batch_size=1, block_size=64)
HEAD_WIDTH = LAYOUT.shape.head_width


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Iterator[None]:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path))
    with installed():
        yield


def test_a_device_that_computes_right_is_trusted_and_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert look.trusted(SETTINGS, HEAD_WIDTH, CPU) == SETTINGS
    monkeypatch.setattr(look, "_look", None)  # would raise
    assert look.trusted(SETTINGS, HEAD_WIDTH, CPU) == SETTINGS


@pytest.mark.parametrize("rank", [0, 4], ids=["all weights", "adapters"])
def test_graphs_that_do_nothing_are_left_out(
    rank: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CUDAGraph, "replay", lambda self: None)
    with caplog.at_level(logging.WARNING):
        found = look.trusted(SETTINGS, HEAD_WIDTH, CPU, rank=rank)
    assert (found.use_graphs, found.fused_kernels) == (False, True)
    assert "trained without CUDA graphs" in caplog.text


def test_kernels_that_compute_something_else_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gelu = Ops.gelu

    def wrong(self: Ops, inner: torch.Tensor, *, use_fused: bool) -> object:
        out, saved = gelu(self, inner, use_fused=use_fused)
        return (out * 0 if use_fused else out), saved

    monkeypatch.setattr(Ops, "gelu", wrong)
    found = look.trusted(SETTINGS, HEAD_WIDTH, CPU)
    assert (found.use_graphs, found.fused_kernels) == (True, False)
    assert "trained without fused kernels" in caplog.text


class Adapting(Ops):
    """Adapters as the kernel computes them: summed in fp32 and rounded once."""

    def project(self, x: torch.Tensor, layer: Linear, *, with_bias: bool = True) -> torch.Tensor:
        assert layer.adapter is not None
        wide = layer.adapter.map(lambda tensor: tensor.float())
        bias = layer.bias if layer.bias is None else layer.bias.float()
        exact = Linear(layer.weight.float(), bias, wide, layer.scale)
        return super().project(x.float(), exact, with_bias=with_bias).to(x.dtype)


class OfAnotherSlot(Ops):
    def project(self, x: torch.Tensor, layer: Linear, *, with_bias: bool = True) -> torch.Tensor:
        assert layer.adapter is not None
        first = layer.adapter.map(lambda tensor: tensor[:1].expand_as(tensor))
        return super().project(x, replace(layer, adapter=first), with_bias=with_bias)


class WithoutScale(Ops):
    def project(self, x: torch.Tensor, layer: Linear, *, with_bias: bool = True) -> torch.Tensor:
        assert layer.scale is not None
        one = torch.ones_like(layer.scale)
        return super().project(x, replace(layer, scale=one), with_bias=with_bias)


@pytest.mark.parametrize(
    ("kernel", "is_right"), [(Adapting, True), (OfAnotherSlot, False), (WithoutScale, False)]
)
def test_of_adapters_in_bf16_a_fault_is_told_from_rounding(
    kernel: type[Ops], is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tuning_module, "choose_ops", lambda *given: (kernel if "lora" in given[-1] else Ops)()
    )
    wished = replace(SETTINGS, dtype=torch.bfloat16, triton=("loss", "lora"))
    found = look.trusted(wished, 64, CPU, rank=8)
    assert found.triton == (("loss", "lora") if is_right else ("loss",))


def test_overlap_that_computes_something_else_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def learn(device: torch.device, settings: StackedSettings) -> look.Rows:
        return {"a": torch.ones(3) * (2 if settings.overlap else 1)}

    wished = replace(SETTINGS, overlap=True)
    with caplog.at_level(logging.WARNING):
        found = look.choose(wished, CPU, learn, torch.zeros(3))
    assert found == replace(wished, overlap=False)
    assert "trained without AdamW beside products" in caplog.text


def test_a_device_whose_plain_operators_are_wrong_trains_nothing() -> None:
    def learn(device: torch.device, settings: StackedSettings) -> look.Rows:
        calls.append(device)
        return {"a": torch.ones(3) * len(calls)}

    calls: list[torch.device] = []
    with pytest.raises(TrainingError, match="device: this GPU's own operators"):
        look.choose(SETTINGS, CPU, learn, torch.zeros(3))


@pytest.mark.parametrize("wrong", TRITON)
def test_of_the_kernels_in_triton_the_wrong_one_alone_is_left_out(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    def learn(device: torch.device, settings: StackedSettings) -> look.Rows:
        return {"a": torch.ones(3) * (2 if wrong in settings.triton else 1)}

    with caplog.at_level(logging.WARNING):
        found = look.choose(SETTINGS, CPU, learn, torch.zeros(3))
    assert set(SETTINGS.triton) - set(found.triton) == {wrong}
    assert (found.use_graphs, found.fused_kernels) == (True, True)
    assert f"trained without Triton's {wrong}," in caplog.text


def test_masks_that_no_kernel_keeps_leave_room_for_more_slots(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the look leaves out decides what memory is planned for."""
    tuning = FullTuning(layout_of(shape_of(GPT2Config())), ROW)
    plan, slots = plan_of("recipe=huggingtweets", "recipe.dropout=0.1"), {}
    for left in (TRITON, ("attention",), ()):
        monkeypatch.setattr(
            stacking,
            "trusted",
            lambda settings, *_, left=left, **__: replace(settings, triton=left),
        )
        monkeypatch.setattr(tuning_module, "choose_ops", lambda *given: ops_of(given[-1]))
        with installed(free_bytes=80 * 10**9):
            found = stacking.choose_settings(tuning, plan, CPU, 1000)
        assert found.triton == left
        slots[left] = found.slots
    assert slots[TRITON] > slots["attention",] == slots[()]


class Hashing(Ops):
    hashes = True


def ops_of(names: tuple[str, ...]) -> Ops:
    return Hashing() if {"attention", "norm"} <= set(names) else Ops()


def test_kernels_that_do_not_compile_are_left_out_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    class CompilationError(Exception):
        """As Triton's: of no class that ours know."""

    def learn(device: torch.device, settings: StackedSettings) -> look.Rows:
        if settings.triton:
            raise CompilationError("at 8:12: no such operation")
        return {"a": torch.ones(3)}

    def choose(
        settings: StackedSettings, width: int, rank: int, device: torch.device
    ) -> StackedSettings:
        return look.choose(settings, device, learn, torch.zeros(3))

    monkeypatch.setattr(look, "_look", choose)
    for _ in range(2):  # found out, then remembered
        assert look.trusted(SETTINGS, HEAD_WIDTH, CPU).triton == ()
        monkeypatch.setattr(look, "choose", None)


def test_a_kernel_that_there_is_not_is_left_out() -> None:
    def learn(device: torch.device, settings: StackedSettings) -> look.Rows:
        if settings.fused_kernels:
            raise RuntimeError("no kernel image is available for execution on the device")
        return {"a": torch.ones(3)}

    found = look.choose(SETTINGS, CPU, learn, torch.zeros(3))
    assert (found.use_graphs, found.fused_kernels) == (True, False)
