"""A trained model as the end of its job needs it: to sample from, to judge, to save."""

import copy
import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import Precision
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.generation.guards import Guards
from huggingtweets.generation.sample import (
    generation_config,
    sample_posts,
    sample_stack,
)
from huggingtweets.generation.samples import Samples
from huggingtweets.ops.kernels import choose_ops
from huggingtweets.runtime.device import by_kind, is_cuda, new_stream, on_stream, release_memory
from huggingtweets.training.array.heldout import score_sets
from huggingtweets.training.array.layout import Layout
from huggingtweets.training.array.loop import WINDOW
from huggingtweets.training.array.models import Stack, build_stack
from huggingtweets.training.folder import for_other_readers
from huggingtweets.training.heldout import autocast, score_set
from huggingtweets.training.lora import save_adapters
from huggingtweets.training.model import Base, keep_dropout, load_model
from huggingtweets.training.records import PostScore

logger = logging.getLogger(__name__)

T = TypeVar("T")

Posts = tuple[PostScore, ...]
"""What a model makes of each of some posts, in their order."""

MAX_TOGETHER = {"cpu": 1, "cuda": 8}
"""Models that are sampled and scored in one call, by device type: rows and caches of so many lie on
the device beside those in training. On a CPU products are apart anyway."""


class Trained(Protocol):
    """One trained model."""

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts."""

    def score(self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool) -> Posts:
        """Score posts one by one, as training scores those held out, or score them by the base.

        On the device of the job, or on the CPU where that has no memory to spare.
        """

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Write weights, configuration and tokenizer into an empty folder."""


class WholeModel:
    """A model of transformers: what the single engine leaves."""

    def __init__(
        self,
        model: PreTrainedModel,
        device: torch.device,
        adapters: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take it to the device of the job, where it is sampled and judged.

        Of a LoRA job also hold the adapters, which are merged into it.
        """
        self._model = _on(device, model)
        self._device = device
        self._adapters = adapters

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts."""
        return sample_posts(
            self._model,
            base.codec,
            plan.sampling,
            guards,
            max_positions=base.max_positions,
            seed=plan.seed,
        )

    def score(self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool) -> Posts:
        """See `Trained`; the base is loaded anew."""
        model = load_model(base, plan.recipe).eval() if of_base else self._model

        def score(device: torch.device) -> Posts:
            with autocast(device, plan.engine.precision):
                return score_set(_on(device, model), posts, eos_id=base.eos_id)

        found = _with_memory(score, self._device, plan)
        _on(self._device, self._model)
        return found

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Have transformers write it."""
        if self._adapters and plan.leaves_adapter:
            _save_adapter(folder, self._adapters, self._model, plan, base)
            return
        base.tokenizer.save_pretrained(folder)
        keep_dropout(self._model.config, base.config)
        self._model.generation_config = generation_config(plan.sampling, base.codec)
        self._model.to(base.dtype).save_pretrained(folder)
        for_other_readers(folder)


class Studio:
    """What all jobs of one base share: its weights, and the files beside the weights of a model.

    Threads may use it side by side.
    """

    def __init__(self, base_model: PreTrainedModel, layout: Layout, device: torch.device) -> None:
        """Hold them.

        Args:
            base_model: on the CPU; stays as it is.
            layout: of its weights.
            device: to sample and judge on.
        """
        self.base_model = base_model
        self.layout = layout
        self.device = device
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def stack(self, weights: Sequence[Mapping[str, Tensor]], device: torch.device) -> Stack:
        """Return models to be sampled from, fp32: samples are the same by either engine."""
        rows = torch.stack([self.layout.pack(state) for state in weights])
        return build_stack(self.layout, rows.to(device), torch.float32)

    def score(
        self, weights: Mapping[str, Tensor], posts: HeldoutSet, plan: Plan, device: torch.device
    ) -> Posts:
        """Score posts one by one, in the precision of the engine."""
        dtype = torch.bfloat16 if plan.engine.precision is Precision.bf16 else torch.float32
        rows = self.layout.pack(weights).unsqueeze(0).to(device)
        [found] = score_sets(
            build_stack(self.layout, rows, dtype),
            [posts],
            width=by_kind(WINDOW, device, 128),
            use_fused=is_cuda(device),
            ops=choose_ops(device, self.layout.shape.width, posts.blocks.input_ids.shape[1]),
        )
        assert found is not None
        return found.posts

    def files(self, base: Base) -> Mapping[str, bytes]:
        """Return the files of a model folder that all users share, by name; made once."""
        with self._lock:
            if not self._files:
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    config = copy.deepcopy(self.base_model.config)
                    keep_dropout(config, base.config)
                    config.dtype = base.dtype
                    config.architectures = [type(self.base_model).__name__]
                    config.save_pretrained(folder)
                    base.tokenizer.save_pretrained(folder)
                    for_other_readers(folder)
                    self._files = {p.name: p.read_bytes() for p in folder.iterdir()}
            return self._files


class StackedModel:
    """The weights of a GPT-2 that the fused engine leaves; made whole only to be judged."""

    def __init__(
        self,
        weights: dict[str, Tensor],
        studio: Studio,
        adapters: dict[str, Tensor] | None = None,
    ) -> None:
        """Hold them, named as in transformers, and the adapters merged into them; on the CPU."""
        self.weights = weights
        self.studio = studio
        self._adapters = adapters

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts without a model of transformers, unless the best of several is asked for."""
        if plan.sampling.best_of > 1:
            return WholeModel(self._whole(), self.studio.device).sample(plan, base, guards)
        [samples] = sample_together([self], [plan], base, [guards])
        return samples

    def score(self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool) -> Posts:
        """See `Trained`."""
        studio = self.studio
        weights = studio.base_model.state_dict() if of_base else self.weights

        def score(device: torch.device) -> Posts:
            with on_stream(new_stream(device)):
                return studio.score(weights, posts, plan, device)

        return _with_memory(score, studio.device, plan)

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Write what transformers would write."""
        if self._adapters and plan.leaves_adapter:
            _save_adapter(folder, self._adapters, self.studio.base_model, plan, base)
            return
        for name, data in self.studio.files(base).items():
            (folder / name).write_bytes(data)
        generation_config(plan.sampling, base.codec).save_pretrained(folder)
        weights = {
            name: weight.to(base.dtype)
            for name, weight in self.weights.items()
            if name != "lm_head.weight"
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def _whole(self) -> PreTrainedModel:
        model = copy.deepcopy(self.studio.base_model)
        model.load_state_dict(self.weights)
        return model.eval()


def sample_together(
    models: Sequence[StackedModel], plans: Sequence[Plan], base: Base, guards: Sequence[Guards]
) -> list[Samples]:
    """Sample posts of several users of one studio in one call; `best_of` is not heeded."""
    studio = models[0].studio

    def sample(device: torch.device) -> list[Samples]:
        with on_stream(new_stream(device)):
            return sample_stack(
                studio.stack([model.weights for model in models], device),
                base.codec,
                [plan.sampling for plan in plans],
                guards,
                seeds=[plan.seed for plan in plans],
            )

    return _with_memory(sample, studio.device, plans[0])


def _with_memory(function: Callable[[torch.device], T], device: torch.device, plan: Plan) -> T:
    """Call a function with a device, or with the CPU where that has no memory left."""
    try:
        return function(device)
    except torch.OutOfMemoryError:
        logger.warning("job=%s goes on on the CPU: the device has no memory left", plan.job.slug)
    release_memory()
    return function(torch.device("cpu"))


def _save_adapter(
    folder: Path, adapters: Mapping[str, Tensor], model: PreTrainedModel, plan: Plan, base: Base
) -> None:
    """Write an adapter folder; no tokenizer where readers find the base's by its public name.

    Nor is there a config.json: with it, readers expect a whole model.
    """
    generation_config(plan.sampling, base.codec).save_pretrained(folder)
    if base.hub_id is None:
        base.tokenizer.save_pretrained(folder)
        for_other_readers(folder)
    save_adapters(
        folder,
        {name: tensor.to(base.dtype) for name, tensor in adapters.items()},
        model,
        plan.recipe,
        base_name=base.public_name,
        revision=base.revision if base.hub_id else None,
    )


def _on(device: torch.device, model: PreTrainedModel) -> PreTrainedModel:
    """Take a model to a device, itself and no copy."""
    return model.to(device)
