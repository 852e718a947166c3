"""Train a crowd, and begin from it: `recipe.warm_start`.

What posts have in common (that they are short, their links, tags and names) is learnt once from
some posts of many people. Each person's model then has only the voice left to learn, from posts
that may be few. What it brings: docs/quality.md, "A warm start".
"""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig

from huggingtweets.bases.model import Base, open_base
from huggingtweets.config.plan import Plan, make_plan, why_no_crowd
from huggingtweets.config.results_schema import AdapterExport
from huggingtweets.config.schema import BATCH, Keep, Stop, TrainConfig
from huggingtweets.crowd.record import Crowd, crowd_folder, read_crowd, seal_crowd
from huggingtweets.data.prepare import clean_posts, prepare
from huggingtweets.data.split import split_posts
from huggingtweets.errors import ConfigError, HuggingtweetsError, JobBusyError, OptedOutError
from huggingtweets.handles import Job
from huggingtweets.pipeline.stacking import choose_settings, tuning_of
from huggingtweets.pipeline.stages import load_masked
from huggingtweets.pipeline.trained import Studio
from huggingtweets.posts.cleaning import CleaningReport, CleanPosts, check_enough
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.storage.files import replacing_folder
from huggingtweets.storage.lock import acquire_lock
from huggingtweets.training.progress import training_job
from huggingtweets.training.stacked.pool import train_stacks
from huggingtweets.training.stopping import raise_if_stopped, stop_requested

logger = logging.getLogger(__name__)

MAX_PEOPLE = 64
MIN_PEOPLE = 4
"""Of fewer people it would be their voices, and not what posts have in common."""
POSTS_EACH = 40
"""Sixteen people with 40 posts each were measured (docs/quality.md)."""
_SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
"""Keys that the configurations of transformers have in common."""
_POLL_S = 2.0


def begin_warm(
    config: TrainConfig,
    jobs: Sequence[Job],
    base: Base,
    device: torch.device,
    why_not: str | None,
) -> Base:
    """Return the base as the posts of the crowd left it; of a batch trained first if need be.

    Any number of processes may ask at once: one trains, the others wait for it.

    Args:
        config: of the batch, or of a job where `recipe.warm_start` is a folder.
        jobs: of the whole batch, all its shards.
        base: as it is without.
        device: to train on.
        why_not: why the fused engine cannot train this base; None: it can.

    Raises:
        ConfigError: there is no crowd, or it is another base's.
        OptedOutError: somebody whose posts are in it wants no model.
        StoppedError: a stop was asked for.
    """
    warm_start = config.recipe.warm_start
    assert warm_start is not None
    folder = crowd_folder(warm_start, Path(config.output_dir))
    crowd = _find_crowd(folder, config, base)
    if crowd is None and warm_start == BATCH:
        wrong = why_no_crowd(config)
        if why_not and wrong is None:
            wrong = f"with a base that is trained alone ({why_not}); expected another base"
        if wrong:
            raise ConfigError(
                f"recipe.warm_start: got batch {wrong}, or the crowd of another batch as "
                "recipe.warm_start=FOLDER, or none"
            )
        crowd = _wait_or_train(folder, config, jobs, base, device)
    if crowd is None:
        raise ConfigError(
            f"recipe.warm_start: got {warm_start!r}, which holds no whole crowd; expected `batch`, "
            "or the folder `.crowd` that a batch with recipe.warm_start=batch left in its "
            "output_dir"
        )
    logger.info("warm start: %s begins from %s", base.name, crowd.told)
    return replace(
        base, path=str(crowd.model.resolve()), revision=None, adapter=None, warm_start=crowd.told
    )


def _find_crowd(folder: Path, config: TrainConfig, base: Base) -> Crowd | None:
    """Return a crowd; None: there is none, or it is a batch's own and has to be trained anew."""
    crowd = read_crowd(folder)
    if crowd is None:
        return None
    try:
        check_opted_out(crowd.people, config.optout_file)
    except OptedOutError:
        if config.recipe.warm_start != BATCH:
            raise
        return None
    if crowd.base != base.name or not _has_shape_of(base, crowd):
        other = crowd.base if crowd.base != base.name else f"another {crowd.base}"
        raise ConfigError(
            f"recipe.warm_start: got {crowd.folder}, which was trained from {other}; expected "
            f"one of {base.name}; use another output_dir, or delete the folder"
        )
    return crowd


def _has_shape_of(base: Base, crowd: Crowd) -> bool:
    """Whether a crowd's model is built like a base.

    Names do not tell: every tiny model is called so, and of a base's folder the last name counts.
    """
    found = AutoConfig.from_pretrained(crowd.model).get_text_config()
    asked = base.config.get_text_config()
    return all(getattr(found, key, None) == getattr(asked, key, None) for key in _SHAPE)


def _wait_or_train(
    folder: Path, config: TrainConfig, jobs: Sequence[Job], base: Base, device: torch.device
) -> Crowd:
    while True:
        raise_if_stopped("warm start")
        try:
            with acquire_lock(folder):
                # Whoever held the lock before may have trained it.
                crowd = _find_crowd(folder, config, base)
                return crowd or _train(folder, config, jobs, base, device)
        except JobBusyError:
            logger.info("warm start: another process trains the crowd")
            time.sleep(_POLL_S)


def _train(
    folder: Path, config: TrainConfig, jobs: Sequence[Job], base: Base, device: torch.device
) -> Crowd:
    """Train the crowd of a batch, an epoch by the recipe of its people, and write it."""
    found = list(_chosen_posts(config, jobs))
    if len(found) < MIN_PEOPLE:
        raise ConfigError(
            f"recipe.warm_start: got batch with {len(found)} people who have enough posts; "
            f"expected {MIN_PEOPLE} or more; drop it"
        )
    users, reports = [user for user, _ in found], tuple(report for _, report in found)
    people = tuple(user.handle for user in users)
    crowd = Crowd(folder, base.name, people, sum(len(user.posts) for user in users))
    logger.info("warm start: training on %s", crowd.told)
    plan = _plan_of_crowd(config, people[0])
    recipe = plan.config.recipe
    prepared = prepare(users, reports, recipe=recipe, seed=config.seed, codec=base.codec)
    opened = open_base(base, recipe)
    tuning = tuning_of(opened, base, recipe, device)
    results = list(
        train_stacks(
            tuning,
            iter([training_job(plan, prepared, slug="crowd")]),
            settings=choose_settings(tuning, plan, device, 1),
            device=device,
            is_stopped=stop_requested,
        )
    )
    raise_if_stopped("warm start")  # a training that was stopped gives no result
    [result] = results
    if result.error is not None:
        raise result.error
    assert result.exported is not None
    model = Studio(opened, device, tuning).model(result.exported, recipe)
    with replacing_folder(crowd.model) as draft:
        model.save(plan, base, draft)
    seal_crowd(crowd)
    return crowd


def _plan_of_crowd(config: TrainConfig, handle: str) -> Plan:
    """Return the recipe of the batch for one epoch, with nothing held out."""
    recipe = replace(
        config.recipe, epochs=1, heldout_frac=0.0, keep=Keep.last, stop=Stop.never, warm_start=None
    )
    publish = replace(config.publish, lora=AdapterExport.merged)
    return make_plan(replace(config, recipe=recipe, publish=publish), Job.of([handle]))


def _chosen_posts(
    config: TrainConfig, jobs: Sequence[Job]
) -> Iterator[tuple[CleanPosts, CleaningReport]]:
    """Yield the newest training posts of people drawn from the batch; held-out ones never.

    Who has too few posts, or opted out, is passed by: the job itself will say so.
    """
    seen = set[str]()
    # By the seed, so that whichever process trains the crowd, it is the same.
    for job in random.Random(f"warm start/{config.seed}").sample(jobs, len(jobs)):
        raise_if_stopped("warm start")
        if len(seen) >= MAX_PEOPLE:
            return
        try:
            found = _posts_of(config, job)
        except HuggingtweetsError as err:
            logger.debug("warm start: without %s (%s)", job.slug, err)
            continue
        for user, report in found:
            if user.handle not in seen:
                seen.add(user.handle)
                yield user, report


def _posts_of(config: TrainConfig, job: Job) -> list[tuple[CleanPosts, CleaningReport]]:
    check_opted_out(job.handles, config.optout_file)
    users, reports = clean_posts(load_masked(config, job), config.cleaning)
    check_enough(reports, config.cleaning)
    recipe = config.recipe
    split = split_posts(
        users, kind=recipe.split, heldout_frac=recipe.heldout_frac, seed=config.seed
    )
    found = []
    for user, report, train in zip(users, reports, split.train, strict=True):
        texts = set(train)
        posts = tuple(post for post in user.posts if post.text in texts)[:POSTS_EACH]
        if posts:
            found.append((replace(user, posts=posts), report))
    return found
