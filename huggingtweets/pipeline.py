"""One job from posts to published model: the stages in order, and every file they leave."""

import logging
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

import torch
from accelerate import Accelerator

from huggingtweets.causes import cause_of
from huggingtweets.config.compose import dump_config
from huggingtweets.config.plan import Plan
from huggingtweets.config.schema import PublishKind
from huggingtweets.data.prepare import Prepared, clean_posts, prepare
from huggingtweets.data.replay import keep_new, read_earlier
from huggingtweets.errors import SourceError, StorageError
from huggingtweets.evaluation.figures import UNMEASURED, Quality, Spans
from huggingtweets.evaluation.quality import evaluate_quality
from huggingtweets.files import (
    remove,
    remove_drafts,
    replacing_folder,
    set_aside,
    write_json,
    write_jsonl,
    write_text,
)
from huggingtweets.generation.guards import build_guards
from huggingtweets.generation.samples import Samples
from huggingtweets.lock import acquire_lock
from huggingtweets.outcome import build_facts, build_result
from huggingtweets.publishing.card import write_card
from huggingtweets.publishing.facts import ModelFacts
from huggingtweets.publishing.hub import publish_model
from huggingtweets.publishing.mark import marked
from huggingtweets.publishing.pictures import write_pictures
from huggingtweets.publishing.preview import write_preview
from huggingtweets.publishing.report import write_report
from huggingtweets.recorder import Recorder
from huggingtweets.standing import holds_same, seal_model, sealed_config
from huggingtweets.trained import Trained, WholeModel
from huggingtweets.training.agree import leave_if_stopped
from huggingtweets.training.launch import on_main
from huggingtweets.training.model import Base
from huggingtweets.training.records import TrainResult
from huggingtweets.training.single import train_single
from huggingtweets.tweets.cleaning import (
    CleaningReport,
    CleanTweets,
    check_enough,
    mask_timeline,
)
from huggingtweets.tweets.optout import check_opted_out
from huggingtweets.tweets.records import Timeline, read_timelines, write_timelines
from huggingtweets.tweets.sources.load import load_timeline

logger = logging.getLogger(__name__)


def run_job(
    plan: Plan, accelerator: Accelerator, base: Base, *, since: float | None = None
) -> ModelFacts | None:
    """Run one job on all processes of the launch: begin, prepare, train, finish.

    Args:
        plan: the job.
        accelerator: the processes of the launch.
        base: what to begin with.
        since: when the user began to wait for it, by `time.monotonic`; None: with the command.

    Returns:
        All there is to say about the finished model, on the main process.

    Raises:
        HuggingtweetsError: the job cannot be done; what was written so far stays.
    """
    started_at = utc_now()
    leave_if_stopped("begin")
    with ExitStack() as stack:
        lock = on_main(accelerator, lambda: stack.enter_context(acquire_lock(plan.paths.root)))
        cleaned = on_main(accelerator, lambda: begin_job(plan))
        leave_if_stopped("data")
        prepared = prepare_job(plan, base, cleaned)
        leave_if_stopped("data")
        recorder = stack.enter_context(Recorder(plan, is_main=accelerator.is_main_process))
        on_main(accelerator, lambda: recorder.start(base, prepared))
        result, model, adapters = train_single(
            accelerator,
            base,
            prepared.training_set,
            prepared.heldout,
            prepared.probe,
            plan,
            recorder.record,
            lock,
            since=since,
        )
        return on_main(
            accelerator,
            lambda: finish_job(
                plan,
                base,
                prepared,
                result,
                WholeModel(model, accelerator.device, adapters),
                recorder,
                started_at,
                engine="single",
            ),
        )


@dataclass(frozen=True)
class Cleaned:
    """What became of the posts of a job."""

    timelines: tuple[Timeline, ...]
    """As received and masked."""
    users: list[CleanTweets]
    reports: tuple[CleaningReport, ...]


def begin_job(plan: Plan) -> Cleaned | None:
    """Open the job's folder and get its posts, unless an earlier attempt did; main process only.

    Returns:
        The posts, so that nobody need clean them again; None where an earlier attempt got them.

    Raises:
        LaunchError: the folder cannot be written.
        OptedOutError: somebody wants no model.
        SourceError: the posts cannot be read.
        TooFewTweetsError: a user has too little text.
    """
    check_opted_out(plan.job.handles, plan.config.optout_file)
    try:
        plan.paths.root.mkdir(parents=True, exist_ok=True)
        remove_drafts(plan.paths.root)
        # Not done, or not as now asked for: what it was must not be taken for what it becomes.
        remove(plan.paths.result)
        if not holds_same(plan):
            for old in (plan.paths.tweets, plan.paths.checkpoints):
                remove(old)
        text = dump_config(replace(plan.config, overwrite=False))
        write_text(plan.paths.config, sealed_config(text, plan.digest))
    except OSError as err:
        failure = StorageError(
            f"output_dir: {plan.paths.root} cannot be written ({err.strerror}); expected a folder "
            "with room and write permission; choose another output_dir"
        )
        failure.cause = cause_of(err)
        raise failure from err
    if has_posts(plan):
        return None
    # Masked at once: what lies in the folder is also what is recorded as an artifact.
    timelines = tuple(
        mask_timeline(load_timeline(plan.source, handle, plan.config.optout_file), plan.cleaning)
        for handle in plan.job.handles
    )
    for note in (note for timeline in timelines for note in timeline.notes):
        logger.warning("job=%s %s", plan.job.slug, note)
    users, reports = clean_posts(timelines, plan.cleaning)
    write_json(plan.paths.cleaning, {report.handle: asdict(report) for report in reports})
    for warning in check_enough(reports, plan.cleaning):
        logger.warning("job=%s %s", plan.job.slug, warning)
    if plan.publish.pictures and plan.publish.kind is not PublishKind.none:
        write_pictures(plan.paths.pictures, timelines, plan.publish.picture_hosts)
    # Only now: a user with too few posts is asked for again by the next attempt.
    write_timelines(plan.paths.tweets, timelines)
    return Cleaned(timelines, users, reports)


def has_posts(plan: Plan) -> bool:
    """Whether an earlier attempt left the posts of these very people; damaged ones go aside."""
    path = plan.paths.tweets
    if not (path.exists() or path.is_symlink()):
        return False
    try:
        timelines = read_timelines(path)
        fault = "holds the posts of other people"
        if tuple(timeline.handle for timeline in timelines) == plan.job.handles:
            return True
    except SourceError as err:
        fault = str(err).partition("; expected")[0].removeprefix(f"{path}: ")
    set_aside(path, fault)
    return False


def prepare_job(plan: Plan, base: Base, cleaned: Cleaned | None = None) -> Prepared:
    """Turn the posts of a begun job into blocks; every rank gets the same.

    Args:
        plan: the job.
        base: whose tokenizer is used.
        cleaned: by `begin_job`; taken where the file it wrote holds those very posts.

    Raises:
        DataError: nothing is left to train on.
    """
    timelines = read_timelines(plan.paths.tweets)
    if cleaned is not None and cleaned.timelines == timelines:
        users, reports = cleaned.users, cleaned.reports
    else:
        users, reports = clean_posts(timelines, plan.cleaning)
    earlier = read_earlier(plan.model.path, plan.job.handles)
    if earlier is not None:
        users = keep_new(users, timelines, earlier)
        new = sum(len(user.tweets) for user in users)
        logger.info("job=%s goes on from %s: new=%d", plan.job.slug, plan.model.path, new)
    return prepare(
        users,
        reports,
        recipe=plan.recipe,
        seed=plan.seed,
        codec=base.codec,
        earlier=earlier,
    )


def finish_job(
    plan: Plan,
    base: Base,
    prepared: Prepared,
    result: TrainResult,
    trained: Trained,
    recorder: Recorder,
    started_at: str,
    *,
    engine: str,
) -> ModelFacts:
    """Sample, write the model folder, publish, and last of all result.json; main process only.

    With publish=none what only a reader would miss is left out: card, preview, report, and every
    figure beyond the held-out loss.

    Raises:
        LaunchError: another process has taken the folder over.
        PublishError: the Hub did not take the model; it lies in the job's folder.
    """
    plan = plan.settled(tokens=prepared.long_tokens, chars=prepared.long_chars)
    paths = plan.paths
    is_published = plan.publish.kind is not PublishKind.none
    samples = Samples(())
    if plan.sampling.num:
        posts = [post for user in prepared.split.train for post in user]
        guards = build_guards(plan.sampling, mask_pii=plan.cleaning.mask_pii, train=posts)
        samples = trained.sample(plan, base, guards)
        _tell_refused(plan, samples)
    predictions = samples.predictions
    write_jsonl(paths.predictions, [marked(asdict(prediction)) for prediction in predictions])
    quality: Quality = UNMEASURED
    copied: list[Spans] = [()] * len(predictions)
    if is_published:
        quality, copied = judge_job(plan, base, prepared, trained, samples)
    facts = build_facts(
        plan,
        base,
        prepared,
        result,
        samples,
        quality,
        copied,
        engine=engine,
        links=recorder.links(),
        finished_at=utc_now(),
    )
    with replacing_folder(paths.model) as draft:
        trained.save(plan, base, draft)
        if is_published:
            write_preview(draft / paths.preview.name, facts)
            write_card(draft / paths.card.name, facts)
    if is_published:
        write_report(paths.report, facts, paths.preview.read_bytes())
    recorder.finish(predictions)
    if plan.publish.kind is PublishKind.hub:
        check_opted_out(plan.job.handles, plan.config.optout_file)
        publish_model(paths.model, plan.job.slug, org=plan.hub.org, private=plan.hub.private)
    content = build_result(plan, facts, result, samples, quality, started_at)
    write_json(paths.result, content | {"model": {"files": seal_model(paths)}})
    shutil.rmtree(paths.checkpoints, ignore_errors=True)
    return facts


def _tell_refused(plan: Plan, samples: Samples) -> None:
    """Say so where the guards left fewer samples than were asked for."""
    asked = len(plan.sampling.prompts) * plan.sampling.num
    if len(samples.predictions) < asked:
        logger.warning(
            "job=%s samples=%d of %d: for the others all that was drawn was refused (%s); "
            "sampling.block_copies=0 lets copies of training posts pass",
            plan.job.slug,
            len(samples.predictions),
            asked,
            samples.refusals,
        )


def judge_job(
    plan: Plan, base: Base, prepared: Prepared, trained: Trained, samples: Samples
) -> tuple[Quality, list[Spans]]:
    """Measure the trained model beside its base; see `evaluate_quality`.

    On the job's device, or on the CPU where that has no memory to spare.
    """

    def judge(device: torch.device | None = None) -> tuple[Quality, list[Spans]]:
        with trained.beside_base(plan, base, device) as (model, original):
            return evaluate_quality(
                model,
                original,
                base.codec,
                [(one.input, one.prediction) for one in samples.predictions],
                train=[post for user in prepared.split.train for post in user],
                heldout=[post for user in prepared.split.heldout for post in user],
                max_positions=plan.recipe.block_size,  # as the held-out loss
                seed=plan.seed,
            )

    try:
        return judge()
    except torch.OutOfMemoryError:
        logger.warning("job=%s is judged on the CPU: the device has no memory left", plan.job.slug)
        return judge(torch.device("cpu"))


def utc_now() -> str:
    """Return the time as result.json tells it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
