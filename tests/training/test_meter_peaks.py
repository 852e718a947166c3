"""The peak of a card by its name, as its driver tells it."""

import logging

import pytest
import torch

from huggingtweets.runtime import device as runtime_device
from huggingtweets.training.meter import known_peak, peak_flops

PEAKS = {
    "NVIDIA H100 80GB HBM3": 989.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H200": 989.0,
    "NVIDIA H200 NVL": 835.0,
    "NVIDIA GH200 480GB": 989.0,
    "NVIDIA H20": 148.0,
    "NVIDIA B200": 2250.0,
    "NVIDIA B300 SXM6 AC": 2250.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A10G": 70.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA GeForce RTX 4090": 165.0,
    "NVIDIA GeForce RTX 5090": 209.5,
    "NVIDIA RTX 6000 Ada Generation": 364.0,
    "NVIDIA RTX A6000": 155.0,
    "AMD Instinct MI300X": 1307.0,
    "Tesla T4": 65.0,
    "NVIDIA GeForce RTX 4090 Laptop GPU": None,
    "NVIDIA GeForce RTX 4090 D": None,
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb": None,
    "NVIDIA H100 80GB HBM3 MIG 3g.40gb": None,
    "NVIDIA GeForce GTX 1080": None,
}


@pytest.mark.parametrize("name", PEAKS)
def test_peak_by_name(name: str) -> None:
    assert known_peak(name) == PEAKS[name]


def test_an_unknown_card_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_device, "kind_of", lambda device: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA Z1")
    with caplog.at_level(logging.WARNING):
        assert peak_flops(torch.device("cpu"), None) is None
    assert "'NVIDIA Z1' is not known; set engine.peak_tflops" in caplog.text
    assert peak_flops(torch.device("cpu"), 100.0) == 1e14
