"""What training leaves, as the end of its job needs it; several jobs of one base at once."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from huggingtweets.bases.architectures import class_name
from huggingtweets.bases.folder import for_other_readers
from huggingtweets.bases.lora import adapter_state, copy_weights
from huggingtweets.bases.model import Base, OpenBase, keep_dropout, open_base, trained_model
from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.evaluation.score import Posts, score_stack, try_stack
from huggingtweets.generation.guards import Guards
from huggingtweets.generation.sample import generation_config, sample_stack
from huggingtweets.generation.samples import Samples
from huggingtweets.models.adapter_rows import adapters_of, merge_adapters, stack_on_base
from huggingtweets.models.families import layout_of, shape_of, why_not_fused
from huggingtweets.models.stack import Stack, build_stack
from huggingtweets.pipeline.whole_model import (
    Trained,
    WholeModel,
    save_adapter,
    stored_dtype,
    with_memory,
)
from huggingtweets.runtime.device import (
    is_cuda,
    lacks_memory,
    new_stream,
    on_stream,
    release_memory,
)
from huggingtweets.training.extraction import Counts
from huggingtweets.training.parallel.heldout import products_dtype
from huggingtweets.training.stacked.grouped import GroupedTuning
from huggingtweets.training.stacked.jobs import Exported
from huggingtweets.training.stacked.tuning import Tuning

logger = logging.getLogger(__name__)

T = TypeVar("T")

LINKED_BYTES = 1 << 16
"""Smaller files are written again: a link saves nothing."""
FICLONE = 0x40049409
"""Of Linux, <linux/fs.h>: share the blocks of another file; XFS and Btrfs can, ext4 cannot."""


def trained_by_single(
    weights: dict[str, Tensor], plan: Plan, base: Base, device: torch.device
) -> Trained:
    """Return a model of the weights that the single engine leaves; of transformers if need be."""
    recipe = plan.config.recipe
    is_lora = recipe.adapter is Adapter.lora
    if not is_lora and not why_not_fused(base.config):
        return StackedModel(weights, Studio(open_base(base, recipe), device))
    adapters = adapter_state(weights) if is_lora else None
    return WholeModel(trained_model(base, recipe, weights), device, adapters)


class Studio:
    """What all jobs of one base share: its weights, and the files beside the weights of a model.

    Threads may use it side by side.
    """

    def __init__(
        self,
        base: OpenBase,
        device: torch.device,
        tuning: Tuning | None = None,
    ) -> None:
        """Hold them.

        Args:
            base: on the CPU; stays as it is.
            device: to sample and judge on.
            tuning: by which the fused engine trains.
        """
        self.base = base
        self.tuning = tuning if isinstance(tuning, GroupedTuning) else None
        """How the adapters of LoRA jobs are grouped on it; None: jobs leave whole weights."""
        config = base.config
        self.layout = None if why_not_fused(config) else layout_of(shape_of(config))
        """Of the base's weights; None: it is of no family of ours."""
        self.device = device
        self.turn: AbstractContextManager[object] = (
            threading.Lock() if is_cuda(device) else nullcontext()
        )
        """Held by whoever samples or judges on a GPU: what is left free there is for one."""
        self.files = SharedFiles(config)
        self._row: Tensor | None = None
        """Of the base's weights, packed."""
        self._lock = threading.Lock()

    @property
    def bytes_per_model(self) -> int:
        """What a trained model takes of memory until it is written."""
        layout = self.tuning.layout if self.tuning else self.layout
        assert layout is not None
        return 4 * layout.size

    @property
    def base_weights(self) -> Mapping[str, Tensor]:
        """What `stack` makes the base of: its weights, or no adapters."""
        return {} if self.tuning else self.base.weights

    def model(self, exported: Exported, recipe: RecipeConfig) -> StackedModel:
        """Return a trained model of what the engine leaves of a job."""
        weights, adapters = exported.weights, exported.adapters
        if weights is None:
            assert adapters is not None
            # What a LoRA adds to a layer is alpha / rank * B A (Hu et al. 2021, section 4.1).
            scale = recipe.lora_alpha / recipe.lora_rank
            weights = {
                name: one * scale if ".lora_B." in name else one for name, one in adapters.items()
            }
        return StackedModel(weights, self, adapters)

    def stack(
        self,
        weights: Sequence[Mapping[str, Tensor]],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Stack:
        """Return models to be sampled from, in fp32 as by either engine, or to be judged.

        `weights` are those of a `StackedModel` each; of adapters, none at all is the base alone.
        """
        assert self.layout is not None
        if self.tuning is None:
            rows = torch.empty((len(weights), self.layout.size), device=device)
            for row, state in zip(rows, weights, strict=True):
                row.copy_(self.layout.pack(state))
            return build_stack(self.layout, rows, dtype)
        with self._lock:  # once for all threads: it is as large as the base
            if self._row is None:
                self._row = self.layout.pack(self.base.weights)
        rank = self.tuning.rank
        adapters = adapters_of(self.layout, rank)
        rows = torch.zeros(len(weights), adapters.size, device=device)
        for row, state in zip(rows, weights, strict=True):
            if state:
                row.copy_(adapters.row_of(state))
        return stack_on_base(self.layout, self._row.to(device), rows, rank, dtype)


class StackedModel:
    """What an engine leaves of a family of ours; a whole model only where one is asked for."""

    def __init__(
        self,
        weights: dict[str, Tensor],
        studio: Studio,
        adapters: dict[str, Tensor] | None = None,
    ) -> None:
        """Hold what `Studio.stack` takes; on the CPU.

        Args:
            weights: named as in transformers, or scaled adapters, named as in a peft folder.
            studio: of the base.
            adapters: of a LoRA job, as they are stored.
        """
        self.weights = weights
        self.studio = studio
        self._adapters = adapters

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts; by transformers for the best of several, or of no family of ours."""
        if plan.sampling.best_of > 1 or self.studio.layout is None:
            with self.studio.turn:
                return self._whole().sample(plan, base, guards)
        [samples] = sample_together([self], [plan], base, [guards])
        return samples

    def score(self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool) -> Posts:
        """See `Trained`."""
        if self.studio.layout is None:
            with self.studio.turn:
                return self._whole().score(plan, base, posts, of_base=of_base)
        weights = self.studio.base_weights if of_base else self.weights
        return self._judge(score_stack, weights, plan, posts)

    def try_known(self, plan: Plan, base: Base, posts: HeldoutSet) -> Counts:
        """See `Trained`."""
        if self.studio.layout is None:
            with self.studio.turn:
                return self._whole().try_known(plan, base, posts)
        return self._judge(try_stack, self.weights, plan, posts)

    def _judge(
        self,
        judge: Callable[[Stack, HeldoutSet], T],
        weights: Mapping[str, Tensor],
        plan: Plan,
        posts: HeldoutSet,
    ) -> T:
        studio, dtype = self.studio, products_dtype(plan.config.engine.precision)

        def on(device: torch.device) -> T:
            with on_stream(new_stream(device)):
                return judge(studio.stack([weights], device, dtype), posts)

        return with_memory(on, studio.device, plan, studio.turn)

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Write what transformers would write."""
        if self._adapters and plan.leaves_adapter:
            save_adapter(folder, self._adapters, self.studio.base.model, plan, base)
            return
        if self.studio.tuning is not None:
            self._whole().save(plan, base, folder)
            return
        dtype = stored_dtype(plan, base)
        self.studio.files.put(base, dtype, folder, plan.paths.model)
        generation_config(plan.sampling, base.codec).save_pretrained(folder)
        weights = {
            name: weight.to(dtype)
            for name, weight in self.weights.items()
            if name != "lm_head.weight" or not self.studio.base.config.tie_word_embeddings
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def _whole(self) -> WholeModel:
        model = copy.deepcopy(self.studio.base.model)
        if self.studio.tuning is None:
            copy_weights(model, self.weights)
        else:
            merge_adapters(model, self.weights)
        return WholeModel(model.eval(), self.studio.device, self._adapters)


def sample_together(
    models: Sequence[StackedModel], plans: Sequence[Plan], base: Base, guards: Sequence[Guards]
) -> list[Samples]:
    """Sample posts of several users of one studio in one call; `best_of` is not considered.

    Where the device has no memory for all at once, they are sampled one by one; who finds none
    there even alone, on the CPU. The samples are the same.
    """
    studio = models[0].studio

    def sample(chosen: slice, device: torch.device) -> list[Samples]:
        with on_stream(new_stream(device)):
            return sample_stack(
                studio.stack([model.weights for model in models[chosen]], device),
                base.codec,
                [plan.sampling for plan in plans[chosen]],
                guards[chosen],
                seeds=[plan.config.seed for plan in plans[chosen]],
            )

    if len(models) > 1:
        try:
            with studio.turn:
                return sample(slice(None), studio.device)
        except RuntimeError as err:
            if not lacks_memory(err):
                raise
            logger.warning("no memory to sample %d models at once: one by one", len(models))
        release_memory()
    found = []
    for index, plan in enumerate(plans):
        one = partial(sample, slice(index, index + 1))
        found += with_memory(one, studio.device, plan, studio.turn)
    return found


class SharedFiles:
    """Configuration and tokenizer; threads may use it side by side."""

    def __init__(self, config: transformers.PretrainedConfig) -> None:
        """Make nothing yet; `config` is that of the opened base, and stays as it is."""
        self._config = config
        self._files: dict[torch.dtype, dict[str, bytes]] = {}
        self._placed: dict[str, tuple[Path, int, int]] = {}
        """Where each large file lies already, its inode and when it was written."""
        self._lock = threading.Lock()

    def put(self, base: Base, dtype: torch.dtype, folder: Path, final: Path) -> None:
        """Write the files of a model folder that all users share.

        Of a large one, the tokenizer, further copies are links to the first: they cost no room.

        Args:
            base: of all users.
            dtype: of the weights.
            folder: to write into.
            final: where that folder is to lie.
        """
        for name, data in self._files_of(base, dtype).items():
            if len(data) < LINKED_BYTES:
                (folder / name).write_bytes(data)
                continue
            earlier = self._placed.get(name)
            if earlier is None or not _shared(*earlier, folder / name):
                (folder / name).write_bytes(data)
                found = (folder / name).stat()
                self._placed[name] = (final / name, found.st_ino, found.st_mtime_ns)

    def _files_of(self, base: Base, dtype: torch.dtype) -> Mapping[str, bytes]:
        """Return the files that all users share, by name; made once."""
        with self._lock:
            if dtype not in self._files:
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    config = copy.deepcopy(self._config)
                    keep_dropout(config, base.config)
                    config.dtype = dtype
                    config.architectures = [class_name(config)]
                    config.save_pretrained(folder)
                    base.tokenizer.save_pretrained(folder)
                    for_other_readers(folder)
                    self._files[dtype] = {p.name: p.read_bytes() for p in folder.iterdir()}
            return self._files[dtype]


def _shared(source: Path, inode: int, written_ns: int, target: Path) -> bool:
    """Make a file of the same content without a copy: a reflink, else a hard link.

    False where the file system has neither, or the source is no longer what was written.
    """
    try:
        found = source.stat()
        if (found.st_ino, found.st_mtime_ns) != (inode, written_ns):
            return False
        if not _cloned(source, target):
            os.link(source, target)
    except OSError:
        return False
    return True


def _cloned(source: Path, target: Path) -> bool:
    """Make a reflink: both files are their own, and share what neither has changed."""
    try:
        import fcntl  # not on Windows

        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    except (ImportError, OSError):
        target.unlink(missing_ok=True)
        return False
    return True
