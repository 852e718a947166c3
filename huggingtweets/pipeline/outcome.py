"""What became of one job, as the facts that card, preview, report and result.json tell, and these.

From plain values, and imports nothing heavy: a helper process makes the texts and the picture while
the model's weights are written.
"""

import json
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import yaml

from huggingtweets.config.plan import Plan
from huggingtweets.config.posts_schema import SourceKind
from huggingtweets.config.results_schema import PublishKind
from huggingtweets.config.schema import BATCH, CROWD_FOLDER, TrainConfig
from huggingtweets.data.language import detect_languages
from huggingtweets.data.split import Split
from huggingtweets.evaluation.figures import (
    UNMEASURED,
    Quality,
    Spans,
    evaluate_text,
    model_quality,
)
from huggingtweets.evaluation.intervals import Interval
from huggingtweets.generation.samples import Samples
from huggingtweets.posts.cleaning import CleaningReport
from huggingtweets.preview.avatars import read_pictures
from huggingtweets.preview.lettering import is_drawable
from huggingtweets.preview.picture import preview_png
from huggingtweets.publishing.card import card_template, render_card
from huggingtweets.publishing.facts import (
    Artifact,
    BaseModel,
    DataCounts,
    HeldoutFigures,
    Links,
    ModelFacts,
)
from huggingtweets.publishing.quality import build_sample, quality_metrics, quality_tables
from huggingtweets.publishing.report import render_report, report_template
from huggingtweets.storage.files import flatten
from huggingtweets.storage.paths import expanded, shipped
from huggingtweets.tracking.base import ArtifactKind, dataset_artifact, tweets_artifact
from huggingtweets.training.records import HeldoutLoss, Scores, TrainResult

_PACKAGES = ("huggingtweets", "torch", "transformers", "accelerate", "tokenizers")


def warm_up() -> None:
    """Load what the first texts of a process need, 0.7 s of CPU time."""
    detect_languages(["a post"])
    is_drawable("a post")
    card_template()
    report_template()


@dataclass(frozen=True)
class Outcome:
    """A trained, sampled and scored job, as plain values: all that is told about it."""

    plan: Plan
    base: BaseModel
    people: tuple[CleaningReport, ...]
    split: Split
    data: DataCounts
    train: TrainResult
    samples: Samples
    scores: tuple[Scores, Scores] | None
    """Of the model and its base; None where nobody asks."""
    engine: str
    links: Links
    started_at: str

    @property
    def is_published(self) -> bool:
        """Whether there are readers for a card, a picture and a report."""
        return self.plan.config.publish.kind is not PublishKind.none


@dataclass(frozen=True)
class Texts:
    """What a reader of a finished job finds beside the weights."""

    facts: ModelFacts
    result: dict[str, Any]
    """The content of result.json."""
    card: str = ""
    preview: bytes = b""
    """A PNG file."""
    report: str = ""
    """All three are empty where nothing is published."""


def build_texts(outcome: Outcome, finished_at: str) -> Texts:
    """Judge a model's samples and scores, and make all there is to say about it."""
    quality, copied = judge(outcome)
    facts = build_facts(outcome, quality, copied, finished_at=finished_at)
    result = build_result(outcome, facts, quality)
    if not outcome.is_published:
        return Texts(facts, result)
    preview = preview_png(facts)
    return Texts(facts, result, render_card(facts), preview, render_report(facts, preview))


def judge(outcome: Outcome) -> tuple[Quality, list[Spans]]:
    """Say how good a model is, and where its samples were copied, in characters of each."""
    predictions = outcome.samples.predictions
    if outcome.scores is None:
        return UNMEASURED, [()] * len(predictions)
    seed = outcome.plan.config.seed
    text, spans = evaluate_text(
        [(one.input, one.prediction) for one in predictions],
        train=[post for user in outcome.split.train for post in user],
        heldout=[post for user in outcome.split.heldout for post in user],
        seed=seed,
    )
    model, base = (model_quality(scores, seed=seed) for scores in outcome.scores)
    return Quality(model, base, text), spans


def build_facts(
    outcome: Outcome, quality: Quality, copied: Sequence[Spans], *, finished_at: str
) -> ModelFacts:
    """Collect all there is to say about a finished model."""
    plan, result, samples = outcome.plan, outcome.train, outcome.samples
    kept, before = kept_and_base_loss(result)
    heldout = None
    if kept and before:
        heldout = HeldoutFigures(
            kept.loss,
            kept.perplexity,
            kept.bits_per_byte,
            before.bits_per_byte,
            _ends(quality.model.bits_per_byte),
            _ends(quality.base.bits_per_byte) if quality.base else None,
        )
    return ModelFacts(
        slug=plan.job.slug,
        people=_as_written(outcome.people, plan),
        base=outcome.base,
        recipe=told_identity(plan)["recipe"],
        data=outcome.data,
        train=replace(result, scores={}),
        engine=outcome.engine,
        versions=versions(),
        command=command_of(plan),
        consent=plan.config.consent,
        heldout=heldout,
        samples=tuple(
            build_sample(each.input, each.prediction, spans)
            for each, spans in zip(samples.predictions, copied, strict=True)
        ),
        human_lengths=tuple(len(post) for posts in outcome.split.train for post in posts),
        machine_lengths=tuple(len(each.prediction) for each in samples.predictions),
        lineage=_lineage(plan.job.slug, outcome.base.name),
        links=outcome.links,
        pictures=read_pictures(plan.paths.pictures, plan.job.handles)
        if plan.config.publish.pictures
        else {},
        languages=_languages(outcome),
        finished_at=finished_at,
        tables=quality_tables(quality, samples.refused),
        metrics=quality_metrics(quality),
    )


def _as_written(people: Sequence[CleaningReport], plan: Plan) -> tuple[CleaningReport, ...]:
    """Return the people with their handles as they were typed."""
    written = dict(zip(plan.job.handles, plan.job.written, strict=False))
    return tuple(replace(person, written=written.get(person.handle, "")) for person in people)


def _languages(outcome: Outcome) -> tuple[str, ...]:
    """Languages for the card; where there is none, finding them would be for nothing."""
    if not outcome.is_published:
        return ()
    return detect_languages([post for posts in outcome.split.train for post in posts])


def _lineage(slug: str, base_name: str) -> tuple[tuple[Artifact, ...], ...]:
    posts, dataset = tweets_artifact(slug).name, dataset_artifact(slug).name
    base = Artifact(base_name, ArtifactKind.pretrained_model)
    return (
        (Artifact(posts, ArtifactKind.raw_dataset), base),
        (Artifact(dataset, ArtifactKind.train_dataset, (posts,)),),
        (Artifact(slug, ArtifactKind.finetuned_model, (dataset, base_name)),),
    )


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return (interval.low, interval.high) if interval else None


def kept_and_base_loss(result: TrainResult) -> tuple[HeldoutLoss | None, HeldoutLoss | None]:
    """Return the held-out loss of the kept weights and of the base; None: nothing held out."""
    losses = {each.step: each.heldout for each in result.evals}
    return losses.get(result.kept_step), losses.get(0)


def build_result(outcome: Outcome, facts: ModelFacts, quality: Quality) -> dict[str, Any]:
    """Return the content of result.json."""
    plan = outcome.plan
    long = ("history", "evals", "scores")
    counts = ("downloaded", "retweets", "short", "repeats", "kept")
    per_user = {
        person.handle: {key: getattr(person, key) for key in counts} for person in facts.people
    }
    return {
        "slug": plan.job.slug,
        "handles": list(plan.job.handles),
        "written": list(plan.job.written or plan.job.handles),
        "status": "done",
        "digest": plan.digest,
        "consent": plan.config.consent.value,
        "tweets": {key: sum(user[key] for user in per_user.values()) for key in counts}
        | {"users": per_user},
        "data": asdict(facts.data),
        "train": {key: value for key, value in vars(facts.train).items() if key not in long},
        "eval": asdict(facts.heldout) if facts.heldout else None,
        "quality": asdict(quality) | {"refused_samples": dict(outcome.samples.refused)},
        "engine": facts.engine,
        "versions": dict(facts.versions),
        "started_at": outcome.started_at,
        "finished_at": facts.finished_at,
    }


@cache
def versions() -> Mapping[str, str]:
    """Return the versions that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def told_identity(plan: Plan) -> dict[str, Any]:
    """Return what decides the result as others may read it, in cards and at W&B.

    Of a path on this machine the last name alone is told: folders are named after people.
    """
    told = plan.identity
    source, model, recipe = told["source"], told["model"], told["recipe"]
    path = plan.config.source.path
    is_hub = plan.config.source.kind is SourceKind.hub
    source["path"] = _told_path(path) if is_hub else source["path"] or path  # `.` has no name
    model["path"] = _told_path(model["path"])
    recipe["warm_start"] = _told_path(plan.config.recipe.warm_start)
    return told


def _told_path(path: str | None) -> str | None:
    """Return a name on the Hub as it is, and the last one of a path on this machine."""
    if path is None:
        return None
    place = expanded(path)
    return (place.name or path) if place.is_absolute() or place.exists() else path


def command_of(plan: Plan) -> str:
    """Return what to type to train this model again: all that is not so by itself.

    Paths stand there as `told_identity` has them. Terms have to be accepted anew.
    """
    handles = plan.job.handles
    words = [f"user={_written(list(handles) if plan.job.is_cyborg else handles[0])}"]
    told, defaults = flatten(told_identity(plan)), _defaults()
    if told["recipe.warm_start"] == BATCH:  # one person alone is no batch: its folder does
        told["recipe.warm_start"] = CROWD_FOLDER
    for key in defaults:
        if key in told and (told[key] != defaults[key] or key == "source.kind"):
            words.append(f"{key.removesuffix('.kind')}={_written(told[key])}")
    return "huggingtweets train " + shlex.join(words)


@cache
def _defaults() -> Mapping[str, Any]:
    """Return all settings, by dotted key, as the shipped `conf/` has them."""
    found: dict[str, Any] = asdict(TrainConfig())
    conf = shipped("conf")
    composed = yaml.safe_load((conf / "train.yaml").read_text(encoding="utf-8"))
    for entry in composed["defaults"]:
        for group, option in entry.items() if isinstance(entry, dict) else ():
            if group in found:
                path = conf / group / f"{option}.yaml"
                found[group] |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return flatten(found)


def _written(value: Any) -> str:
    """Return a value as Hydra reads it from the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[A-Za-z][\w./-]*", value, re.ASCII) and value.lower() not in _NO_TEXT:
        return value
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no reference to another key
    return '"' + re.sub(r'(\\*)("|\Z)', r"\1\1\2", text).replace('"', '\\"') + '"'


_NO_TEXT = ("null", "none", "true", "false", "inf", "nan")
"""What is taken for something else than text, unless it is quoted."""
