"""Trials are handed out once, up to the total, whoever dies or asks at the same time."""

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from huggingtweets.errors import ConfigError, StorageError
from huggingtweets.storage.lock import acquire_lock
from huggingtweets.sweep.space import Choices, Range
from huggingtweets.sweep.spec import (
    Measure,
    Objective,
    Pruner,
    PrunerKind,
    Sampler,
    StorageKind,
    SweepSpec,
)
from huggingtweets.sweep.study import (
    SURPLUS,
    OpenTrial,
    Trials,
    build_pruner,
    counted,
    load_study,
    open_study,
    storage_errors,
)
from huggingtweets.sweep.summary import summarise_sweep

SPACE = {
    "recipe.lr": Range(1e-5, 1e-2, is_log=True),
    "recipe.epochs": Range(1, 5, is_whole=True),
}
KINDS = (StorageKind.sqlite, StorageKind.journal)


def study_of(root: Path, spec: SweepSpec, **identity: object) -> optuna.Study:
    return open_study(root, spec, identity, max_epochs=5)


def spec_of(**settings: object) -> SweepSpec:
    return SweepSpec(**{"name": "s", "space": SPACE, "trials": 6, **settings})  # type: ignore[arg-type]


def drop(opened: OpenTrial) -> None:
    """Make the trial look as one whose process was killed: the claim stays, its process is gone."""
    opened.lock._ended.set()
    path = max((opened.folder / ".lock").iterdir())
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "1"}))


def tell(study: optuna.Study, opened: OpenTrial, value: float) -> None:
    study.tell(opened.trial, value)
    opened.lock.release()


@pytest.mark.parametrize("kind", KINDS)
def test_trials_end_at_the_total_and_more_can_be_asked_for(
    kind: StorageKind, tmp_path: Path
) -> None:
    for total, expected in ((3, range(3)), (3, range(0)), (5, range(3, 5))):
        spec = spec_of(trials=total, storage=kind)
        study = study_of(tmp_path, spec)
        trials = Trials(tmp_path, spec, study)
        found = []
        while (opened := trials.next()) is not None:
            found.append(opened.number)
            tell(study, opened, 1.0)
        assert found == list(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_trial_goes_on_under_its_own_number(kind: StorageKind, tmp_path: Path) -> None:
    spec = spec_of(storage=kind)
    study = study_of(tmp_path, spec)
    trials = Trials(tmp_path, spec, study)
    first, second = trials.next(), trials.next()
    assert first
    assert second
    drop(first)
    tell(study, second, 1.0)

    again = Trials(tmp_path, spec, study_of(tmp_path, spec))
    resumed = again.next()
    assert resumed
    assert (resumed.number, resumed.params) == (first.number, first.params)
    following = again.next()
    assert following
    assert following.number == 2


def test_a_trial_killed_before_its_folder_was_claimed_is_taken_up(tmp_path: Path) -> None:
    spec = spec_of()
    study = study_of(tmp_path, spec)
    study.ask()
    opened = Trials(tmp_path, spec, study).next()
    assert opened
    assert opened.number == 0
    assert opened.params.keys() == SPACE.keys()


def test_a_living_trial_is_left_alone(tmp_path: Path) -> None:
    spec = spec_of(storage=StorageKind.journal)
    first = Trials(tmp_path, spec, study_of(tmp_path, spec)).next()
    other = Trials(tmp_path, spec, study_of(tmp_path, spec))
    second = other.next()
    assert first
    assert second
    assert (first.number, second.number) == (0, 1)
    assert other.take_over() == 0


def test_asking_at_the_same_time_does_not_go_beyond_the_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(trials=2, storage=StorageKind.journal)
    study = study_of(tmp_path, spec)
    trials = Trials(tmp_path, spec, study)
    ask = study.ask

    def ask_late() -> optuna.Trial:
        study_of(tmp_path, spec).ask()  # another task, between our count and our asking
        return ask()

    monkeypatch.setattr(study, "ask", ask_late)
    first = trials.next()
    assert first
    assert first.number == 1
    assert [trial.number for trial in counted(study)] == [0, 1]
    taken = trials.next()
    assert taken
    assert taken.number == 0
    assert trials.next() is None


def test_a_surplus_trial_counts_for_nothing(tmp_path: Path) -> None:
    spec = spec_of(trials=2)
    study = study_of(tmp_path, spec)
    surplus = study.ask()
    surplus.set_user_attr(SURPLUS, True)
    study.tell(surplus, state=TrialState.FAIL)
    trials = Trials(tmp_path, spec, study)
    numbers = [opened.number for opened in iter(trials.next, None)]
    assert numbers == [1, 2]


def test_the_last_point_of_a_grid_is_the_end_of_its_range(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    space = {"recipe.weight_decay": Range(0.0, 0.3, step=0.1)}
    spec = spec_of(sampler=Sampler.grid, trials=4, space=space, storage=StorageKind.journal)
    trials = Trials(tmp_path, spec, study_of(tmp_path, spec))
    values = [opened.params["recipe.weight_decay"] for opened in iter(trials.next, None)]
    assert sorted(values) == [0.0, 0.1, 0.2, 0.3]
    assert not [one for one in recwarn if "out of range" in str(one.message)]


def draw(root: Path, num: int, spec: SweepSpec) -> list[dict[str, object]]:
    """Parameters of trials, each from a process that was started for it alone."""
    found = []
    for _ in range(num):
        study = study_of(root, spec)
        opened = Trials(root, spec, study).next()
        assert opened
        found.append(opened.params)
        tell(study, opened, 1.0)
    return found


def test_random_trials_depend_on_their_number_alone(tmp_path: Path) -> None:
    spec = spec_of(storage=StorageKind.journal)
    study = study_of(tmp_path / "whole", spec)
    trials = Trials(tmp_path / "whole", spec, study)
    whole = [opened.params for opened in iter(trials.next, None)]
    assert draw(tmp_path / "parts", 6, spec) == whole
    assert len({params["recipe.lr"] for params in whole}) == 6


@pytest.mark.parametrize("sampler", Sampler)
def test_each_sampler_stays_in_the_space(sampler: Sampler, tmp_path: Path) -> None:
    space = SPACE | {"recipe.weight_decay": Range(0.0, 0.3, step=0.1)}
    if sampler is Sampler.grid:
        space = {"recipe.lr": Choices((1e-4, 1e-3)), "recipe.epochs": Range(1, 3, is_whole=True)}  # type: ignore[dict-item]
    num = 16 if sampler is not Sampler.grid else 6
    spec = spec_of(sampler=sampler, trials=num, space=space, storage=StorageKind.journal)
    study = study_of(tmp_path, spec)
    trials = Trials(tmp_path, spec, study)
    seen = set()
    while (opened := trials.next()) is not None:
        lr = opened.params["recipe.lr"]
        assert isinstance(lr, float)
        assert 1e-5 <= lr <= 1e-2
        assert isinstance(opened.params["recipe.epochs"], int)
        seen.add(tuple(opened.params.values()))
        tell(study, opened, abs(lr - 1e-3))
    assert len(seen) == spec.trials


@pytest.mark.parametrize("kind", [PrunerKind.median, PrunerKind.asha, PrunerKind.hyperband])
def test_each_pruner_ends_the_bad_ones(kind: PrunerKind, tmp_path: Path) -> None:
    spec = spec_of(pruner=Pruner(kind), trials=30, storage=StorageKind.journal)
    study = study_of(tmp_path, spec)
    trials = Trials(tmp_path, spec, study)
    epochs = 0
    while (opened := trials.next()) is not None:
        quality = float((opened.number * 7) % 30)
        for epoch in range(1, 6):
            epochs += 1
            opened.trial.report(quality + 1 / epoch, epoch)
            if epoch < 5 and opened.trial.should_prune():
                study.tell(opened.trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(opened.trial, quality)
        opened.lock.release()
    assert study.best_value == 0.0
    assert epochs < 0.75 * 150


@pytest.mark.parametrize("min_epochs", [1, 2, 3])
def test_no_trial_ends_before_its_least_epochs(min_epochs: int) -> None:
    pruner = Pruner(PrunerKind.median, min_epochs=min_epochs)
    study = optuna.create_study(pruner=build_pruner(pruner, 9))
    study.add_trial(
        optuna.trial.create_trial(value=0.0, intermediate_values=dict.fromkeys(range(1, 10), 0.0))
    )
    trial = study.ask()
    for epoch in range(1, min_epochs + 1):
        trial.report(1.0, epoch)
        assert trial.should_prune() == (epoch == min_epochs)


def test_another_sweep_in_the_folder_is_refused(tmp_path: Path) -> None:
    study_of(tmp_path, spec_of(), space="a", users=["x"])
    study_of(tmp_path, spec_of(sampler=Sampler.tpe), space="a", users=["x"])
    with pytest.raises(ConfigError, match=r"other settings \(space\)"):
        study_of(tmp_path, spec_of(), space="b", users=["x"])
    with pytest.raises(ConfigError, match=r"holds study\.db; expected storage: journal"):
        study_of(tmp_path, spec_of(storage=StorageKind.journal), space="a", users=["x"])


def test_other_objectives_in_the_folder_are_refused(tmp_path: Path) -> None:
    study_of(tmp_path, spec_of(), objective=["heldout"])
    pair = Objective((Measure.heldout, Measure.memorisation), None)
    with pytest.raises(ConfigError, match="objective"):
        study_of(tmp_path, spec_of(objective=pair), objective=["heldout", "memorisation"])


def test_a_damaged_study_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match=r"study\.db: cannot be read"):
        study_of(tmp_path, spec_of())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["q?uiz", "a b%20", "x#y", "{a}", "über"])
def test_a_study_lies_in_its_folder_whatever_that_is_called(
    name: str, kind: StorageKind, tmp_path: Path
) -> None:
    study_of(tmp_path / name, spec_of(storage=kind)).set_user_attr("a", 1)
    assert load_study(tmp_path / name).user_attrs["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_fails_in_a_sweep_is_not_taken_for_the_study(tmp_path: Path) -> None:
    log = tmp_path / "trial-0003" / "ann.log"
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path / "study.db"):
        log.open("ab")
    with pytest.raises(StorageError, match="same command again"), storage_errors(tmp_path):
        raise optuna.exceptions.StorageInternalError("database is locked")
    with pytest.raises(StorageError, match="make room"), storage_errors(tmp_path):
        raise optuna.exceptions.StorageInternalError("database or disk is full")


def test_slurm_tasks_share_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    study_of(tmp_path, spec_of())
    assert (tmp_path / "study.journal").exists()
    monkeypatch.delenv("SLURM_JOB_ID")
    study_of(tmp_path, spec_of())
    assert not (tmp_path / "study.db").exists()


def test_the_holder_of_a_folder_is_told_at_once(tmp_path: Path) -> None:
    from huggingtweets.storage.lock import is_left

    assert is_left(tmp_path / "none")
    lock = acquire_lock(tmp_path / "trial")
    assert not is_left(tmp_path / "trial")
    lock.release()
    assert is_left(tmp_path / "trial")


@pytest.mark.parametrize(
    ("sampler", "default", "expected"),
    [
        (Sampler.random, {"recipe.lr": 1e-3, "recipe.epochs": 4}, 6),
        (Sampler.tpe, {"recipe.lr": 1.0, "recipe.epochs": 9}, 6),
        (Sampler.cmaes, {"recipe.lr": 1e-3, "recipe.epochs": 4}, 6),
        (Sampler.grid, {"recipe.lr": 1e-3, "recipe.epochs": 2}, 6),
        (Sampler.grid, {"recipe.lr": 0.5, "recipe.epochs": 2}, 7),
    ],
)
def test_the_default_comes_first_and_once(
    sampler: Sampler, default: dict[str, object], expected: int, tmp_path: Path
) -> None:
    space = SPACE
    if sampler is Sampler.grid:
        space = {"recipe.lr": Choices((1e-4, 1e-3)), "recipe.epochs": Range(1, 3, is_whole=True)}  # type: ignore[dict-item]
    spec = spec_of(sampler=sampler, space=space, default=default, storage=StorageKind.journal)
    study = study_of(tmp_path, spec)
    trials = Trials(tmp_path, spec, study)
    seen = []
    while (opened := trials.next()) is not None:
        seen.append(opened.params)
        tell(study, opened, 1.0 + opened.number)
    assert seen[0] == default
    assert len(seen) == expected
    assert sampler is not Sampler.grid or len({tuple(one.values()) for one in seen}) == expected
    found = summarise_sweep(study, ["heldout"])
    assert found.default == found.row(0)
    assert found.row(0).params == default
