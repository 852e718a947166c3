"""A trained model as its job needs it, whatever made it; and such a one of transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

import torch
import transformers
from torch import Tensor

from huggingtweets.bases.folder import for_other_readers
from huggingtweets.bases.lora import save_adapters
from huggingtweets.bases.model import Base, keep_dropout, load_model
from huggingtweets.config.plan import Plan
from huggingtweets.config.results_schema import StoredDtype
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.evaluation.score import Posts, score_model, try_model
from huggingtweets.generation.guards import Guards
from huggingtweets.generation.sample import generation_config, sample_posts
from huggingtweets.generation.samples import Samples
from huggingtweets.runtime.device import lacks_memory, release_memory
from huggingtweets.training.extraction import Counts

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Trained(Protocol):
    """One trained model."""

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts."""

    def score(self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool) -> Posts:
        """Score posts one by one, as training scores those held out, or score them by the base.

        On the device of the job, or on the CPU where that has no memory to spare.
        """

    def try_known(self, plan: Plan, base: Base, posts: HeldoutSet) -> Counts:
        """Count the training posts that it has memorised; see `count_extracted`."""

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Write weights, configuration and tokenizer into an empty folder."""


class WholeModel:
    """A model of transformers: what the single engine leaves of any other architecture."""

    def __init__(
        self,
        model: transformers.PreTrainedModel,
        device: torch.device,
        adapters: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Hold it, wherever it lies, and the device of the job, where it is sampled and judged.

        Of a LoRA job also hold the adapters, which are merged into it.
        """
        self._model = model
        self._device = device
        self._adapters = adapters

    def sample(self, plan: Plan, base: Base, guards: Guards) -> Samples:
        """Sample posts."""

        def sample(device: torch.device) -> Samples:
            return sample_posts(
                _on(device, self._model),
                base.codec,
                plan.sampling,
                guards,
                max_positions=base.max_positions,
                seed=plan.config.seed,
            )

        return with_memory(sample, self._device, plan)

    def score(self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool) -> Posts:
        """See `Trained`; the base is loaded again."""
        return self._judge(score_model, plan, base, posts, of_base=of_base)

    def try_known(self, plan: Plan, base: Base, posts: HeldoutSet) -> Counts:
        """See `Trained`."""
        return self._judge(try_model, plan, base, posts, of_base=False)

    def _judge(
        self, judge: Callable[..., T], plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool
    ) -> T:
        model = load_model(base, plan.config.recipe).eval() if of_base else self._model
        precision = plan.config.engine.precision

        def on(device: torch.device) -> T:
            return judge(_on(device, model), posts, precision, eos_id=base.eos_id)

        return with_memory(on, self._device, plan)

    def save(self, plan: Plan, base: Base, folder: Path) -> None:
        """Have transformers write it."""
        if self._adapters and plan.leaves_adapter:
            save_adapter(folder, self._adapters, self._model, plan, base)
            return
        base.tokenizer.save_pretrained(folder)
        keep_dropout(self._model.config, base.config)
        self._model.generation_config = generation_config(plan.sampling, base.codec)
        self._model.to(stored_dtype(plan, base)).save_pretrained(folder)
        for_other_readers(folder)


def stored_dtype(plan: Plan, base: Base) -> torch.dtype:
    """Return what the weights of a job are stored in."""
    named = {StoredDtype.bf16: torch.bfloat16, StoredDtype.fp32: torch.float32}
    return named.get(plan.config.publish.dtype, base.dtype)


def with_memory(
    function: Callable[[torch.device], T],
    device: torch.device,
    plan: Plan,
    turn: AbstractContextManager[object] | None = None,
) -> T:
    """Call a function with a device in one's turn, or with the CPU where that has no memory."""
    try:
        with turn or nullcontext():
            return function(device)
    except RuntimeError as err:
        if not lacks_memory(err):
            raise
        logger.warning("job=%s continues on the CPU: the device has no memory left", plan.job.slug)
    release_memory()  # only now, when the error and the frames in it are gone
    return function(torch.device("cpu"))


def save_adapter(
    folder: Path,
    adapters: Mapping[str, Tensor],
    model: transformers.PreTrainedModel,
    plan: Plan,
    base: Base,
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
        {name: tensor.to(stored_dtype(plan, base)) for name, tensor in adapters.items()},
        model,
        plan.config.recipe,
        base_name=base.public_name,
        revision=base.revision if base.hub_id else None,
    )


def _on(device: torch.device, model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Take a model to a device, itself and no copy; tests stand in for the device here."""
    return model.to(device)
