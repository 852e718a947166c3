"""What training leaves, as the end of its job needs it; several jobs of one base at once."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from huggingtweets.bases.lora import adapter_state, copy_weights
from huggingtweets.bases.model import (
    Base,
    OpenBase,
    open_base,
    trained_model,
)
from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import Adapter, RecipeConfig
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.evaluation.score import Posts, score_stack, try_stack
from huggingtweets.generation.guards import Guards
from huggingtweets.generation.sample import (
    generation_config,
    sample_stack,
)
from huggingtweets.generation.samples import Samples
from huggingtweets.models.adapter_rows import adapters_of, merge_adapters, stack_on_base
from huggingtweets.models.families import layout_of, shape_of, why_not_fused
from huggingtweets.models.stack import Stack, build_stack
from huggingtweets.pipeline.shared_files import SharedFiles
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

logger = logging.getLogger(__name__)

T = TypeVar("T")


def trained_by_single(
    weights: dict[str, Tensor], plan: Plan, base: Base, device: torch.device
) -> Trained:
    """Return a model of the weights that the single engine leaves; of transformers if need be."""
    if plan.config.recipe.adapter is Adapter.lora:
        model = trained_model(base, plan.config.recipe, weights)
        return WholeModel(model, device, adapter_state(weights))
    if why_not_fused(base.config):
        return WholeModel(trained_model(base, plan.config.recipe, weights), device)
    return StackedModel(weights, Studio(open_base(base, plan.config.recipe), device))


class Studio:
    """What all jobs of one base share: its weights, and the files beside the weights of a model.

    Threads may use it side by side.
    """

    def __init__(
        self,
        base: OpenBase,
        device: torch.device,
        tuning: GroupedTuning | None = None,
    ) -> None:
        """Hold them.

        Args:
            base: on the CPU; stays as it is.
            device: to sample and judge on.
            tuning: how the adapters of LoRA jobs are grouped on it; None: all weights are trained.
        """
        self.base = base
        self.tuning = tuning
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
        if self.tuning is not None:
            return 4 * self.tuning.layout.size
        assert self.layout is not None
        return 4 * self.layout.size

    @property
    def base_weights(self) -> Mapping[str, Tensor]:
        """What `stack` makes the base of: its weights, or no adapters."""
        return {} if self.tuning else self.base.weights

    def model(
        self,
        weights: dict[str, Tensor] | None,
        adapters: dict[str, Tensor] | None,
        recipe: RecipeConfig,
    ) -> StackedModel:
        """Return a trained model of what the engine leaves of a job."""
        if weights is None:
            assert adapters is not None
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
        with self._lock:
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
