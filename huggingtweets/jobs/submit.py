"""Hand a batch to SLURM: all that can be checked is checked first, then sbatch is called.

The work itself is done by the plain scripts in slurm/, which sbatch takes by hand as well.
"""

import math
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingtweets.bases.prefetch import is_prefetched, needs_hub
from huggingtweets.config.compose import read_config
from huggingtweets.config.plan import is_batch, make_plan
from huggingtweets.config.schema import TrainConfig
from huggingtweets.data.estimate import GPU_FLOPS, guess_steps, shape_of, training_seconds
from huggingtweets.errors import ConfigError, LaunchError
from huggingtweets.handles import Job
from huggingtweets.jobs.consent import settle_consent
from huggingtweets.jobs.partition import FIXED_COST_BYTES, estimate_costs
from huggingtweets.jobs.selection import quote_user, select_jobs
from huggingtweets.jobs.slurm_word import COMMAND, LOGS, call_slurm
from huggingtweets.posts.sources.load import check_source
from huggingtweets.standing import find_done
from huggingtweets.storage.paths import expanded, template

ARRAY = "slurm/array.sbatch"
MULTI_NODE = "slurm/multi_node.sbatch"
CPU = "launch/cpu.yaml"
TASK_S = 3600.0
"""Work of one task where the number is left to us: starting it takes a minute or less."""
MAX_TASKS = 1000
"""SLURM's own limit, unless the cluster has set another (MaxArraySize)."""
TYPICAL_TOKENS = 80_000
"""Of a person, where files do not tell: what the services give of one."""
TOKENS_PER_BYTE = {True: 0.4, False: 0.12}
"""Of files of posts, compressed or not."""
JOB_S = 2.0
"""Of each job beside training: reading, sampling, writing."""
SBATCH_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Wishes:
    """What a submission asks of the cluster."""

    tasks: int | None = None
    """None: by the estimated work."""
    at_once: int | None = None
    """Most tasks of the array that run at the same time."""
    gpus_per_node: int | None = None
    """None: as the script says."""
    nodes: int | None = None
    """None: one task is one node; else all nodes share each job."""
    launch: Path | None = None
    """A launch file for several nodes."""
    options: Sequence[str] = ()
    """Of sbatch, handed on as they are."""
    retry: bool = True
    """Whether a last job tries again what a rerun may cure."""


@dataclass(frozen=True)
class Submission:
    """The commands, and what to tell about them."""

    num_jobs: int
    gpu_s: float | None
    """Estimated seconds of one GPU, within a factor of three; None: the base is not known."""
    tasks: int
    first: tuple[str, ...]
    last: tuple[str, ...]
    """To be run with the first one's number added; empty: none."""
    environment: Mapping[str, str]
    """Added to that of sbatch, which hands it on."""
    output_dir: Path
    hints: tuple[str, ...]

    @property
    def logs(self) -> Path:
        """Where the tasks write what they say."""
        return _logs(self.output_dir)

    @property
    def size(self) -> str:
        """How much there is to do, in words."""
        if not self.num_jobs:
            return "nothing to do: every model is there"
        if self.gpu_s is None:
            return f"{self.num_jobs} to do; tasks {self.tasks}"
        unit, unit_s = ("hours", 3600) if self.gpu_s > 7200 else ("min", 60)
        return (
            f"{self.num_jobs} to do, about {self.gpu_s / unit_s:.0f} GPU {unit}, give or take a "
            f"factor of three; tasks {self.tasks}"
        )

    def shown(self) -> list[str]:
        """The commands as one would type them."""
        words = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        commands = [self.first, *([_after(self.last, "JOB")] if self.last else [])]
        return [" ".join([*words, shlex.join(command)]) for command in commands]


def plan_submission(overrides: Sequence[str], wishes: Wishes) -> Submission:
    """Check users, configuration and launch file, and put the commands together.

    Raises:
        ConfigError: something is not as it has to be.
    """
    _check_place(wishes)
    words = list(overrides)  # as typed: train.py quotes handles itself
    config = read_config(quote_user(words))
    check_source(config.source)
    if config.shard is not None or config.job_index is not None:
        raise ConfigError(
            "submit: got shard= or job_index=; expected neither, as each task gets its share of "
            "the users; leave it out"
        )
    jobs = select_jobs(config.user, source=config.source)
    plans = [make_plan(config, job) for job in jobs]
    settled = settle_consent(config, jobs)
    if settled.consent is not config.consent:
        words.append(f"consent={settled.consent.value}")
    done = find_done(plans)
    left = [job for job in jobs if job.slug not in done]
    total_s = estimate_seconds(config, left)
    is_array = wishes.nodes is None and wishes.launch is None
    tasks = _choose_tasks(wishes, len(left), total_s) if is_array else 1
    hints = []
    environment = _folders()
    if wishes.launch is not None:
        environment["LAUNCH"] = str(template(str(wishes.launch)))
    if not is_prefetched(config.model):
        hints.append(
            f"{config.model.path} is not in the cache of this machine; if the nodes have no "
            f"network, run `huggingtweets prefetch model.path={config.model.path}` first"
        )
    elif not needs_hub(config):
        environment["HF_HUB_OFFLINE"] = "1"
    output_dir = Path(config.output_dir)
    logs = _logs(output_dir)
    first = _command(wishes, words, logs, is_array, tasks)
    last: tuple[str, ...] = ()
    if wishes.retry and is_batch(config.user):
        last = _command(wishes, [*words, "only_curable=true"], logs, is_array, 1, name="last")
    return Submission(len(left), total_s, tasks, first, last, environment, output_dir, tuple(hints))


def submit(submission: Submission) -> list[str]:
    """Queue the jobs and return their numbers.

    Raises:
        ConfigError: sbatch is not there or refuses; nothing is queued then.
        LaunchError: the logs' folder cannot be made.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "submit: got a machine without sbatch; expected a login node of a SLURM cluster; "
            "--dry-run shows the commands anywhere"
        )
    try:
        submission.logs.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise LaunchError(
            f"output_dir: {submission.logs} cannot be made ({err.strerror}); expected a folder "
            "that can be written; choose another output_dir"
        ) from err
    numbers = [_sbatch(submission.first, submission.environment)]
    with suppress(OSError):  # for `status`, which then says how to go on
        words = f"{submission.shown()[0]}\n"
        (submission.logs / COMMAND.format(numbers[0])).write_text(words, encoding="utf-8")
    if submission.last:
        try:
            numbers.append(_sbatch(_after(submission.last, numbers[0]), submission.environment))
        except ConfigError:
            # Nothing is to be queued; what went wrong is told, whether this goes well or not.
            with suppress(OSError, subprocess.TimeoutExpired):
                call_slurm(["scancel", numbers[0]], timeout_s=SBATCH_TIMEOUT_S)
            raise
    return numbers


def estimate_seconds(config: TrainConfig, jobs: Sequence[Job]) -> float | None:
    """Estimate the seconds of one GPU that training takes; None where the base's shape is unknown.

    From the sizes of files or a typical number of posts, so within a factor of three.
    """
    shape = shape_of(config.model)
    if shape is None:
        return None
    costs = estimate_costs(jobs, config.source)
    tokens = [float(TYPICAL_TOKENS)] * len(jobs)
    # 1 is what `estimate_costs` says of every job where there is no folder of files.
    if any(cost != 1.0 for cost in costs):
        rate = TOKENS_PER_BYTE[_is_compressed(expanded(config.source.path or ""))]
        tokens = [(cost - FIXED_COST_BYTES) * rate for cost in costs]
    steps = [guess_steps(num * (1 - config.recipe.heldout_frac), config.recipe) for num in tokens]
    return sum(JOB_S + training_seconds(num, shape, config.recipe, GPU_FLOPS) for num in steps)


def _logs(output_dir: Path) -> Path:
    # Absolute: sbatch takes a relative path from the folder where the job begins.
    return output_dir.absolute() / LOGS


def _is_compressed(folder: Path) -> bool:
    names = [path.name for path in folder.iterdir()]
    return 2 * sum(name.endswith((".gz", ".parquet")) for name in names) > len(names)


def _check_place(wishes: Wishes) -> None:
    launch = wishes.launch
    if launch is not None and not template(str(launch)).is_file():
        names = sorted(path.name for path in template(CPU).parent.glob("*.yaml"))
        there = ", ".join(f"launch/{name}" for name in names)
        raise ConfigError(f"--launch: got {launch}, which is not there; expected one of {there}")
    for name, least in (("tasks", 1), ("at_once", 1), ("nodes", 1), ("gpus_per_node", 0)):
        option, value = f"--{name.replace('_', '-')}", getattr(wishes, name)
        if value is not None and value < least:
            raise ConfigError(f"{option}: got {value}; expected {least} or more")
        if value and name in ("tasks", "at_once") and (wishes.nodes or launch):
            raise ConfigError(
                f"{option}: got it beside --nodes or --launch, where all nodes share each job; "
                "expected either; leave one out"
            )


def _folders() -> dict[str, str]:
    """Tell the scripts where they and the launch files lie, if not in the current folder."""
    places = {
        "HUGGINGTWEETS_SLURM_DIR": template(ARRAY).parent,
        "HUGGINGTWEETS_LAUNCH_DIR": template(CPU).parent,
    }
    return {key: str(folder) for key, folder in places.items() if folder.is_absolute()}


def _choose_tasks(wishes: Wishes, num_jobs: int, total_s: float | None) -> int:
    """About an hour per task, never more tasks than GPUs have jobs for."""
    if wishes.tasks is not None:
        return wishes.tasks
    gpus = max(1, wishes.gpus_per_node or 1)
    # A minute per job where the base's shape, and so the work, is not known.
    wanted = math.ceil((total_s or 60.0 * num_jobs) / gpus / TASK_S)
    return max(1, min(wanted, math.ceil(num_jobs / gpus), MAX_TASKS))


def _command(
    wishes: Wishes,
    words: Sequence[str],
    logs: Path,
    is_array: bool,
    tasks: int,
    name: str = "",
) -> tuple[str, ...]:
    """Return the call of sbatch; everything behind the script goes to train.py."""
    number = "%A_%a" if is_array else "%j"
    command = ["sbatch", "--parsable"]
    if name:
        command.append(f"--job-name=huggingtweets-{name}")
    command.append(f"--output={str(logs).replace('%', '%%')}/%x-{number}.out")
    if is_array:
        limit = f"%{wishes.at_once}" if wishes.at_once and tasks > 1 else ""
        command.append(f"--array=0-{tasks - 1}{limit}")
    else:
        command.append(f"--nodes={wishes.nodes or 1}")
    if wishes.gpus_per_node is not None:
        command.append(f"--gpus-per-node={wishes.gpus_per_node}")
    return (*command, *wishes.options, str(template(ARRAY if is_array else MULTI_NODE)), *words)


def _after(command: Sequence[str], number: str) -> tuple[str, ...]:
    """Begin once a job has ended, in whatever way: after a failed array `afterok` never begins."""
    return (command[0], f"--dependency=afterany:{number}", *command[1:])


def _sbatch(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = call_slurm(command, timeout_s=SBATCH_TIMEOUT_S, environment=environment)
    except subprocess.TimeoutExpired as err:
        raise ConfigError(
            f"submit: sbatch gave no answer in {SBATCH_TIMEOUT_S:.0f} s; expected the number of a "
            "job; look with squeue whether it is queued before you try again"
        ) from err
    if done.returncode != 0:
        lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines() if line]
        raise ConfigError(
            f"submit: sbatch refused ({'; '.join(lines)}); expected what this cluster has; nothing "
            "is queued; `sinfo` lists partitions and their limits"
        )
    return done.stdout.strip().partition(";")[0]  # `number;cluster` where there are several
