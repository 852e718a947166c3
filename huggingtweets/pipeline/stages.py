"""One job from posts to published model: the stages in order, and every file they leave."""

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial

from accelerate import Accelerator

from huggingtweets.bases.model import Base
from huggingtweets.causes import cause_of
from huggingtweets.config.compose import dump_config
from huggingtweets.config.plan import Plan
from huggingtweets.config.posts_schema import SourceKind
from huggingtweets.config.results_schema import PublishKind
from huggingtweets.config.schema import TrainConfig
from huggingtweets.data.prepare import HeldoutSet, Prepared, clean_posts, prepare
from huggingtweets.data.replay import keep_new, read_earlier
from huggingtweets.errors import StorageError
from huggingtweets.evaluation.score import Posts
from huggingtweets.generation.guards import Guards, build_guards
from huggingtweets.generation.samples import Samples
from huggingtweets.handles import Job
from huggingtweets.pipeline.notices import tell_of_posts, tell_refused
from huggingtweets.pipeline.outcome import Outcome, Texts, build_texts, kept_and_base_loss
from huggingtweets.pipeline.recorder import Recorder
from huggingtweets.pipeline.trained import trained_by_single
from huggingtweets.pipeline.whole_model import Trained
from huggingtweets.posts.cleaning import (
    CleaningReport,
    CleanPosts,
    check_enough,
    mask_timeline,
)
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.posts.records import Timeline, is_saved, read_timelines, write_timelines
from huggingtweets.posts.sources.load import load_timeline
from huggingtweets.preview.avatars import write_pictures
from huggingtweets.publishing.facts import BaseModel, DataCounts, ModelFacts
from huggingtweets.publishing.hub import publish_model
from huggingtweets.publishing.mark import marked
from huggingtweets.runtime.helper import shared_helpers
from huggingtweets.standing import find_changes, is_done, is_foreign, seal_model, sealed_config
from huggingtweets.storage.files import (
    remove,
    remove_drafts,
    replacing_folder,
    write_json,
    write_jsonl,
    write_text,
)
from huggingtweets.storage.lock import JobLock, acquire_lock
from huggingtweets.training.collectives import broadcast, leave_if_stopped
from huggingtweets.training.launch import on_main
from huggingtweets.training.parallel.single import train_single
from huggingtweets.training.progress import Training, training_job
from huggingtweets.training.records import Scores, TrainResult

logger = logging.getLogger(__name__)

_OF_POSTS = ("source.", "cleaning.")
"""Settings that say which posts there are, and how they are masked; see `differences`."""


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
        All there is to say about the finished model, on the main process; None on the others, and
        where an earlier start, given up as dead, has finished the job meanwhile.

    Raises:
        HuggingtweetsError: the job cannot be done; what was written so far stays.
    """
    started_at = utc_now()
    leave_if_stopped("begin")
    with ExitStack() as stack:
        lock = on_main(accelerator, lambda: stack.enter_context(lock_job(plan)))
        # sync: the lock may have been waited for while another start finished the job.
        if broadcast(on_main(accelerator, lambda: is_done(plan))):
            return None
        cleaned = on_main(accelerator, lambda: begin_job(plan))
        leave_if_stopped("data")
        prepared = prepare_job(plan, base, cleaned)
        on_main(accelerator, lambda: tell_of_posts(plan, prepared, base.max_positions))
        leave_if_stopped("data")
        plan = plan.settled(tokens=prepared.long_tokens, chars=prepared.long_chars)
        recorder = stack.enter_context(Recorder(plan, is_main=accelerator.is_main_process))
        on_main(accelerator, lambda: recorder.start(base, prepared))
        training = Training(training_job(plan, prepared), recorder.record)
        result, weights = train_single(accelerator, base, training, plan, lock, since=since)
        ended = EndedJob(plan, prepared, result, started_at, "single")
        return on_main(
            accelerator,
            lambda: finish_job(
                ended, base, trained_by_single(weights, plan, base, accelerator.device), recorder
            ),
        )


@dataclass(frozen=True)
class Cleaned:
    """What became of the posts of a job."""

    timelines: tuple[Timeline, ...]
    """As received and masked."""
    users: list[CleanPosts]
    reports: tuple[CleaningReport, ...]


def lock_job(plan: Plan) -> JobLock:
    """Claim the folder of a job, unless somebody else's files lie in it; main process only.

    Raises:
        JobBusyError: another process holds it and lives.
        StorageError: it is not ours, or cannot be written.
    """
    if is_foreign(plan.paths):
        raise StorageError(
            f"{plan.paths.root}: got files that no job has written; expected a job's folder, or "
            "none; move them away, or choose another output_dir"
        )
    return acquire_lock(plan.paths.root)


def begin_job(plan: Plan) -> Cleaned | None:
    """Open the job's folder and get its posts, unless an earlier attempt did; main process only.

    Where a job with other settings lies there, all of it stays until the posts have come. Posts
    that were paid for are taken from it; all others are read again, for there may be new ones, or
    a wish that there be no model.

    Returns:
        The posts, so that nobody need clean them again; None where an earlier attempt got them.

    Raises:
        LaunchError: the folder cannot be written.
        OptedOutError: somebody wants no model.
        SourceError: the posts cannot be read.
        TooFewPostsError: a user has too little text.
    """
    check_opted_out(plan.job.handles, plan.config.optout_file)
    changes = find_changes(plan)
    has_posts = changes == [] or (
        changes is not None
        and plan.config.source.kind is SourceKind.x_api
        and not any(line.startswith(_OF_POSTS) for line in changes)
    )
    cleaned = _get_posts(plan) if changes and not has_posts else None
    try:
        plan.paths.root.mkdir(parents=True, exist_ok=True)
        remove_drafts(plan.paths.root)
        # Not done, or not as now asked for: what it was must not be taken for what it becomes.
        remove(plan.paths.result)
        if not has_posts:
            remove(plan.paths.posts)
        if changes != []:  # of other settings, or of nobody knows which
            remove(plan.paths.checkpoints)
        text = dump_config(replace(plan.config, overwrite=False))
        write_text(plan.paths.config, sealed_config(text, plan.digest))
    except OSError as err:
        failure = StorageError(
            f"output_dir: {plan.paths.root} cannot be written ({err.strerror}); expected a folder "
            "with room and write permission; choose another output_dir"
        )
        failure.cause = cause_of(err)
        raise failure from err
    if is_saved(plan.paths.posts, plan.job.handles):
        if changes:
            logger.info("job=%s takes the posts in %s", plan.job.slug, plan.paths.posts)
        return None
    cleaned = cleaned or _get_posts(plan)
    reports = {report.handle: asdict(report) for report in cleaned.reports}
    write_json(plan.paths.cleaning, reports)
    if plan.config.publish.pictures and plan.config.publish.kind is not PublishKind.none:
        write_pictures(plan.paths.pictures, cleaned.timelines, plan.config.publish.picture_hosts)
    write_timelines(plan.paths.posts, cleaned.timelines)
    return cleaned


def _get_posts(plan: Plan) -> Cleaned:
    """Read and clean the posts of a job; nothing is written of a user with too few of them."""
    # Masked at once: what lies in the folder is also what is recorded as an artifact.
    timelines = load_masked(plan.config, plan.job)
    for note in (note for timeline in timelines for note in timeline.notes):
        logger.warning("job=%s %s", plan.job.slug, note)
    users, reports = clean_posts(timelines, plan.config.cleaning)
    for warning in check_enough(reports, plan.config.cleaning):
        logger.warning("job=%s %s", plan.job.slug, warning)
    return Cleaned(timelines, users, reports)


def load_masked(config: TrainConfig, job: Job) -> tuple[Timeline, ...]:
    """Read the posts of a job's people; nobody sees them before they are masked.

    Raises:
        SourceError: they cannot be read.
    """
    return tuple(
        mask_timeline(load_timeline(config.source, handle, config.optout_file), config.cleaning)
        for handle in job.handles
    )


def prepare_job(plan: Plan, base: Base, cleaned: Cleaned | None = None) -> Prepared:
    """Turn the posts of a begun job into blocks; every rank gets the same.

    Args:
        plan: the job.
        base: whose tokenizer is used.
        cleaned: by `begin_job`; taken where the file it wrote holds those very posts.

    Raises:
        DataError: nothing is left to train on.
    """
    # From the file, as every rank and every later start reads it.
    timelines = read_timelines(plan.paths.posts)
    if cleaned is not None and cleaned.timelines == timelines:
        users, reports = cleaned.users, cleaned.reports
    else:
        users, reports = clean_posts(timelines, plan.config.cleaning)
    earlier = read_earlier(plan.config.model.path, plan.job.handles)
    if earlier is not None:
        users = keep_new(users, timelines, earlier)
        new = sum(len(user.posts) for user in users)
        logger.info("job=%s goes on from %s: new=%d", plan.job.slug, plan.config.model.path, new)
    return prepare(
        users,
        reports,
        recipe=plan.config.recipe,
        seed=plan.config.seed,
        codec=base.codec,
        earlier=earlier,
    )


@dataclass(frozen=True)
class EndedJob:
    """A job whose training has ended."""

    plan: Plan
    """Its sampling settled; see `Plan.settled`."""
    prepared: Prepared
    result: TrainResult
    started_at: str
    engine: str
    """`single` or `fused`."""

    @property
    def guards(self) -> Guards:
        """What its samples are held against."""
        posts = [post for user in self.prepared.split.train for post in user]
        plan = self.plan
        return build_guards(plan.sampling, mask_pii=plan.config.cleaning.mask_pii, train=posts)


def finish_job(
    job: EndedJob,
    base: Base,
    trained: Trained,
    recorder: Recorder,
    samples: Samples | None = None,
) -> ModelFacts:
    """Sample, write the model folder, publish, and last of all result.json; main process only.

    Texts and picture are made by a helper while the weights are written. With publish=none what
    only a reader would miss is left out: card, preview, report, and every figure beyond the
    held-out loss.

    Args:
        job: what is finished.
        base: it was trained from.
        trained: the model.
        recorder: of the job.
        samples: where they are drawn already, together with those of others.

    Raises:
        LaunchError: another process has taken the folder over.
        PublishError: the Hub did not take the model; it lies in the job's folder.
    """
    plan, paths = job.plan, job.plan.paths
    if samples is None:
        has_some = plan.sampling.num > 0
        samples = trained.sample(plan, base, job.guards) if has_some else Samples(())
    tell_refused(plan, samples)
    rows = [marked(asdict(prediction)) for prediction in samples.predictions]
    write_jsonl(paths.predictions, rows)
    is_published = plan.config.publish.kind is not PublishKind.none
    outcome = Outcome(
        plan=plan,
        base=_describe_base(plan, base),
        people=job.prepared.people,
        split=job.prepared.split,
        data=_count_data(job),
        train=job.result,
        samples=samples,
        scores=score_job(job, base, trained) if is_published else None,
        engine=job.engine,
        links=recorder.links(),
        started_at=job.started_at,
    )
    make: Callable[..., Texts] = build_texts
    if is_published:  # else nothing in it is worth another process
        make = partial(shared_helpers(build_texts.__module__).call, build_texts)
    with replacing_folder(paths.model) as draft, ThreadPoolExecutor(1) as beside:
        made = beside.submit(make, outcome, utc_now())
        trained.save(plan, base, draft)
        texts = made.result()
        if is_published:
            (draft / paths.preview.name).write_bytes(texts.preview)
            write_text(draft / paths.card.name, texts.card)
    if texts.facts.is_worse:
        logger.warning(
            "job=%s predicts posts that it has not seen worse than its base; lower recipe.lr or "
            "recipe.epochs",
            plan.job.slug,
        )
    if is_published:
        write_text(paths.report, texts.report)
    recorder.finish(samples.predictions)
    if plan.config.publish.kind is PublishKind.hub:
        # Asked again: training takes hours, and what is public cannot be taken back.
        check_opted_out(plan.job.handles, plan.config.optout_file)
        publish_model(
            paths.model, plan.job.slug, org=plan.config.hub.org, private=plan.config.hub.private
        )
    # Last: its presence means done. Whoever dies before begins again from the checkpoints.
    write_json(paths.result, texts.result | {"model": {"files": seal_model(paths)}})
    shutil.rmtree(paths.checkpoints, ignore_errors=True)
    return texts.facts


def score_job(job: EndedJob, base: Base, trained: Trained) -> tuple[Scores, Scores]:
    """Return what the trained model and its base make of held-out and of known posts.

    Most of it was found while training. What is left are the known posts beyond those, which only
    the trained model tries (the base has seen none of them, so those of training say enough), and
    everything where the training was resumed after the evaluation.
    """
    prepared = job.prepared

    def score(posts: HeldoutSet | None, of_base: bool) -> Posts:
        return trained.score(job.plan, base, posts, of_base=of_base) if posts else ()

    found = []
    for step, of_base in ((job.result.kept_step, False), (0, True)):
        before = job.result.scores.get(step)
        heldout = before.heldout if before else score(prepared.heldout, of_base)
        found.append(Scores(heldout, (before and before.probe) or score(prepared.probe, of_base)))
    if prepared.rest:
        found[0] = replace(found[0], rest=trained.try_known(job.plan, base, prepared.rest))
    return found[0], found[1]


def _describe_base(plan: Plan, base: Base) -> BaseModel:
    """Return what is told about a base."""
    source = base.origin
    return BaseModel(
        base.name,
        base.hub_id,
        base.license,
        is_kept=not plan.leaves_adapter,
        origin=f"{source.file} ({source.quantisation}, SHA-256 {source.sha256[:16]}...)"
        if source
        else "",
        warm_start=base.warm_start,
    )


def _count_data(job: EndedJob) -> DataCounts:
    """Return what the kept posts became."""
    prepared = job.prepared
    kept, _ = kept_and_base_loss(job.result)
    return DataCounts(
        train_posts=sum(map(len, prepared.split.train)),
        heldout_posts=sum(map(len, prepared.split.heldout)),
        train_tokens=prepared.train_tokens,
        heldout_tokens=kept.num_tokens if kept else 0,
        blocks=len(prepared.training_set.blocks),
    )


def utc_now() -> str:
    """Return the time as result.json tells it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
