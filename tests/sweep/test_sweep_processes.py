"""A training that ends for want of something else than its settings leaves its trial under way."""

import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from huggingtweets.config.compose import register
from huggingtweets.errors import StorageError
from huggingtweets.storage.paths import JobPaths
from huggingtweets.sweep import processes
from huggingtweets.sweep.plan import Sweep, plan_sweep
from huggingtweets.sweep.spec import read_spec
from huggingtweets.sweep.study import Trials, open_study
from huggingtweets.sweep.trial_progress import TrialProgresses
from huggingtweets.training import stopping

STOP = "training: got SIGINT; everything so far is saved; run the same command again to go on"
FULL = (
    "out/x.json: got No space left on device; expected a disk with room; make room, then run the "
    "same command again"
)
BAD = "recipe: got no step to train; expected some; take another recipe"

register()


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of three trials whose posts are there, in a process that nobody has stopped yet."""
    monkeypatch.setattr(stopping, "_state", stopping._State())
    monkeypatch.setattr(processes, "BUSY_WAIT_S", 0.0)
    path = tmp_path / "a.yaml"
    path.write_text("space: {recipe.lr: [1e-4, 1e-3]}\ntrials: 3")
    found = plan_sweep(read_spec(path, ["user=ann", f"output_dir={tmp_path / 'out'}"]), path)
    posts = JobPaths(found.posts_dir / "ann")
    posts.root.mkdir(parents=True)
    posts.posts.touch()
    posts.cleaning.touch()
    return found


def states(sweep: Sweep, code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run trials whose every process says these words and leaves with this code."""
    script = f"import sys; print('huggingtweets: {words}'); sys.exit({code})"
    monkeypatch.setattr(processes, "launcher", lambda _: [sys.executable, "-c", script])
    study = open_study(sweep.root, sweep.spec, {}, max_epochs=1)
    progresses = TrialProgresses(study, sweep.spec.objective, lambda _: None)
    trials = Trials(sweep.root, sweep.spec, study)
    try:
        processes.run_process_trials(sweep, trials, progresses)
    finally:
        progresses.give_up()
    return names(study)


def names(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_a_training_that_was_stopped_is_gone_on_with(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(sweep, 75, STOP, monkeypatch) == ["RUNNING"]
    stopping._state.signal_name = None  # the next start
    assert states(sweep, 1, BAD, monkeypatch) == ["FAIL"] * 3


def test_a_full_disk_ends_the_sweep_and_no_trial(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match="make room"):
        states(sweep, 1, FULL, monkeypatch)
    study = open_study(sweep.root, sweep.spec, {}, max_epochs=1)
    assert names(study) == [TrialState.RUNNING.name]
