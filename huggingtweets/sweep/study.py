"""The study of a sweep: Optuna's record of all trials, which several processes may share.

A trial's number is its folder's name. Whoever holds the folder's lock works on the trial: a trial
whose process died is taken up again under its own number, so that the total stays what was asked
for and no folder ever serves two trials.
"""

import hashlib
import itertools
import json
import logging
import os
import random
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from huggingtweets.causes import as_known
from huggingtweets.errors import ConfigError, JobBusyError, StorageError, first_line
from huggingtweets.storage.lock import JobLock, acquire_lock, is_left
from huggingtweets.storage.paths import STUDY_FILES
from huggingtweets.storage.places import check_package
from huggingtweets.sweep.space import Choices, Dimension, Scalar, holds, wrong
from huggingtweets.sweep.spec import Pruner, PrunerKind, Sampler, StorageKind, SweepSpec
from huggingtweets.upstream import running_trial, suggest

logger = logging.getLogger(__name__)

SQLITE, JOURNAL = STUDY_FILES
STUDY = "sweep"
IDENTITY = "identity"
DEFAULT = "default"
"""Marks the trial of the searched keys as they stand without a search, and holds their values."""
SURPLUS = "surplus"
"""Marks a trial that several tasks asked for at once beyond the total; it counts for nothing."""

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# A trial that is gone on with reports its epochs again: Optuna keeps what it was told first.
warnings.filterwarnings("ignore", message="The reported value is ignored")


def study_path(root: Path) -> Path | None:
    """Return the file of the study of a folder; None: there is none."""
    for name in STUDY_FILES:
        if (root / name).exists():
            return root / name
    return None


def trial_folder(root: Path, number: int) -> Path:
    """Return the folder of a trial, which no other trial ever gets."""
    return root / f"trial-{number:04d}"


def load_study(root: Path) -> optuna.Study:
    """Open the study of a folder to look at it.

    Raises:
        ConfigError: there is none.
    """
    path = study_path(root)
    if path is None:
        expected = "the output_dir of a sweep; check the path"
        raise wrong("sweep", f"{root}, which holds no study", expected)
    with storage_errors(path, is_new=True):
        return optuna.load_study(study_name=STUDY, storage=_storage(path))


def open_study(
    root: Path, spec: SweepSpec, identity: Mapping[str, Any], *, max_epochs: int
) -> optuna.Study:
    """Open the study of a folder, or begin it.

    Args:
        root: folder of the sweep.
        spec: of the sweep.
        identity: what all its trials share, as plain values.
        max_epochs: the longest training.

    Raises:
        ConfigError: another sweep lies there, or it is stored in another way.
        StorageError: it cannot be read or written.
    """
    found = study_path(root)
    path = found or root / _file_name(spec.storage)
    if found and spec.storage is not StorageKind.auto and found.name != _file_name(spec.storage):
        raise ConfigError(
            f"{root}: holds {found.name}; expected storage: {spec.storage} or a new sweep; leave "
            "storage as it was, or choose another output_dir"
        )
    root.mkdir(parents=True, exist_ok=True)
    with storage_errors(path, is_new=True):
        study = optuna.create_study(
            study_name=STUDY,
            storage=_storage(path),
            pruner=build_pruner(spec.pruner, max_epochs),
            directions=["minimize"] * len(spec.objective.names),
            load_if_exists=True,
        )
        before = study.user_attrs.get(IDENTITY)
        if before is None:
            study.set_user_attr(IDENTITY, dict(identity))
    if before is not None and before != identity:
        changed = [key for key in {**before, **identity} if before.get(key) != identity.get(key)]
        raise ConfigError(
            f"{root}: holds a sweep with other settings ({', '.join(sorted(changed))}); expected "
            "the same sweep or none; choose another output_dir, or delete the folder"
        )
    return study


def _file_name(kind: StorageKind) -> str:
    if kind is StorageKind.auto:
        kind = StorageKind.journal if "SLURM_JOB_ID" in os.environ else StorageKind.sqlite
    return JOURNAL if kind is StorageKind.journal else SQLITE


def _storage(path: Path) -> BaseStorage:
    if path.name == JOURNAL:
        return JournalStorage(JournalFileBackend(str(path)))
    from sqlalchemy import URL  # comes with Optuna, which imports it late itself

    # SQLite waits 5 s for another writer, which is little where many tasks end trials at once.
    url = URL.create("sqlite", database=str(path))  # a path may have a `?` or a `%`
    return RDBStorage(url.render_as_string(), engine_kwargs={"connect_args": {"timeout": 60}})


@contextmanager
def storage_errors(path: Path, *, is_new: bool = False) -> Iterator[None]:
    """Turn what goes wrong with a study's file into one sentence.

    Args:
        path: the file.
        is_new: whether it is being opened, and may be no study at all.

    Raises:
        StorageError: it cannot be read or written.
    """
    # No OSError: it may be of any file that is written meanwhile, and says itself which.
    kinds: tuple[type[Exception], ...] = (optuna.exceptions.OptunaError,)
    if is_new:
        kinds += (KeyError, ValueError)
    if path.name == SQLITE:
        from sqlalchemy.exc import SQLAlchemyError  # takes a while to import

        kinds += (SQLAlchemyError,)
    try:
        yield
    except kinds as err:
        if known := as_known(path, err):  # a full disk
            raise known from err
        reason = first_line(err)
        advice = "choose another output_dir" if is_new else "run the same command again to go on"
        raise StorageError(
            f"{path}: cannot be read or written ({reason}); expected the study of a sweep; {advice}"
        ) from err


def build_pruner(pruner: Pruner, max_epochs: int) -> optuna.pruners.BasePruner:
    """Return Optuna's pruner, which counts in epochs."""
    match pruner.kind:
        case PrunerKind.none:
            return optuna.pruners.NopPruner()
        case PrunerKind.median:
            # Steps below `n_warmup_steps` are spared (Optuna 5.0); ours are epochs, from 1 on.
            return optuna.pruners.MedianPruner(
                n_startup_trials=pruner.startup_trials, n_warmup_steps=pruner.min_epochs
            )
        case PrunerKind.asha:
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=pruner.min_epochs, reduction_factor=pruner.factor
            )
        case PrunerKind.hyperband:
            return optuna.pruners.HyperbandPruner(
                min_resource=pruner.min_epochs,
                max_resource=max(max_epochs, pruner.min_epochs),
                reduction_factor=pruner.factor,
            )


def build_sampler(spec: SweepSpec, seed: int) -> BaseSampler:
    """Return Optuna's sampler."""
    match spec.sampler:
        case Sampler.random | Sampler.grid:
            return RandomSampler(seed=seed)
        case Sampler.tpe:
            # Keys are drawn together, as rate and epochs depend on each other; trials under way
            # count as bad ones, so that those that are asked for at once differ.
            return TPESampler(seed=seed, multivariate=True, constant_liar=True)
        case Sampler.cmaes:
            check_package("sampler: cmaes", "cmaes", "sweep")
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def grid_point(spec: SweepSpec, index: int) -> dict[str, Scalar]:
    """Return one point of a grid, in an order that the sweep's seed decides.

    The default comes first where it is one of them.
    """
    points = list(itertools.product(*(one.points() or () for one in spec.space.values())))
    random.Random(spec.seed).shuffle(points)
    default = tuple(spec.default.values())
    points.sort(key=lambda point: point != default)  # stable
    return dict(zip(spec.space, points[index % len(points)], strict=True))


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return what Optuna draws from."""
    match dimension:
        case Choices(values):
            return CategoricalDistribution(values)
        case one if one.is_whole:
            step = int(one.step or 1)
            return IntDistribution(int(one.low), int(one.high), log=one.is_log, step=step)
        case one:
            return FloatDistribution(one.low, one.high, log=one.is_log, step=one.step)


@dataclass
class OpenTrial:
    """A trial that is ours to train."""

    trial: optuna.Trial
    number: int
    params: dict[str, Scalar]
    folder: Path
    lock: JobLock


class Trials:
    """Hands out trials until there are as many as asked for; one thread uses it."""

    def __init__(self, root: Path, spec: SweepSpec, study: optuna.Study) -> None:
        """Start with none open."""
        self._root = root
        self._spec = spec
        self._study = study
        self._space = {key: distribution(one) for key, one in spec.space.items()}
        self._own: set[int] = set()
        self._taken_over: list[OpenTrial] = []

    def next(self) -> OpenTrial | None:
        """Return a trial to train: one whose process died here, else a new one; None: no more."""
        if self._taken_over:
            return self._taken_over.pop()
        for frozen in self._running():
            if is_left(trial_folder(self._root, frozen.number)):
                opened = self._adopt(frozen, self._claim(frozen.number))
                if opened is not None:
                    return opened
        while len(counted(self._study)) < self._spec.total:
            opened = self._ask()
            if opened is not None:
                return opened
        return None

    def take_over(self) -> int:
        """Take the trials whose process died on any machine; waits up to a minute to be sure.

        Returns:
            How many `next` will give.
        """
        running = self._running()
        with ThreadPoolExecutor(max(1, min(32, len(running)))) as pool:
            locks = list(pool.map(self._claim, [trial.number for trial in running]))
        found = [self._adopt(*pair) for pair in zip(running, locks, strict=True)]
        self._taken_over += [opened for opened in found if opened is not None]
        return len(self._taken_over)

    def _ask(self) -> OpenTrial | None:
        """Begin a new trial; None: another task was faster, and the total is reached."""
        study, spec = self._study, self._spec
        known = len(study.get_trials(deepcopy=False))
        study.sampler = build_sampler(spec, _mixed(spec.seed, "ask", known, _task()))
        trial = study.ask()
        # Counting and asking are two steps: other tasks may have asked in between.
        if trial.number >= spec.total + self._num_surplus():
            trial.set_user_attr(SURPLUS, True)
            study.tell(trial, state=TrialState.FAIL)
            return None
        if trial.number == 0 and spec.default:
            trial.set_user_attr(DEFAULT, dict(spec.default))
        lock = self._claim(trial.number)
        if lock is None:  # taken for dead between the two
            return None
        return self._open(trial, lock)

    def _claim(self, number: int) -> JobLock | None:
        try:
            return acquire_lock(trial_folder(self._root, number))
        except JobBusyError:
            return None

    def _adopt(self, frozen: FrozenTrial, lock: JobLock | None) -> OpenTrial | None:
        """Go on with a trial of a dead process, unless it lives or ended while we waited for it."""
        if lock is None:
            return None
        if self._study.get_trials(deepcopy=False)[frozen.number].state is not TrialState.RUNNING:
            lock.release()
            return None
        return self._open(running_trial(self._study, frozen), lock)

    def _open(self, trial: optuna.Trial, lock: JobLock) -> OpenTrial:
        spec = self._spec
        default: dict[str, Scalar] = trial.user_attrs.get(DEFAULT) or {}
        if default and not all(holds(one, default[key]) for key, one in spec.space.items()):
            # Optuna takes no value from beyond the space: the sampler learns nothing of this
            # trial, the pruner does.
            params = default
        else:
            self._study.sampler = self._sampler_of(trial, default)
            params = {key: suggest(trial, key, one) for key, one in self._space.items()}
        self._own.add(trial.number)
        folder = trial_folder(self._root, trial.number)
        return OpenTrial(trial, trial.number, params, folder, lock)

    def _sampler_of(self, trial: optuna.Trial, default: Mapping[str, Scalar]) -> BaseSampler:
        """Return what a trial's values are drawn by: on its number alone, not on who asks when."""
        spec = self._spec
        if spec.sampler is Sampler.cmaes and not default:
            return self._study.sampler
        sampler = build_sampler(spec, _mixed(spec.seed, "trial", trial.number))
        if spec.sampler is not Sampler.grid and not default:
            return sampler
        # Optuna's own sampler of grids ends studies that are not run by its own loop.
        index = trial.number - self._num_surplus(before=trial.number) - spec.is_default_extra
        point = default or grid_point(spec, index)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is called experimental
            return PartialFixedSampler(dict(point), sampler)

    def _running(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in trials if trial.number not in self._own]

    def _num_surplus(self, *, before: int | None = None) -> int:
        trials = self._study.get_trials(deepcopy=False)[:before]
        return sum(bool(trial.user_attrs.get(SURPLUS)) for trial in trials)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials but those that were asked for beyond the total."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if not trial.user_attrs.get(SURPLUS)]


def _mixed(*parts: object) -> int:
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _task() -> str:
    """What tells the tasks of one SLURM job from each other."""
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID")
    return " ".join(os.environ.get(name, "") for name in names)
