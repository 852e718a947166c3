"""Run the selected jobs, record what became of each, and turn that into an exit code."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import torch
import transformers
from accelerate import Accelerator
from transformers.utils import logging as transformers_logging

from huggingtweets.attempt import is_superseded
from huggingtweets.bases.lora import check_lora
from huggingtweets.bases.model import Base, check_block_size, find_base
from huggingtweets.config.checks import AUTO
from huggingtweets.config.plan import Plan, is_batch, make_plan
from huggingtweets.config.results_schema import PublishKind
from huggingtweets.config.schema import Adapter, EngineKind, Precision, TrainConfig
from huggingtweets.crowd.warm_start import begin_warm
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.handles import Job
from huggingtweets.jobs.deadline import Deadline, own_deadline
from huggingtweets.jobs.fused import run_fused
from huggingtweets.jobs.ledger import (
    LEDGER_DIR,
    keep_command,
    open_ledger,
    read_ledger,
    writer_name,
)
from huggingtweets.jobs.metrics import MetricsFile
from huggingtweets.jobs.partition import estimate_costs, partition
from huggingtweets.jobs.room import Room
from huggingtweets.jobs.selection import select_jobs
from huggingtweets.jobs.status import not_done, read_states
from huggingtweets.jobs.tally import (
    MAX_CRASHES,
    Tally,
    as_failure,
    out_of_time,
    poisoned,
    show_counts,
)
from huggingtweets.kernels.choose import CPU_MAX_WIDTH
from huggingtweets.logs import STOPPED, make_console
from huggingtweets.models.families import has_own_lora, layout_of, shape_of, why_not_fused
from huggingtweets.pipeline.outcome import told_identity
from huggingtweets.pipeline.stages import run_job
from huggingtweets.posts.sources.x_api import SPENDING
from huggingtweets.publishing.index import Row, write_index
from huggingtweets.publishing.terminal import show_summary
from huggingtweets.runtime.device import is_cuda
from huggingtweets.standing import find_done
from huggingtweets.tracking.base import Phase
from huggingtweets.tracking.build import build_batch_tracker
from huggingtweets.tracking.console import waiting
from huggingtweets.training.collectives import all_gather, broadcast
from huggingtweets.training.launch import build_accelerator, on_main, settle_precision
from huggingtweets.training.parallel.single import try_base
from huggingtweets.training.records import Ending
from huggingtweets.training.stacked.grouped import why_not_grouped

logger = logging.getLogger(__name__)

NUM_SUSPECT = 2
"""A job that this many runs in a row have died of is tried alone, after all others."""


def run_jobs(config: TrainConfig, jobs: Sequence[Job], *, command: Sequence[str] = ()) -> int:
    """Run every job that is not done yet and return the exit code, the same on every rank.

    `command` is what was typed, which a batch keeps for `status`.

    Raises:
        ConfigError: the base model cannot be had, or does not fit the recipe.
        LaunchError: the processes or the output folder are not as asked for.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    config = settle_precision(config)
    has_ledger = is_batch(config.user)
    if not has_ledger:  # one run with a table of all users would be a table of one
        config = replace(config, tracking=replace(config.tracking, per_user=True))
    accelerator = build_accelerator(config.engine.precision, tf32=config.engine.tf32)
    try:
        # Each process has looked for itself: lists are edited and files grow between two looks.
        jobs, sizes = broadcast((list(jobs), estimate_costs(jobs, config.source)))
        plans = [replace(make_plan(config, job), is_alone=not has_ledger) for job in jobs]
        costs = dict(zip((job.slug for job in jobs), sizes, strict=True))
        deadline = Deadline(own_deadline(), costs)
        # One process makes or downloads the base, the others find it in the cache.
        with waiting(f"looking for the base {config.model.path or 'tiny'}"):
            found = on_main(accelerator, lambda: check_base(config))
        base = found or check_base(config)
        is_fused = choose_engine(config, base, accelerator, len(plans)) is EngineKind.fused
        with ExitStack() as stack:
            # The single engine shares each job among the processes, the fused one the jobs.
            rank = accelerator.process_index if is_fused else 0
            is_writer = is_fused or accelerator.is_main_process
            # Before a byte is written: other settings are refused once, for the whole batch.
            done = broadcast(on_main(accelerator, lambda: find_done(plans)))
            # The newest command is the one that goes on with the batch; see `status`.
            if command and has_ledger and accelerator.is_main_process:
                keep_command(Path(config.output_dir), command)
            if len(done) < len(plans) and plans[0].config.recipe.warm_start:
                begin = partial(_begin_warm, config, plans[0], base, accelerator.device)
                base = on_main(accelerator, begin) or begin()  # one trains, the others find it
            tally = _open_tally(config, stack, costs, rank=rank, is_writer=is_writer)
            mine = plans
            if is_fused:
                # What is done takes no time, so that what is left is spread evenly.
                left = {slug: 0.0 if slug in done else cost for slug, cost in costs.items()}
                mine = _share_of(rank, accelerator.num_processes, plans, left, tally)
            todo = [plan for plan in mine if _is_wanted(plan, plan.job.slug in done, tally, config)]
            # Side by side the longest go first; one after another as they were named.
            todo = longest_first(todo, costs if is_fused else {}, tally.crashes)
            # Before the first begins, so that `status` knows from the start how many there are.
            for plan in todo:
                tally.queued(plan)
            room = _open_room(config, base, todo)
            if is_fused:
                for group in _together(todo, tally):
                    run_fused(group, base, accelerator.device, tally, deadline, room)
            else:
                is_shown = len(plans) == 1
                _run_in_turn(todo, accelerator, base, tally, deadline, room, is_shown=is_shown)
        # sync: once all ranks are through; other shards write the index again when they are.
        code: int = max(all_gather(tally.exit_code))
        if has_ledger:
            # Of the fused engine each process has counted jobs of its own.
            counts = all_gather(tally.counts) if is_fused else [tally.counts]
            show_counts(counts, Path(config.output_dir))
        if has_ledger and accelerator.is_main_process and not is_superseded():
            _sum_up(config, plans, has_ended=code != STOPPED)
            if code == STOPPED:  # the last that a person at the terminal reads
                logger.warning(
                    "stopped; everything so far is saved; run the same command again to go on"
                )
        return code
    finally:
        # Without the collection, gloo of torch 2.13 aborts at exit now and then.
        accelerator.free_memory()
        gc.collect()
        accelerator.end_training()


def longest_first(
    plans: Sequence[Plan], costs: Mapping[str, float], crashes: Callable[[Plan], int]
) -> list[Plan]:
    """Return plans so that none is left to run alone at the end; those that crashed come last."""
    return sorted(plans, key=lambda plan: (crashes(plan), -costs.get(plan.job.slug, 0.0)))


def _sum_up(config: TrainConfig, plans: Sequence[Plan], *, has_ended: bool) -> None:
    """Write the index of a batch, and record it as one run where that is asked for.

    A disk that has no room for it fails no job. A shard without jobs leaves the run to the others.
    """
    output_dir = Path(config.output_dir)
    try:
        rows = write_index(output_dir, not_done(read_states(output_dir).values()))
    except OSError as err:
        logger.warning("%s: no index.html (%s)", output_dir, err.strerror)
        return
    if has_ended and rows and plans:
        tracker = build_batch_tracker(config.tracking, output_dir)
        # As told, not as configured: a folder of this machine may be named after a person.
        recipe = told_identity(plans[0])["recipe"]
        tracker.start_phase(Phase.batch, recipe | {"seed": config.seed})
        table = [list(asdict(row).values()) for row in rows]
        tracker.log_table("results", [field.name for field in fields(Row)], table)
        tracker.finish()


def check_base(config: TrainConfig) -> Base:
    """Find the base model and hold the recipe against it.

    Raises:
        ConfigError: the base cannot be had or trained, blocks are longer than it has positions, or
            an adapter of it would be of no use to others.
    """
    if config.recipe.adapter is Adapter.lora:
        check_lora()
    base = find_base(config.model)
    check_block_size(base, config.recipe.block_size)
    try_base(base, config.recipe)
    if config.leaves_adapter and config.publish.kind is PublishKind.hub and base.hub_id is None:
        raise ConfigError(
            f"publish.lora: got adapter with publish=hub on a base that lies in {base.path}; "
            "expected one that others can find; set model.hub_id=NAME if it is on the Hub, or "
            "publish.lora=merged"
        )
    return base


def _begin_warm(config: TrainConfig, plan: Plan, base: Base, device: torch.device) -> Base:
    """Return what jobs like a plan begin from; the base itself where `auto` finds no crowd."""
    settled = replace(config, recipe=plan.config.recipe)
    try:
        jobs = select_jobs(config.user, source=config.source) if is_batch(config.user) else []
        return begin_warm(settled, jobs, base, device, _why_not_stacked(config, base))
    except ConfigError as err:
        if config.recipe.warm_start != AUTO:
            raise
        logger.info("no warm start: %s", err)
        return base


def job_bytes(base: Base, plan: Plan) -> int:
    """Return what a job leaves on the disk, about: its weights in fp32, and half as much beside."""
    if plan.leaves_adapter:
        return 32 << 20
    if not why_not_fused(base.config):
        return 6 * layout_of(shape_of(base.config)).size
    with torch.device("meta"):  # shapes alone: no weight is read or allocated
        model = transformers.AutoModelForCausalLM.from_config(base.config)
    return 6 * sum(int(parameter.numel()) for parameter in model.parameters())


def choose_engine(
    config: TrainConfig, base: Base, accelerator: Accelerator, num_jobs: int
) -> EngineKind:
    """Return the engine to use; where the one asked for cannot be, say so and take the other."""
    kind = config.engine.kind
    if kind is EngineKind.single or (kind is EngineKind.auto and num_jobs == 1):
        return EngineKind.single
    is_grouped = _is_grouped(config, base)
    reason = _why_not_stacked(config, base)
    if reason and (is_grouped or kind is EngineKind.fused):
        logger.warning("engine=single is used: %s", reason)
    if reason:
        return EngineKind.single
    # A wide model keeps a CPU busy by itself: side by side they win nothing (`CPU_MAX_WIDTH`).
    pays = is_cuda(accelerator.device) or is_grouped or base.config.hidden_size <= CPU_MAX_WIDTH
    return EngineKind.fused if kind is EngineKind.fused or pays else EngineKind.single


def _is_grouped(config: TrainConfig, base: Base) -> bool:
    return config.recipe.adapter is Adapter.lora and not has_own_lora(base.config)


def _why_not_stacked(config: TrainConfig, base: Base) -> str | None:
    """Return in one sentence why the fused engine cannot train jobs of a base, or None."""
    if config.engine.precision is Precision.fp16:
        return "the fused engine computes in bf16 or fp32"
    if _is_grouped(config, base):
        return why_not_grouped(base, config.recipe)
    return why_not_fused(base.config)


def _open_room(config: TrainConfig, base: Base, plans: Sequence[Plan]) -> Room:
    """Estimate the room that a batch needs, and say so; a lone job waits for none."""
    folder = Path(config.output_dir)
    if not is_batch(config.user) or not plans:
        return Room(folder)
    room = Room(folder, job_bytes(base, plans[0]), wait_s=config.engine.wait_for_room_s)
    room.estimate(len(plans))
    return room


def _share_of(
    rank: int, world_size: int, plans: Sequence[Plan], costs: Mapping[str, float], tally: Tally
) -> list[Plan]:
    """Return the jobs of one rank, about as much work as each of the others has.

    Jobs that processes died of go to the main one: two of them at once could not be told apart.
    """
    calm, suspects = _by_crashes(plans, tally)
    mine = partition([costs[plan.job.slug] for plan in calm], world_size)[rank]
    return [calm[index] for index in mine] + (suspects if rank == 0 else [])


def _by_crashes(plans: Sequence[Plan], tally: Tally) -> tuple[list[Plan], list[Plan]]:
    """Return the jobs that may share a process, and those that processes died of."""
    calm = [plan for plan in plans if tally.crashes(plan) < NUM_SUSPECT]
    return calm, [plan for plan in plans if tally.crashes(plan) >= NUM_SUSPECT]


def _together(plans: Sequence[Plan], tally: Tally) -> Iterator[list[Plan]]:
    """Yield the jobs that may share a process; last, each alone, those that processes died of."""
    calm, suspects = _by_crashes(plans, tally)
    for group in (calm, *([plan] for plan in suspects)):
        if group and not tally.is_stopped:
            yield group


def _open_tally(
    config: TrainConfig,
    stack: ExitStack,
    costs: Mapping[str, float],
    *,
    rank: int,
    is_writer: bool,
) -> Tally:
    """Read the ledger of a batch, and open this process's own file of it."""
    if not is_batch(config.user):
        return Tally(None, {}, is_batch=False)
    output_dir = Path(config.output_dir)
    SPENDING.share(output_dir / LEDGER_DIR / "spent-usd.txt")
    before = broadcast(read_ledger(output_dir))
    ledger = None
    if is_writer:
        ledger = stack.enter_context(open_ledger(output_dir, shard=config.shard, rank=rank))
        stack.enter_context(MetricsFile(output_dir, writer_name(config.shard, rank), SPENDING))
    return Tally(ledger, before, costs=costs)


def _is_wanted(plan: Plan, is_finished: bool, tally: Tally, config: TrainConfig) -> bool:
    """Whether a job is still to be run; one that is not is counted."""
    crashes = tally.crashes(plan)
    if is_finished:
        tally.done(plan, before=True)
    elif config.only_curable:
        return tally.is_curable(plan)
    elif config.retry_failed:
        return True
    elif crashes >= MAX_CRASHES:
        tally.failed(plan, poisoned(plan, crashes))
    else:
        return not tally.failed_for_good(plan)
    return False


def _run_in_turn(
    plans: Sequence[Plan],
    accelerator: Accelerator,
    base: Base,
    tally: Tally,
    deadline: Deadline,
    room: Room,
    *,
    is_shown: bool,
) -> None:
    """Run jobs one after another, each over all processes; a failed one never stops the others."""
    left = []
    for index, plan in enumerate(plans):
        # The first one's user has waited since the command.
        since = time.monotonic() if index else None
        if not broadcast(deadline.allows(plan.job.slug)):  # sync: clocks differ, all go or none
            left.append(plan)
            continue
        tries = 0
        try:
            on_main(accelerator, room.wait_until_open)
            deadline.begin(plan.job.slug)
            tally.running(plan)
            while True:  # again, once there is room for what could not be written
                tries += 1
                try:
                    facts = run_job(plan, accelerator, base, since=since)
                    break
                except Exception as err:
                    # One process of several that went on would wait for ever for the others.
                    if accelerator.num_processes > 1 and not isinstance(err, HuggingtweetsError):
                        raise
                    failure = as_failure(plan, err)
                if not broadcast(on_main(accelerator, partial(room.wait_after, failure, tries))):
                    raise failure
        except HuggingtweetsError as err:
            deadline.end(plan.job.slug, is_done=False)
            tally.failed(plan, err)
            if tally.is_stopped:
                return
            continue
        # None on the main process: another start has finished it meanwhile.
        ended_by = facts.train.ended_by if facts else Ending.full
        tally.done(plan, before=facts is None, ended_by=ended_by)
        deadline.end(plan.job.slug)
        if facts and is_shown:
            show_summary(facts, plan.paths, make_console())
    if left:
        tally.cut_short(left, out_of_time(left))
