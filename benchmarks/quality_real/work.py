"""One group of runs, trained by the product's own engines: LoRA stacked, all weights one by one."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from quality_base import read_timeline, unlike

from huggingtweets.bases.model import Base, find_base, open_base
from huggingtweets.config.compose import read_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.schema import Adapter, SplitKind
from huggingtweets.data.copying import find_runs
from huggingtweets.data.prepare import Prepared, clean_posts, pack_set, prepare
from huggingtweets.data.split import Split, split_posts
from huggingtweets.evaluation.figures import bits_per_byte, evaluate_text
from huggingtweets.evaluation.memorisation import measure_memorisation
from huggingtweets.generation.guards import build_guards
from huggingtweets.handles import Job
from huggingtweets.pipeline.stacking import choose_settings, tuning_of
from huggingtweets.pipeline.trained import Studio, trained_by_single
from huggingtweets.pipeline.whole_model import Trained
from huggingtweets.posts.cleaning import CleaningReport, CleanPosts, mask_timeline
from huggingtweets.posts.records import Timeline
from huggingtweets.storage.lock import acquire_lock
from huggingtweets.training.launch import build_accelerator
from huggingtweets.training.parallel.single import train_single
from huggingtweets.training.progress import Training, TrainingJob, training_job
from huggingtweets.training.records import TrainResult
from huggingtweets.training.stacked.pool import train_stacks
from quality_real.canaries import Canary, candidates, exposure, make_canaries, plant
from quality_real.plan import Design, Row, Run, Words
from quality_real.smoothing import smoothed_labels, token_shares

logger = logging.getLogger("quality_real")

CPU = torch.device("cpu")
ALWAYS = (
    "engine.precision=fp32", "engine.save_every_s=1e9", "tracking=none", "cleaning.min_chars=0",
)  # fmt: skip
"""fp32: of the arithmetic, nothing is to be chosen here."""


@cache
def recipe_of(words: Words) -> dict[str, Any]:
    """Return what overrides mean: the composed recipe, cleaning and sampling, as plain values."""
    config = read_config(["user=a", *words])
    groups: dict[str, Any] = {
        "recipe": config.recipe,
        "cleaning": config.cleaning,
        "sampling": config.sampling,
    }
    return {
        f"{name}.{key}": getattr(value, "value", value)
        for name, group in groups.items()
        for key, value in asdict(group).items()
        if key != "warm_start"  # the base of a run says it
    }


@dataclass(frozen=True)
class Ready:
    """A run whose posts are blocks."""

    run: Run
    plan: Plan
    prepared: Prepared
    unseen: tuple[str, ...]
    """Older posts, which say nearly the same as no training post."""
    canaries: tuple[Canary, ...]

    @property
    def train(self) -> tuple[str, ...]:
        """Training posts."""
        return tuple(post for posts in self.prepared.split.train for post in posts)

    @property
    def heldout(self) -> tuple[str, ...]:
        """Held-out posts."""
        return tuple(post for posts in self.prepared.split.heldout for post in posts)


@dataclass(frozen=True)
class Done:
    """What training left."""

    result: TrainResult
    model: Trained
    seconds: float
    """Of the CPU, evaluations included."""


class Workshop:
    """Trains groups of runs; keeps what they share."""

    def __init__(self, design: Design, shared: Path, folder: Path) -> None:
        """Train nothing yet.

        Args:
            design: on whom, and how much.
            shared: folder of the accounts' posts.
            folder: for the model of the crowd.
        """
        self._design, self._shared, self._folder = design, shared, folder

    def do(self, group: Sequence[Run]) -> Iterator[tuple[Run, Row]]:
        """Train a group, all of one setting, and yield what came of each run."""
        base = find_base(self._plan(group[0], "unused").config.model)
        with tempfile.TemporaryDirectory() as output_dir:
            ready = [self._prepare(run, base, output_dir) for run in group]
            is_lora = ready[0].plan.config.recipe.adapter is Adapter.lora
            for one, done in (_stacked if is_lora else _one_by_one)(ready, base):
                yield one.run, _row(one, done, base)

    def _model_words(self, run: Run) -> Words:
        if run.base == "tiny":
            return ("model=tiny",)
        if run.base == self._design.crowd_name:
            return (f"model.path={self.crowd()}",)
        return self._design.base

    def _plan(self, run: Run, output_dir: str) -> Plan:
        total = run.num_train + run.num_heldout
        words = [
            f"user={run.account}", *self._model_words(run), *ALWAYS, *run.words,
            f"sampling.num={run.samples}", f"seed={run.seed}", f"output_dir={output_dir}",
            f"recipe.split={SplitKind.time}", f"recipe.heldout_frac={run.num_heldout / total}",
        ]  # fmt: skip
        config = read_config(words)
        micro = min(4, config.recipe.global_batch_size)  # auto would try out sizes
        config = replace(config, engine=replace(config.engine, micro_batch_size=micro))
        return make_plan(config, Job((run.account.lower(),)))

    def _timeline(self, account: str) -> Timeline:
        return read_timeline(self._shared, account)

    def _prepare(self, run: Run, base: Base, output_dir: str) -> Ready:
        plan = self._plan(run, output_dir)
        timeline, canaries = self._timeline(run.account), tuple[Canary, ...]()
        total = run.num_train + run.num_heldout
        if run.has_canaries:
            canaries = tuple(make_canaries(run.seed))
            places = range(2 * run.num_heldout, run.num_heldout + run.num_train)
            timeline = plant(timeline, canaries, places)
        [user], reports = _cleaned(plan, [timeline])
        prepared = _prepared(plan, [replace(user, posts=user.posts[:total])], reports, base)
        train = prepared.split.train[0]
        older = [post.text for post in user.posts[total : 3 * total]]
        plan = plan.settled(tokens=prepared.long_tokens, chars=prepared.long_chars)
        return Ready(run, plan, prepared, tuple(unlike(older, train)), canaries)

    def split(self, run: Run) -> Split:
        """Return the posts of a run as texts: what it trained on and what it held out."""
        plan = self._plan(run, "unused")
        [user], _ = _cleaned(plan, [self._timeline(run.account)])
        user = replace(user, posts=user.posts[: run.num_train + run.num_heldout])
        recipe = plan.config.recipe
        return split_posts(
            [user], kind=recipe.split, heldout_frac=recipe.heldout_frac, seed=plan.config.seed
        )

    def crowd(self) -> Path:
        """Return the folder of the base after other people's posts, training it where it is not."""
        design = self._design
        digest = hashlib.sha256(
            repr((design.base, design.crowd, design.num_crowd, recipe_of(CROWD))).encode()
        )
        folder = self._folder / f"crowd-{digest.hexdigest()[:12]}"
        if (folder / "config.json").exists():
            return folder
        run = Run("crowd", "crowd", CROWD, "crowd", design.num_crowd, 0)
        base = find_base(self._plan(run, "unused").config.model)
        with tempfile.TemporaryDirectory() as output_dir:
            plan = self._plan(replace(run, num_heldout=2), output_dir)
            users, reports = _cleaned(plan, [self._timeline(one) for one in design.crowd])
            users = [replace(one, posts=one.posts[: design.num_crowd]) for one in users]
            prepared = _prepared(plan, users, reports, base)
            ready = Ready(run, plan, prepared, (), ())
            [(_, done)] = _stacked([ready], base)
            draft = self._folder / "crowd-draft"
            draft.mkdir(parents=True, exist_ok=True)
            done.model.save(plan, base, draft)
        draft.rename(folder)
        logger.info("crowd: %d posts, %.0f s", len(ready.train), done.seconds)
        return folder


CROWD = ("recipe=lora", "recipe.epochs=1")
"""Whoever begins from the crowd trains as others do; the crowd itself sees each post once."""


def _cleaned(
    plan: Plan, timelines: Sequence[Timeline]
) -> tuple[list[CleanPosts], tuple[CleaningReport, ...]]:
    cleaning = plan.config.cleaning
    return clean_posts([mask_timeline(one, cleaning) for one in timelines], cleaning)


def _prepared(
    plan: Plan, users: Sequence[CleanPosts], reports: tuple[CleaningReport, ...], base: Base
) -> Prepared:
    return prepare(
        users, reports, recipe=plan.config.recipe, seed=plan.config.seed, codec=base.codec
    )


def _stacked(ready: Sequence[Ready], base: Base) -> Iterator[tuple[Ready, Done]]:
    """Train adapters side by side; the CPU's time is divided by the tokens of each."""
    plan = ready[0].plan
    opened = open_base(base, plan.config.recipe)
    tuning = tuning_of(opened, base, plan.config.recipe, CPU)
    settings = choose_settings(tuning, plan, CPU, len(ready))
    studio = Studio(opened, CPU, tuning)
    labels: AbstractContextManager[None] = nullcontext()
    if frac := ready[0].run.smoothing:
        assert len(ready) == 1, "labels are smoothed for one account at a time"
        targets = ready[0].prepared.training_set.blocks.targets
        labels = smoothed_labels(frac, token_shares(targets, base.config.vocab_size))
    jobs: list[TrainingJob | None] = [
        training_job(one.plan, one.prepared, slug=str(index)) for index, one in enumerate(ready)
    ]
    start = time.process_time()
    with labels:
        found = {
            result.slug: result
            for result in train_stacks(tuning, iter(jobs), settings=settings, device=CPU)
        }
    seconds = time.process_time() - start
    total = sum(result.trained.tokens for result in found.values() if result.trained)
    for index, one in enumerate(ready):
        result = found[str(index)]
        if result.error is not None:
            logger.warning("%s: %s", one.run, result.error)
            continue
        assert result.trained is not None
        assert result.exported is not None
        model = studio.model(result.exported, plan.config.recipe)
        yield one, Done(result.trained, model, seconds * result.trained.tokens / total)


def _one_by_one(ready: Sequence[Ready], base: Base) -> Iterator[tuple[Ready, Done]]:
    accelerator = build_accelerator(ready[0].plan.config.engine.precision)
    for one in ready:
        start = time.process_time()
        with acquire_lock(one.plan.paths.root) as lock:
            training = Training(training_job(one.plan, one.prepared))
            result, weights = train_single(accelerator, base, training, one.plan, lock)
        seconds = time.process_time() - start
        yield one, Done(result, trained_by_single(weights, one.plan, base, CPU), seconds)


def _row(one: Ready, done: Done, base: Base) -> Row:
    """Return what is kept of a run, as plain values."""
    result = done.result
    kept, before = result.scores[result.kept_step], result.scores[0]
    posts = [
        [digest_of(text), round(own.nats, 4), round(first.nats, 4), own.num_bytes]
        for text, own, first in zip(one.heldout, kept.heldout, before.heldout, strict=True)
    ]
    figures = {
        "bits": bits_per_byte(kept.heldout),
        "base": bits_per_byte(before.heldout),
        "train_bits": bits_per_byte(kept.probe) if kept.probe else None,
        "tokens": result.tokens,
        "steps": result.steps,
        "kept_epoch": next(each.epoch for each in result.evals if each.step == result.kept_step),
        "seconds": done.seconds,
        "tokens_per_byte": sum(each.num_tokens for each in kept.heldout)
        / sum(each.num_bytes for each in kept.heldout),
    }
    row: Row = {"figures": figures, "posts": posts, "evals": [_line(each) for each in result.evals]}
    if one.run.samples:
        row |= _sampled(one, done, base)
    if one.canaries:
        row["canaries"] = [_exposed(each, one, done, base) for each in one.canaries]
    logger.info("%s, %s: %s", one.run.setting, one.run.account, figures)
    return row


def _line(each: Any) -> dict[str, float | None]:
    """Return an evaluation as plain values."""
    return {
        "epoch": round(each.epoch, 3),
        "bits": each.heldout.bits_per_byte,
        "train_bits": each.trained.bits_per_byte if each.trained else None,
        "extracted": each.extracted.verbatim_frac if each.extracted else None,
        "prefix": each.extracted.prefix_frac if each.extracted else None,
    }


def _sampled(one: Ready, done: Done, base: Base) -> Row:
    """Draw samples and hold them against training posts and posts that no model has seen."""
    plan, posts = one.plan, one.train
    guards = build_guards(plan.sampling, mask_pii=plan.config.cleaning.mask_pii, train=posts)
    start = time.process_time()
    drawn = done.model.sample(plan, base, guards)
    samples = [(each.input, each.prediction) for each in drawn.predictions]
    text, _ = evaluate_text(samples, train=posts, heldout=one.heldout, seed=0)
    found: Row = {"samples": samples, "refused": dict(drawn.refused), "texts": {}}
    if text is None:
        return found
    own, whole = text.memorisation.samples, [sample for _, sample in samples]
    found["texts"] = {
        "equal": own.equal_frac,
        "copied": own.copied_frac,
        "runs": own.mean_ngram_frac,
        "longest": max(run.longest for run in find_runs(posts, whole)),
        "distinct_2": text.diversity.samples.distinct[1],
        "human_distinct_2": text.diversity.humans.distinct[1],
        "seconds": time.process_time() - start,
    }
    if len(one.unseen) >= len(posts):
        unseen, _ = measure_memorisation(whole, one.unseen[: len(posts)], ())
        found["texts"]["unseen_runs"] = unseen.samples.mean_ngram_frac
    return found


def _exposed(canary: Canary, one: Ready, done: Done, base: Base) -> Row:
    """Return the exposure of a canary, and how often it stands in the training posts."""
    texts = candidates(canary, one.run.seed)
    packed = pack_set(texts, base.codec, 64)
    assert packed is not None
    scores = done.model.score(one.plan, base, packed, of_base=False)
    return {
        "form": canary.form,
        "copies": canary.copies,
        "seen": sum(canary.text in post for post in one.train),
        "exposure": exposure([score.nats for score in scores]),
        "candidates": len(texts),
    }


def digest_of(text: str) -> str:
    """Return what a post is told by in the rows."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
