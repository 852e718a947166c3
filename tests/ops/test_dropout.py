import numpy as np
import pytest
import torch

from huggingtweets.ops.dropout import (
    head_sites,
    keep_mask,
    num_sites,
    residual_site,
    site_keys,
    thresholds_and_scales,
)

ROWS, COLUMNS = range(256), range(256)


def masks_of(seeds: list[int], *, rate: float, sites: int = 1, step: int = 0) -> torch.Tensor:
    """One mask a site and seed: (sites * seeds, rows, columns)."""
    n = len(seeds)
    keys = site_keys(np.array(seeds), np.full(n, step), np.zeros(n, np.int64), sites)
    thresholds, _ = thresholds_and_scales(np.full(sites * n, rate))
    return keep_mask(keys.view(-1, 2), thresholds, ROWS, COLUMNS)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_masks_drop_at_the_rate(rate: float) -> None:
    masks = masks_of(list(range(20)), rate=rate)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    n = masks.numel()
    deviation = (rate * (1 - rate) / n) ** 0.5
    assert abs(float(masks.mean()) - (1 - rate)) <= 4 * deviation + 1 / 65536
    per_mask = masks.mean((1, 2))  # neither more nor less even than by chance
    expected = (rate * (1 - rate) / masks[0].numel()) ** 0.5
    assert float(per_mask.std()) <= 2 * expected


def test_scale_keeps_the_mean() -> None:
    thresholds, scales = thresholds_and_scales(np.array([0.0, 0.1, 0.37]))
    kept = 1 - (thresholds.double() + 32768) / 65536
    torch.testing.assert_close(kept * scales.double(), torch.ones(3).double())
    assert scales[0] == 1.0


@pytest.mark.parametrize(
    "shift", [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (64, 0), (0, 128), (128, 128)], ids=str
)
def test_neighbouring_elements_are_independent(shift: tuple[int, int]) -> None:
    masks = masks_of(list(range(40)), rate=0.5) - 0.5
    moved = torch.roll(masks, shift, (1, 2))
    correlation = float((masks * moved).mean()) / 0.25
    assert abs(correlation) < 4 / masks.numel() ** 0.5


def test_masks_of_seeds_steps_and_sites_are_independent() -> None:
    masks = torch.cat(
        [masks_of([0, 1, 2**31 - 1], rate=0.5, sites=8, step=step) for step in (0, 1, 1000)]
    )
    flat = (masks - 0.5).flatten(1) * 2
    correlation = (flat @ flat.T / flat.shape[1]).fill_diagonal_(0.0)
    assert float(correlation.abs().max()) < 5 / flat.shape[1] ** 0.5


def test_bytes_of_rows_are_uniform() -> None:
    """Chi-square over the 256 patterns of eight neighbours at p = 1/2."""
    masks = masks_of(list(range(16)), rate=0.5).view(-1, 8)
    patterns = (masks @ (2.0 ** torch.arange(8))).long()
    counts = torch.bincount(patterns, minlength=256).double()
    expected = counts.sum() / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert 150 < chi_square < 380  # 255 +- 22.6


def test_a_part_of_a_mask_is_that_part() -> None:
    keys = site_keys(np.array([3]), np.array([4]), np.array([5]), 1)[0]
    thresholds, _ = thresholds_and_scales(np.array([0.4]))
    whole = keep_mask(keys, thresholds, ROWS, COLUMNS)
    part = keep_mask(keys, thresholds, range(10, 30), range(42, 77))
    assert torch.equal(part, whole[:, 10:30, 42:77])


def test_masks_in_bf16_are_the_same() -> None:
    keys = site_keys(np.array([3]), np.array([4]), np.array([5]), 1)[0]
    thresholds, _ = thresholds_and_scales(np.array([0.4]))
    whole = keep_mask(keys, thresholds, ROWS, COLUMNS)
    half = keep_mask(keys, thresholds, ROWS, COLUMNS, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.float(), whole)


def test_every_site_is_used_once() -> None:
    layers, heads = 3, 4
    sites = [0]
    for layer in range(layers):
        sites += [residual_site(layer, heads, 0), residual_site(layer, heads, 1)]
        sites += range(*head_sites(layer, heads).indices(1000))
    assert sorted(sites) == list(range(num_sites(layers, heads)))
