"""A trained model as the end of its job needs it: to sample from, to judge, to save."""

import copy
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from huggingtweets.config.plan import Plan
from huggingtweets.generation.guards import Guards
from huggingtweets.generation.sample import (
    generation_config,
    sample_posts,
    sample_stack,
)
from huggingtweets.generation.samples import Samples
from huggingtweets.runtime.device import is_cpu, is_cuda, new_stream, on_stream
from huggingtweets.training.array.layout import Layout
from huggingtweets.training.array.models import build_stack
from huggingtweets.training.folder import for_other_readers
from huggingtweets.training.lora import save_adapters
from huggingtweets.training.model import Base, keep_dropout, load_model

Pair = tuple[PreTrainedModel, PreTrainedModel]
"""A trained model, and what it was trained from."""


class Trained(Protocol):
    """One trained model."""

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts."""

    def beside_base(
        self, plan: Plan, base: Base, device: torch.device | None = None
    ) -> AbstractContextManager[Pair]:
        """Lend it and what it was trained from, as transformers has them.

        On the device of the job, or on another one.
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

    @contextmanager
    def beside_base(
        self, plan: Plan, base: Base, device: torch.device | None = None
    ) -> Iterator[Pair]:
        """Lend it and a base loaded anew."""
        device = device or self._device
        yield _on(device, self._model), _on(device, load_model(base, plan.recipe))

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
        self.turn = threading.Lock()
        """Taken for as long as a model is judged on a GPU."""
        self.stream = new_stream(device)
        """Of what is judged: memory used on a stream is used again there alone."""
        self._base_on_device: PreTrainedModel | None = None
        self.base_model = base_model
        self.layout = layout
        self.device = device
        self._files: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def base_on(self, device: torch.device) -> PreTrainedModel:
        """Return the base on a device; one thread at a time asks for another than the CPU."""
        if is_cpu(device):
            return self.base_model
        if self._base_on_device is None:
            self._base_on_device = _on(device, copy.deepcopy(self.base_model))
        return self._base_on_device

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
        self._weights = weights
        self._studio = studio
        self._adapters = adapters

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts without a model of transformers, unless the best of several is asked for."""
        if plan.sampling.best_of > 1:
            return WholeModel(self._whole(), self._studio.device).sample(plan, base, guards)
        studio = self._studio
        with on_stream(new_stream(studio.device)):
            row = studio.layout.pack(self._weights).to(studio.device)
            stack = build_stack(studio.layout, row.unsqueeze(0), torch.float32)
            [samples] = sample_stack(
                stack, base.codec, [plan.sampling], [guards], seeds=[plan.seed]
            )
            return samples

    @contextmanager
    def beside_base(
        self, plan: Plan, base: Base, device: torch.device | None = None
    ) -> Iterator[Pair]:
        """Lend a whole model with these weights and the base that all jobs share.

        On a GPU to one thread at a time: training needs the memory.
        """
        studio = self._studio
        device = device or studio.device
        turn = studio.turn if is_cuda(device) else nullcontext()
        with turn, on_stream(studio.stream if is_cuda(device) else None):
            yield _on(device, self._whole()), studio.base_on(device)

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Write what transformers would write."""
        if self._adapters and plan.leaves_adapter:
            _save_adapter(folder, self._adapters, self._studio.base_model, plan, base)
            return
        for name, data in self._studio.files(base).items():
            (folder / name).write_bytes(data)
        generation_config(plan.sampling, base.codec).save_pretrained(folder)
        weights = {
            name: weight.to(base.dtype)
            for name, weight in self._weights.items()
            if name != "lm_head.weight"
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def _whole(self) -> PreTrainedModel:
        model = copy.deepcopy(self._studio.base_model)
        model.load_state_dict(self._weights)
        return model.eval()


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
