"""Dropout whose masks are functions of seed, step, block and place: no generator, no state.

A slot's mask therefore does not depend on K, on its neighbours, on the micro-batch or on the
device, and recomputing it gives the same. Hashing 16 bits an element also costs a tenth of what
`bernoulli_` costs on a CPU (0.6 against 6 ms a million, two threads).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MAX_COLUMNS = 8192
"""Of a row of places."""


@dataclass(frozen=True)
class Site:
    """What one mask (n, rows, columns) of a micro-batch is made from; tensors on the device."""

    keys: Tensor
    """(n, 2) int32."""
    thresholds: Tensor
    """(n,) int16: smaller hashes are dropped."""
    rows: range
    columns: range

    def mask(self, dtype: torch.dtype) -> Tensor:
        """Return it as ones and zeros; see `keep_mask`."""
        return keep_mask(self.keys, self.thresholds, self.rows, self.columns, dtype=dtype)


@dataclass(frozen=True)
class ScaledSite(Site):
    """One whose mask makes up at once for what is dropped."""

    scales: Tensor
    """(n,) fp32: 1 / (1 - p)."""

    def scaled_mask(self) -> Tensor:
        """Return it as scales and zeros, fp32."""
        return self.mask(torch.float32).mul_(self.scales.view(-1, 1, 1))


@dataclass(frozen=True)
class Dropout:
    """What the masks of one micro-batch are made from; tensors on the device."""

    keys: Tensor
    """(sites, K * B, 2) int32."""
    thresholds: Tensor
    """(3, K * B) int16 for embeddings, attention and residuals: smaller hashes are dropped."""
    scales: Tensor
    """(3, K * B) fp32: 1 / (1 - p)."""

    def residual(self, site: int, length: int, width: int) -> ScaledSite:
        """Return a residual site or, for 0, that of the embeddings: a mask per block (T, C)."""
        kind = 2 if site else 0
        keys, thresholds, scales = self.keys[site], self.thresholds[kind], self.scales[kind]
        return ScaledSite(keys, thresholds, range(length), range(width), scales)

    def all_heads(self, layer: int, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys (heads, K * B, 2) of a layer's attention, thresholds and scales (K * B,)."""
        return self.keys[head_sites(layer, num_heads)], self.thresholds[1], self.scales[1]

    def heads(self, layer: int, num_heads: int, rows: range, columns: range) -> Site:
        """Return the site of a layer's attention: a mask per block and head."""
        return Site(
            self.keys[head_sites(layer, num_heads)].transpose(0, 1).reshape(-1, 2),
            self.thresholds[1].repeat_interleave(num_heads),
            rows,
            columns,
        )


def num_sites(num_layers: int, num_heads: int) -> int:
    """Return how many masks a micro-batch needs: one, and for each layer two and one a head."""
    return 1 + num_layers * (2 + num_heads)


def residual_site(layer: int, num_heads: int, which: int) -> int:
    """Return the site after attention (which=0) or the MLP (which=1) of a layer."""
    return 1 + layer * (2 + num_heads) + which


def head_sites(layer: int, num_heads: int) -> slice:
    """Return the sites of a layer's attention heads."""
    first = residual_site(layer, num_heads, 2)
    return slice(first, first + num_heads)


def thresholds_and_scales(rates: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Return int16 thresholds and fp32 scales for dropout rates of any shape, 0 <= p < 1."""
    # A rate is rounded to 16 bits, and the scale is that of the rounded rate: the mean is exact.
    dropped = np.rint(rates * 65536).clip(0, 65535)
    return (
        torch.from_numpy((dropped - 32768).astype(np.int16)),
        torch.from_numpy((65536 / (65536 - dropped)).astype(np.float32)),
    )


def site_keys(
    seeds: npt.NDArray[np.int64],
    steps: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
    sites: int,
) -> Tensor:
    """Return two int32 keys for each site of each block, as (sites, n, 2).

    Args:
        seeds: (n,) of the job.
        steps: (n,) optimizer step of the job, from 0.
        blocks: (n,) place of the block within its optimizer step.
        sites: how many.
    """
    with np.errstate(over="ignore"):  # numbers of 64 bits that wrap, as the hash wants
        key = _splitmix(seeds.astype(np.uint64))
        key = _splitmix(key ^ steps.astype(np.uint64))
        key = _splitmix(key ^ blocks.astype(np.uint64))
        keys = _splitmix(key ^ np.arange(sites, dtype=np.uint64)[:, None])
    return torch.from_numpy(keys[..., None].view(np.int32))


def keep_mask(
    keys: Tensor,
    thresholds: Tensor,
    rows: range,
    columns: range,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return a mask (n, rows, columns) of ones and zeros, a function of key and place alone.

    Args:
        keys: (n, 2) int32.
        thresholds: (n,) int16; see `Dropout`.
        rows: which rows of the n matrices.
        columns: which columns, from an even one, below 8192.
        dtype: of the mask.
    """
    device = keys.device
    num_pairs = (len(columns) + 1) // 2
    row = torch.arange(rows.start, rows.stop, dtype=torch.int32, device=device) * MAX_COLUMNS
    pair = torch.arange(num_pairs, dtype=torch.int32, device=device) + columns.start // 2
    key_1, key_2 = keys.view(-1, 2, 1, 1).unbind(1)
    # Multiply, shift and exclusive-or, as murmur3 ends; two int16 of each number are two columns.
    # Signed shifts lose a bit where murmur's would not; what remains is tested to look random.
    bits = (row.unsqueeze(1) + pair) ^ key_1
    bits.mul_(-1640531535)
    bits.bitwise_xor_(bits >> 15).mul_(-2048144777)
    bits.bitwise_xor_(key_2)
    bits.bitwise_xor_(bits >> 13).mul_(-1028477379)
    halves = bits.view(torch.int16)
    mask = torch.empty(halves.shape, dtype=dtype, device=device)
    # A comparison straight into floats: through booleans it takes five times as long on a CPU.
    torch.ge(halves, thresholds.view(-1, 1, 1), out=mask)
    return mask[..., : len(columns)]


def _splitmix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the finaliser of splitmix64: a bijection that looks random."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
