"""A look before every leap: whether a GPU computes what the plain way computes, before it trains.

Nobody has seen every card, driver and build of PyTorch. So at the start of a run two small models
with the heads of the real ones, with dropout, learn four short jobs on that very device in its
quick way (kernels in Triton, fused kernels, graphs, a slot that is refilled), and once more in the
plain way: PyTorch's operators one by one. What differs is left out and said: a card may be slow
with us, it never trains garbage. Costs about a second, once for each device, driver and version.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import GPT2Config

from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.blocks import build_training_set
from huggingtweets.errors import TrainingError, first_line
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.layout import Layout
from huggingtweets.runtime.device import is_cuda, versions_of
from huggingtweets.training.findings import recall, remember
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

logger = logging.getLogger(__name__)

Rows = dict[str, Tensor]
"""Trained weights by job."""

VERSION = 6
"""Raised when the quick way changes: what was seen before no longer counts."""
TOLERANCE = {torch.float32: 0.02, torch.bfloat16: 0.3}
"""Most that weights may differ, against their change by training. Rounding gives 8e-5 in fp32,
5e-3 in TF32 [estimated] and 0.1 in bf16; attention that is not computed gave 0.74 to 1.15."""
ADAPTER_TOLERANCE = {torch.float32: 0.02, torch.bfloat16: 0.13}
"""Likewise of adapters, whose faults show less. In bf16 rounding gives 0.06 against fp32, and 0.04
between the plain way and one that rounds as the kernel does; the gentlest of seven faults (no
scale) gives 0.20, adapters of another slot 0.80 [measured on a CPU, ranks 4 to 64]."""
_LR, _ADAPTER_LR = 1e-3, 5e-3
"""Adapters begin as nothing: at the rate of all weights those of another slot are told by 0.27."""
_T, _WORDS = 32, 96
_CHOSEN = ("use_graphs", "fused_kernels", "overlap", "triton")
"""The settings that a look decides."""
_FILE = "looks.json"


def trusted(
    settings: StackedSettings, head_width: int, device: torch.device, *, rank: int = 0
) -> StackedSettings:
    """Return the settings without what computes something else on this device.

    Args:
        settings: what is wished for.
        head_width: of the models that are to be trained.
        device: to look at.
        rank: of their adapters; 0: all weights are trained.

    Raises:
        TrainingError: not even the plain way agrees with the CPU.
    """
    if not is_cuda(device):
        return settings
    key = json.dumps(versions_of(device) | {
        "look": str(VERSION), "head": str(head_width), "rank": str(rank),
        "dtype": str(settings.dtype), "graphs": str(settings.use_graphs),
        "fused": str(settings.fused_kernels), "triton": " ".join(settings.triton),
        "overlap": str(settings.overlap),
    }, sort_keys=True)  # fmt: skip
    chosen = recall(_FILE).get(key)
    if chosen is None:
        found = _look(settings, head_width, rank, device)
        chosen = {name: getattr(found, name) for name in _CHOSEN}
        remember(_FILE, key, chosen)
    return replace(settings, **chosen | {"triton": tuple(chosen["triton"])})


def _look(
    settings: StackedSettings, head_width: int, rank: int, device: torch.device
) -> StackedSettings:
    """Try the quick way, then with less and less of it."""
    layout, base = _small(head_width)

    def learn(device: torch.device, settings: StackedSettings) -> Rows:
        small = replace(settings, slots=2, micro_batch_size=1, block_size=_T)
        small = replace(small, compile=False, engines=1)
        jobs, tuning = iter(_jobs(rank)), FullTuning(layout, base, rank)
        results = train_stacked(tuning, jobs, settings=small, device=device)
        return {one.slug: layout.pack(one.weights) for one in results if one.weights is not None}

    return choose(settings, device, learn, base, ADAPTER_TOLERANCE if rank else TOLERANCE)


def choose(
    settings: StackedSettings,
    device: torch.device,
    learn: Callable[[torch.device, StackedSettings], Rows],
    base: Tensor,
    tolerance: Mapping[torch.dtype, float] = TOLERANCE,
) -> StackedSettings:
    """Return the quickest settings whose weights are near those of the plain way.

    Args:
        settings: what is wished for.
        device: to look at.
        learn: trains the small jobs on a device.
        base: what they begin with.
        tolerance: by the precision of the products.

    Raises:
        TrainingError: the plain way on the device differs from that of the CPU.
    """
    in_turn = replace(settings, overlap=False)
    plain = replace(in_turn, use_graphs=False, fused_kernels=False, triton=())
    wanted = learn(device, plain)
    exact = learn(torch.device("cpu"), replace(plain, dtype=torch.float32))
    difference = _difference(wanted, exact, base)
    if not difference < max(TOLERANCE.values()):
        raise TrainingError(
            f"device: this GPU's own operators train weights that differ from the CPU's by "
            f"{difference:.2g} of their change; expected rounding alone; look at the driver and "
            "at PyTorch's build, or train on the CPU"
        )
    without = [tuple(one for one in settings.triton if one != name) for name in settings.triton]
    tries = (
        settings,
        *([in_turn] if settings.overlap else []),
        *(replace(in_turn, triton=names) for names in (*without, ()) if settings.triton),
        replace(in_turn, fused_kernels=False, triton=()),
        replace(in_turn, use_graphs=False),
        replace(in_turn, use_graphs=False, triton=()),
    )
    most = tolerance.get(settings.dtype, tolerance[torch.bfloat16])
    for tried in tries:
        try:
            found = learn(device, tried)
        except Exception as err:  # of Triton some are of no common class (CompilationError, ...)
            logger.warning("device: %s: %s", type(err).__name__, first_line(err))
            continue
        if _difference(found, wanted, base) < most:
            _say(settings, tried)
            return tried
    _say(settings, plain)
    return plain


def _difference(ours: Rows, theirs: Rows, base: Tensor) -> float:
    """Return the largest difference of a job, against its change by training."""
    if ours.keys() != theirs.keys():
        return float("inf")
    found = [float((ours[slug] - row).norm() / (row - base).norm()) for slug, row in theirs.items()]
    return max(found) if all(np.isfinite(found)) else float("inf")


def _say(wished: StackedSettings, used: StackedSettings) -> None:
    for name, what in (
        ("use_graphs", "CUDA graphs"),
        ("fused_kernels", "fused kernels"),
        ("overlap", "AdamW beside products"),
    ):
        if getattr(wished, name) and not getattr(used, name):
            logger.warning("device: trained without %s, which compute something else here", what)
    left_out = [name for name in wished.triton if name not in used.triton]
    if left_out:
        logger.warning(
            "device: trained without Triton's %s, which compute something else here",
            ", ".join(left_out),
        )


def _small(head_width: int) -> tuple[Layout, Tensor]:
    """Return a GPT-2 of two layers whose heads are as wide as those of the real one."""
    config = GPT2Config(
        vocab_size=_WORDS, n_positions=_T, n_embd=2 * head_width, n_layer=2, n_head=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config)
    layout = layout_of(shape_of(config))
    return layout, layout.pack(model.state_dict())


def _jobs(rank: int) -> list[TrainingJob]:
    """Return jobs of 5, 7, 4 and 6 steps: the last ones take slots that fall free."""
    jobs = []
    for index, (num_steps, rate, isolate) in enumerate(
        ((5, 0.1, False), (7, 0.1, True), (4, 0.0, False), (6, 0.0, True))
    ):
        random = np.random.default_rng(index)
        posts = [random.integers(1, _WORDS, 12).tolist() for _ in range(4 * num_steps)]
        recipe = RecipeConfig(
            epochs=1, lr=_ADAPTER_LR if rank else _LR, block_size=_T, dropout=rate,
            max_steps=num_steps, isolate_documents=isolate,
            adapter=Adapter.lora if rank else Adapter.none, lora_rank=max(1, rank),
            lora_alpha=max(1, rank * (2 + index) // 2),  # scales of 1, 1.5, 2 and 2.5
        )  # fmt: skip
        order = [[(0, number) for number in range(len(posts))]]
        training_set = build_training_set([posts], order, block_size=_T, eos_id=0, isolate=isolate)
        jobs.append(TrainingJob(f"look-{index}", training_set, None, recipe, index))
    return jobs
