"""What the trials of a sweep share, and the configuration of each."""

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from huggingtweets.config.change import change_value
from huggingtweets.config.compose import compose_config, group_choices, to_config
from huggingtweets.config.plan import make_plan
from huggingtweets.config.results_schema import PublishConfig, PublishKind
from huggingtweets.config.schema import TrainConfig, group_names
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.jobs.consent import settle_consent
from huggingtweets.jobs.selection import quote_user, select_jobs
from huggingtweets.logs import world_size
from huggingtweets.storage.files import flatten
from huggingtweets.sweep.space import Dimension, Scalar, as_override, check_space, wrong
from huggingtweets.sweep.spec import SweepSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """One sweep over one or more users."""

    spec: SweepSpec
    root: Path
    """Its folder."""
    config: TrainConfig
    """What all trials share; a key that is searched has some value of its space."""
    jobs: tuple[Job, ...]
    """One a user; every trial trains them all."""
    default: TrainConfig
    """The same as it stands without a search."""

    @property
    def slugs(self) -> tuple[str, ...]:
        """Of the jobs."""
        return tuple(job.slug for job in self.jobs)

    @property
    def posts_dir(self) -> Path:
        """Where the posts lie, once for all trials."""
        return self.root / "posts"

    @property
    def max_epochs(self) -> int:
        """Of the longest training."""
        epochs = self.spec.space.get("recipe.epochs")
        searched = epochs.ends() if epochs else (self.config.recipe.epochs,)
        return max(self.default.recipe.epochs, *(int(value or 0) for value in searched))

    def trial_config(self, params: Mapping[str, Scalar], folder: Path) -> TrainConfig:
        """Return the configuration of one trial: no samples, no card, nothing published.

        Raises:
            ConfigError: two values do not go together.
        """
        config = _with_params(self.config, self.spec.config, params)
        return replace(
            config,
            output_dir=str(folder),
            sampling=replace(config.sampling, num=0),
            publish=PublishConfig(PublishKind.none),
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the trials, flat and as plain values."""
        plan = make_plan(self.config, self.jobs[0])
        unused = ("handles", "sampling")  # of one person's job; trials are not sampled
        flat = flatten({key: value for key, value in plan.identity.items() if key not in unused})
        searched = tuple(self.spec.space)
        shared = {
            key: value
            for key, value in flat.items()
            if not any(key == one or key.startswith(f"{one}.") for one in searched)
        }
        # The study keeps it as JSON, and it is compared with what comes back. Another `repr` of the
        # dimensions would have every sweep refused that has begun.
        shared |= {"space": str(dict(self.spec.space)), "users": list(self.slugs)}
        shared |= {"objective": list(self.spec.objective.names)}
        plain: dict[str, Any] = json.loads(json.dumps(shared))
        return plain


def check_alone(file: str, arguments: Sequence[str]) -> None:
    """Refuse a launcher of several processes.

    Raises:
        ConfigError: with the command to use.
    """
    if world_size() > 1:
        command = shlex.join(["huggingtweets", "sweep", file, *arguments])
        expected = f"one; run `{command}`, several times at once to share the work"
        raise wrong("sweep", f"{world_size()} processes of a launcher", expected)


def plan_sweep(spec: SweepSpec, path: Path) -> Sweep:
    """Compose what the trials share, choose the users, and try the ends of the space.

    Raises:
        ConfigError: one sentence naming the key.
    """
    users, rest = _split_users(quote_user(spec.config))
    jobs: list[Job] = []
    for override in users or [""]:
        config = to_config(compose_config([*rest, *([override] if override else [])]))
        jobs += select_jobs(config.user, config.shard, config.job_index, config.source)
    jobs = list(dict.fromkeys(jobs))
    if not jobs:
        raise wrong("user", "no user for this shard", "one or more; drop shard=")
    if not config.recipe.heldout_frac and "recipe.heldout_frac" not in spec.space:
        expected = "held-out posts to score the trials by; set recipe.heldout_frac=0.1"
        raise wrong("recipe.heldout_frac", "0 in a sweep", expected)
    check_space(spec.space, rest, str(path))
    default = config = settle_consent(config, jobs)
    spec = replace(spec, default=_default_params(spec.space, default, rest, jobs))
    config = _with_params(config, rest, {key: one.ends()[-1] for key, one in spec.space.items()})
    root = Path(config.output_dir)
    if not any(text.startswith("output_dir=") for text in rest):
        root = root / f"sweep-{spec.name}"
    return Sweep(replace(spec, config=tuple(rest)), root, config, tuple(jobs), default)


def _default_params(
    space: Mapping[str, Dimension],
    config: TrainConfig,
    overrides: Sequence[str],
    jobs: Sequence[Job],
) -> dict[str, Scalar]:
    """Return the searched keys as they stand; empty where such a training is impossible."""
    try:
        for job in jobs:
            make_plan(config, job)
    except ConfigError as err:
        logger.warning("the default is not a trial of this sweep: %s", err)
        return {}
    choices = group_choices(overrides) if any(key in group_names() for key in space) else {}
    params: dict[str, Scalar] = {}
    for key in space:
        value = choices[key] if key in choices else attrgetter(key)(config)
        params[key] = value.value if isinstance(value, StrEnum) else value
    return params


def _with_params(
    config: TrainConfig, overrides: Sequence[str], params: Mapping[str, Scalar]
) -> TrainConfig:
    """Return the configuration with other values; a group is composed again."""
    if not any(key in group_names() for key in params):
        for key, value in params.items():
            config = change_value(config, key, value)
        return config
    chosen = [as_override(key, value) for key, value in params.items()]
    changed = to_config(compose_config([*overrides, *chosen]))
    return replace(changed, user=config.user, consent=config.consent)


def _split_users(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell the last `user=` from the rest; `user=a,b` are two users, `user=[a,b]` is one voice."""
    users: list[str] = []
    rest: list[str] = []
    for text in overrides:
        if not text.startswith("user="):
            rest.append(text)
            continue
        override = OverridesParser.create().parse_override(text)
        if override.is_sweep_override():
            users = [f"user={one}" for one in override.sweep_string_iterator()]
        else:
            users = [text]
    return users, rest
