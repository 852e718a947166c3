"""Records one job while it runs: metrics.jsonl, the progress display, and the tracker."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from huggingtweets.bases.model import Base
from huggingtweets.config.plan import Plan
from huggingtweets.data.prepare import Prepared
from huggingtweets.gauges import GAUGES
from huggingtweets.generation.samples import Prediction
from huggingtweets.pipeline.outcome import told_identity
from huggingtweets.publishing.facts import Links
from huggingtweets.storage.files import write_bytes, write_jsonl
from huggingtweets.tracking.base import (
    Phase,
    base_artifact,
    dataset_artifact,
    model_artifact,
    tweets_artifact,
)
from huggingtweets.tracking.build import build_tracker
from huggingtweets.tracking.console import TrainingProgress
from huggingtweets.training.records import LoggedEval, LoggedStep
from huggingtweets.training.schedule import count_steps

logger = logging.getLogger(__name__)


class Recorder:
    """A context manager around one job. On other processes than the main one it does nothing."""

    def __init__(self, plan: Plan, *, is_main: bool, is_shown: bool = True) -> None:
        """Make the tracker; nothing is opened before `start`.

        Args:
            plan: of the job.
            is_main: whether this is the main process.
            is_shown: whether to show progress; a batch shows its own.
        """
        self._plan = plan
        self._is_shown = is_shown
        self._tracker = build_tracker(
            plan.config.tracking,
            plan.job.slug,
            plan.paths,
            is_main=is_main,
            identity=plan.digest,
            is_alone=plan.is_alone,
        )
        self._progress: TrainingProgress | None = None
        self._file: TextIO | None = None

    def __enter__(self) -> "Recorder":
        """Nothing to do: `start` opens what there is to open."""
        return self

    def __exit__(self, kind: object, err: BaseException | None, traceback: object) -> None:
        """Close everything; a job that failed is marked so where it is tracked."""
        self._close()
        if err is not None:
            self._tracker.finish(succeeded=False)

    def start(self, base: Base, prepared: Prepared) -> None:
        """Record what the job is made of and begin to show its training; main process only."""
        plan, paths, slug = self._plan, self._plan.paths, self._plan.job.slug
        write_jsonl(paths.dataset, _dataset_rows(plan, prepared))
        posts = tweets_artifact(slug, paths.posts, paths.cleaning)
        dataset = dataset_artifact(slug, paths.dataset)
        told = told_identity(plan)
        self._tracker.start_phase(Phase.preprocess, told["source"] | told["cleaning"])
        self._tracker.log_artifact(posts)
        self._tracker.log_artifact(dataset)
        self._tracker.start_phase(Phase.train, told["recipe"] | {"seed": plan.config.seed})
        self._tracker.use_artifact(dataset)
        self._tracker.use_artifact(base_artifact(plan.config.model.path))
        # A new file: a process that was given up as dead may still write into the old one.
        write_bytes(paths.metrics, b"")
        self._file = paths.metrics.open("a", encoding="utf-8")
        if self._is_shown:
            self._progress = TrainingProgress(
                slug, count_steps(prepared.training_set, plan.config.recipe)
            )

    def record(self, line: LoggedStep | LoggedEval) -> None:
        """Take a line from the training loop. A resumed training reports its history again."""
        if self._file is None:
            return
        match line:
            case LoggedStep():
                GAUGES.saw_step(self._plan.job.slug, line.tokens_per_s)
                row = asdict(line)
                named = {f"train/{key}": value for key, value in row.items() if key != "step"}
                mfu = "" if line.mfu is None else f" mfu={line.mfu:.0%}"
                shown = f"loss={line.loss:.3f} {line.tokens_per_s:,.0f} tokens/s{mfu}"
            case LoggedEval(step, epoch, heldout, trained, extracted):
                figures = {
                    "loss": heldout.loss,
                    "perplexity": heldout.perplexity,
                    "bits_per_byte": heldout.bits_per_byte,
                }
                if trained:
                    figures["train_bits_per_byte"] = trained.bits_per_byte
                if extracted:
                    figures["train_extracted"] = extracted.verbatim_frac
                    figures["train_prefix_out"] = extracted.prefix_frac
                row = {"step": step, "epoch": epoch}
                row |= {f"eval_{key}": value for key, value in figures.items()}
                named = {f"eval/{key}": value for key, value in figures.items()}
                shown = f"held-out {heldout.bits_per_byte:.3f} bits/byte"
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()  # `tail -f` and sweeps read it meanwhile
        self._tracker.log_metrics(named, step=line.step)
        if self._progress:
            self._progress.update(line.step, shown)

    def links(self) -> Links:
        """Return the pages of the tracked runs, where there are some."""
        urls = self._tracker.urls()
        return Links(urls.get(Phase.preprocess), urls.get(Phase.train))

    def finish(self, predictions: Sequence[Prediction]) -> None:
        """Record samples and model, and end the tracking; main process only."""
        self._close()
        rows = [[each.input, each.prediction] for each in predictions]
        self._tracker.log_table("examples", ["Input", "Prediction"], rows)
        self._tracker.log_artifact(model_artifact(self._plan.job.slug, self._plan.paths.model))
        self._tracker.finish()

    def _close(self) -> None:
        GAUGES.ended(self._plan.job.slug)
        if self._progress:
            self._progress.close()
        if self._file:
            self._file.close()
        self._progress = self._file = None


def _dataset_rows(plan: Plan, prepared: Prepared) -> list[dict[str, str]]:
    sides = {"train": prepared.split.train, "heldout": prepared.split.heldout}
    return [
        {"user": handle, "side": side, "text": text}
        for side, users in sides.items()
        for handle, posts in zip(plan.job.handles, users, strict=True)
        for text in posts
    ]
