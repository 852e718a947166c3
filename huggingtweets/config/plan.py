"""The plan of one job: frozen, checked across fields, with everything derived. No I/O."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from huggingtweets.config.checks import AUTO
from huggingtweets.config.posts_schema import SERVICES
from huggingtweets.config.results_schema import PublishKind, SamplingConfig
from huggingtweets.config.schema import BATCH, Consent, Stop, TrainConfig
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.storage.files import flatten
from huggingtweets.storage.paths import JobPaths

FILE_PREFIX = "file:"
"""Of `user=`: a file with a person, or several, per line."""


@dataclass(frozen=True)
class Plan:
    """All that one job needs to know."""

    job: Job
    config: TrainConfig
    """The composed configuration, narrowed to this job: what config.yaml holds."""
    sampling: SamplingConfig
    """Limited by what is known of the posts; see `settled`."""
    is_alone: bool = True
    """Whether the command trains this job and no other."""

    @property
    def paths(self) -> JobPaths:
        """The folder of the job."""
        return JobPaths(Path(self.config.output_dir) / self.job.slug)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as plain values: the same identity is the same job.

        Neither the engine nor folders belong to it: of `source.path` only the last name does, so
        that a moved archive is still the same archive. Nor do terms and prices.
        """
        source = asdict(self.config.source)
        del source["terms"], source["max_cost_usd"]  # they change no post
        source["path"] = PurePath(self.config.source.path).name if self.config.source.path else None
        recipe = asdict(self.config.recipe)
        if recipe["warm_start"] is None:  # so that models made before there was one stay the same
            del recipe["warm_start"]
        return {
            "handles": list(self.job.handles),
            "seed": self.config.seed,
            "source": source,
            "cleaning": asdict(self.config.cleaning),
            "model": asdict(self.config.model),
            "recipe": recipe,
            "sampling": asdict(self.config.sampling),
        }

    def settled(self, *, tokens: int, chars: int) -> "Plan":
        """Return the plan with its samples limited as `SamplingConfig.settled` does."""
        return replace(self, sampling=self.sampling.settled(tokens=tokens, chars=chars))

    @property
    def leaves_adapter(self) -> bool:
        """Whether the model folder holds an adapter, to be put on its base, instead of a model."""
        return self.config.leaves_adapter

    @property
    def digest(self) -> str:
        """SHA-256 of the identity, in 64 hexadecimal digits."""
        # Never in another form: all finished jobs would count as others.
        canonical = json.dumps(self.identity, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return `key: old -> new` for every value in which two identities differ."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def user_of(job: Job) -> str | list[str]:
    """Return what `user=` is for one job."""
    return list(job.handles) if job.is_cyborg else job.handles[0]


def is_batch(user: Any) -> bool:
    """Whether `user=` names a file, so that a ledger is kept even for one job."""
    return isinstance(user, str) and user.startswith(FILE_PREFIX)


def why_no_crowd(config: TrainConfig) -> str | None:
    """Return why no crowd can be trained for a batch, as far as its settings tell; None: it can."""
    if not is_batch(config.user):
        return f"with user={config.user}; expected user=file:PATH, many people"
    if config.source.kind in SERVICES:
        return (
            f"with source={config.source.kind}, which would be asked twice; expected posts on "
            "disk; use `huggingtweets import` once"
        )
    return None


def _warm_start(config: TrainConfig) -> str | None:
    """Return where a job begins: `auto` is the crowd of a batch whose posts were donated to all.

    Raises:
        ConfigError: what it would leave is of no use to others.
    """
    asked = config.recipe.warm_start
    if asked == AUTO:
        is_donated = config.consent is Consent("public-donation")
        can_be = why_no_crowd(config) is None and not config.leaves_adapter
        return BATCH if is_donated and can_be else None
    if asked and config.leaves_adapter:
        raise ConfigError(
            "publish.lora: got adapter with recipe.warm_start, whose adapters fit no base that "
            "others have; expected whole models; set publish.lora=merged"
        )
    return asked


def make_plan(config: TrainConfig, job: Job) -> Plan:
    """Check what no single field can know and freeze the plan of one job.

    Raises:
        ConfigError: two settings do not go together.
    """
    if config.model.path is None and config.recipe.block_size > config.model.max_positions:
        raise ConfigError(
            f"recipe.block_size: got {config.recipe.block_size}; expected at most "
            f"model.max_positions={config.model.max_positions} of the tiny model; "
            f"set recipe.block_size={config.model.max_positions}"
        )
    if config.recipe.stop is Stop.memorisation and config.recipe.heldout_frac == 0:
        raise ConfigError(
            "recipe.stop: got memorisation with recipe.heldout_frac=0; expected held-out posts to "
            "judge by; set recipe.heldout_frac=0.1 or recipe.stop=never"
        )
    if config.publish.kind is PublishKind.hub and config.consent is Consent.unstated:
        grounds = ", ".join(ground for ground in Consent if ground is not Consent.unstated)
        raise ConfigError(
            "consent: got unstated with publish=hub; expected on what ground the posts of "
            f"{', '.join(job.handles[:3])} are used; set consent= to one of {grounds}, "
            "or use publish=local"
        )
    recipe = replace(config.recipe, warm_start=_warm_start(config))
    narrowed = replace(config, user=user_of(job), shard=None, job_index=None, recipe=recipe)
    return Plan(job, narrowed, config.sampling)
