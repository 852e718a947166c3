"""Helper processes: their work is done whatever becomes of them, and none outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import helper_work
import psutil
import pytest
import torch
from job_processes import SMALL, write_posts

from huggingtweets import train
from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.handles import Job
from huggingtweets.jobs import fused
from huggingtweets.jobs.ledger import open_ledger
from huggingtweets.jobs.status import read_states
from huggingtweets.jobs.tally import Tally
from huggingtweets.pipeline.outcome import build_texts
from huggingtweets.runtime import helper
from huggingtweets.runtime.helper import Helper, Helpers, shared_helpers

HANDLES = ("ann", "bob", "carl")


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    with closing(Helpers(1, "helper_work")) as one:
        yield one


def test_work_is_done_beside_by_one_process(helpers: Helpers) -> None:
    first = helpers.call(helper_work.pid)
    assert first != os.getpid()
    assert helpers.call(helper_work.pid) == first


def test_a_helper_is_warm_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "warmed"
    monkeypatch.setenv("HELPER_WORK_WARMED", str(told))
    with closing(Helpers(4, "helper_work")) as helpers:
        helpers.warm_up()
        assert helpers.call(helper_work.pid) == int(told.read_text())
        assert helpers.call(helper_work.pid) == int(told.read_text()), "nor is another started"


def test_work_goes_on_here_where_the_process_is_killed_amid_it(helpers: Helpers) -> None:
    first = helpers.call(helper_work.pid)
    assert helpers.call(helper_work.die_elsewhere, os.getpid()) == os.getpid()
    again = helpers.call(helper_work.pid)
    assert again not in (first, os.getpid())


def test_work_goes_on_where_the_process_is_killed_at_rest(helpers: Helpers) -> None:
    first = helpers.call(helper_work.pid)
    os.kill(first, signal.SIGKILL)
    assert helpers.call(helper_work.pid) == os.getpid()
    assert helpers.call(helper_work.pid) not in (first, os.getpid())


def test_what_a_function_raises_is_raised_here(helpers: Helpers) -> None:
    with pytest.raises(ValueError, match="no such colour"):
        helpers.call(helper_work.fail, "no such colour")
    assert helpers.call(helper_work.pid) != os.getpid()


def test_no_process_is_left() -> None:
    with closing(Helpers(2, "helper_work")) as helpers:
        pid = helpers.call(helper_work.pid)
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_helpers_that_were_ended_begin_again_when_they_are_called(helpers: Helpers) -> None:
    first = helpers.call(helper_work.pid)
    helpers.close()
    assert helpers.call(helper_work.pid) not in (first, os.getpid())


def test_one_helper_serves_all_jobs_and_is_started_before_pytorch_is_imported(
    tmp_path: Path,
) -> None:
    """Or else it would take a core from training."""
    write_posts(tmp_path / "posts", "ann", "bob")
    (tmp_path / "users.txt").write_text("ann\nbob\n")
    code = (
        "import sys; from huggingtweets import train; from huggingtweets.runtime import helper\n"
        "class Noted(helper.Helper):\n"
        "    def __init__(self, module):\n"
        "        print(module, 'torch' in sys.modules); super().__init__(module)\n"
        "helper.Helper = Noted; sys.exit(train.main())"
    )
    words = [f"user=file:{tmp_path / 'users.txt'}", *SMALL, "engine=single", "publish=local"]
    words += ["source=jsonl", f"source.path={tmp_path / 'posts'}", "recipe.max_steps=2"]
    words += [f"output_dir={tmp_path / 'out'}", "sampling.num=1", "sampling.max_new_tokens=12"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert build_texts.__module__ == train.TEXTS
    assert done.stdout.splitlines().count(f"{train.TEXTS} False") == 1
    assert f"{train.TEXTS} True" not in done.stdout
    assert (tmp_path / "out" / "bob" / "model" / "preview.png").exists()


def test_a_helper_ends_with_its_killed_parent() -> None:
    code = (
        "import helper_work, time; from huggingtweets.runtime.helper import Helper; "
        "print(Helper('helper_work').call(helper_work.pid), flush=True); time.sleep(60)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the helper lives on"
        time.sleep(0.05)


class Killed(Helper):
    """A helper that is killed as soon as it is at work."""

    num_killed = 0

    def call(self, function, *arguments):  # type: ignore[no-untyped-def]
        self._line.send((function, arguments))
        os.kill(self._process.pid, signal.SIGKILL)
        Killed.num_killed += 1
        is_well, value = self._line.recv()
        assert is_well
        return value


def plan_for(folder: Path, handle: str) -> Plan:
    words = [*SMALL, "engine=fused", "engine.slots=2", "recipe.max_steps=3", "publish=local"]
    words += ["source=jsonl", f"source.path={folder.parent / 'posts'}", f"output_dir={folder}"]
    words += ["sampling.num=1", "sampling.max_new_tokens=12", f"user={handle}"]
    return make_plan(to_config(compose_config(words)), Job((handle,)))


def test_no_user_is_lost_where_every_helper_is_killed_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything missing that a reader finds, and the figures are the same."""
    register()
    write_posts(tmp_path / "posts", *HANDLES)
    found = {}
    for name in ("well", "killed"):
        if name == "killed":
            monkeypatch.setattr(helper, "Helper", Killed)
        shared_helpers.cache_clear()  # those of before are not killed
        plans = [plan_for(tmp_path / name, handle) for handle in HANDLES]
        with open_ledger(tmp_path / name) as ledger:
            base = find_base(plans[0].config.model)
            fused.run_fused(plans, base, torch.device("cpu"), Tally(ledger, {}))
        states = read_states(tmp_path / name)
        assert {state.status.value for state in states.values()} == {"done"}, states
        found[name] = {
            handle: (
                sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()),
                json.loads((root / "result.json").read_text())["quality"],
                (root / "model" / "preview.png").read_bytes(),
            )
            for handle in HANDLES
            for root in [tmp_path / name / handle]
        }
    assert Killed.num_killed == len(HANDLES)
    assert found["killed"] == found["well"]
