"""What a submission would do, told without a cluster."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from small import ROOT, SMALL_MODEL

from huggingtweets.cli.main import main
from huggingtweets.config.compose import compose_config, dump_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.errors import ConfigError
from huggingtweets.jobs.selection import select_jobs
from huggingtweets.jobs.submit import MAX_TASKS, Wishes, plan_submission, submit
from huggingtweets.standing import seal_model, sealed_config


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Overrides of a batch of 1,000 people with 100 kB of posts each."""
    posts = tmp_path / "posts"
    posts.mkdir()
    for number in range(1000):
        (posts / f"user{number}.jsonl").touch()
        (posts / f"user{number}.jsonl").open("wb").truncate(100_000)
    (tmp_path / "users.txt").write_text("".join(f"user{number}\n" for number in range(1000)))
    return [
        f"user=file:{tmp_path / 'users.txt'}",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={tmp_path / 'out'}",
        "consent=permission",
    ]


def option(command: tuple[str, ...], name: str) -> str:
    return next(word.partition("=")[2] for word in command if word.startswith(f"--{name}="))


def test_tasks_are_chosen_by_the_work(words: list[str]) -> None:
    words.append("recipe.epochs=20")
    one, four = (plan_submission(words, Wishes(gpus_per_node=gpus)) for gpus in (1, 4))
    large = plan_submission([*words, "model=gpt2-xl"], Wishes(gpus_per_node=1))
    assert one.num_jobs == 1000
    assert one.gpu_s is not None
    assert 1 < one.tasks < 100
    assert one.gpu_s / one.tasks <= 3600 < one.gpu_s / (one.tasks - 1)
    assert four.tasks < one.tasks < large.tasks <= MAX_TASKS
    assert option(one.first, "array") == f"0-{one.tasks - 1}"
    assert "give or take" in one.size


def leave_model(plan: Plan) -> None:
    """Leave what a finished job leaves, as far as is looked at."""
    plan.paths.model.mkdir(parents=True)
    (plan.paths.model / "model.safetensors").write_bytes(b"weights")
    result = {"digest": plan.digest, "model": {"files": seal_model(plan.paths)}}
    plan.paths.result.write_text(json.dumps(result))


def plans_of(words: list[str]) -> list[Plan]:
    register()
    config = to_config(compose_config(words))
    return [make_plan(config, job) for job in select_jobs(config.user, source=config.source)]


def test_there_are_never_more_tasks_than_jobs(words: list[str]) -> None:
    words += ["model=gpt2-xl", "recipe.epochs=10000"]
    plans = plans_of(words)
    for plan in plans[:998]:
        leave_model(plan)
    (plans[0].paths.model / "model.safetensors").unlink()
    left = plan_submission(words, Wishes())
    assert (left.num_jobs, left.tasks) == (3, 3), "998 are done, one of them has lost its weights"


def test_nothing_is_queued_where_all_is_done(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for plan in plans_of(words):
        leave_model(plan)
    assert main(["submit", *words]) == 0, "without sbatch: it is not called"
    assert capsys.readouterr().out.splitlines() == ["jobs    nothing to do: every model is there"]


def test_other_settings_are_refused_before_anything_is_queued(words: list[str]) -> None:
    for plan in plans_of(words)[:2]:
        leave_model(plan)
        plan.paths.config.write_text(sealed_config(dump_config(plan.config), plan.digest))
    with pytest.raises(ConfigError, match=r"2 of 1000 jobs in .* are not those asked for"):
        plan_submission([*words, "recipe.epochs=7"], Wishes())


@pytest.mark.parametrize(("asked", "fresh"), [(".", "{here}-2"), ("..", "{up}-2"), ("a", "a-2")])
def test_a_fresh_folder_is_named_for_a_folder_without_a_name(
    asked: str, fresh: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = [*words, f"output_dir={asked}"]
    for plan in plans_of(words)[:2]:
        leave_model(plan)
        plan.paths.config.write_text(sealed_config(dump_config(plan.config), plan.digest))
    fresh = fresh.format(here=tmp_path / "here", up=tmp_path)
    with pytest.raises(ConfigError, match=f"take output_dir={re.escape(fresh)}, or set"):
        plan_submission([*words, "recipe.epochs=7"], Wishes())


def test_a_user_is_handed_on_as_typed(words: list[str]) -> None:
    words[0] = "user=user1"
    assert "user=user1" in plan_submission(words, Wishes()).first


def test_wishes_become_options(words: list[str]) -> None:
    wishes = Wishes(tasks=16, at_once=8, gpus_per_node=4, options=["--time=60", "--account=lab"])
    plan = plan_submission(words, wishes)
    assert option(plan.first, "array") == "0-15%8"
    assert option(plan.first, "gpus-per-node") == "4"
    place = plan.first.index("slurm/array.sbatch")
    assert plan.first[place - 2 : place] == ("--time=60", "--account=lab")
    assert plan.first[place + 1 :] == tuple(words)
    assert option(plan.last, "array") == "0-0"
    assert plan.last[-1] == "only_curable=true"
    assert "--dependency=afterany:JOB" in plan.shown()[1]
    assert plan_submission(words, replace(wishes, retry=False)).last == ()


def test_several_nodes_share_each_job(words: list[str]) -> None:
    plan = plan_submission(words, Wishes(nodes=2, launch=Path("launch/zero3.yaml")))
    assert "slurm/multi_node.sbatch" in plan.first
    assert option(plan.first, "nodes") == "2"
    assert option(plan.first, "output").endswith("/slurm-logs/%x-%j.out")
    assert plan.environment["LAUNCH"] == "launch/zero3.yaml"
    assert plan.shown()[0].startswith("LAUNCH=launch/zero3.yaml ")


def test_the_network_is_left_out_where_nothing_needs_it(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = [*words, *SMALL_MODEL, "recipe.block_size=64"]
    assert plan_submission(local, Wishes()).environment == {"HF_HUB_OFFLINE": "1"}
    assert plan_submission([*local, "publish=hub"], Wishes()).environment == {}
    there_is_none = plan_submission([*words, "model.path=lab/nothing"], Wishes())
    assert there_is_none.environment == {}
    assert "huggingtweets prefetch model.path=lab/nothing" in there_is_none.hints[0]


@pytest.mark.parametrize(
    ("word", "wishes", "sentence"),
    [
        ("shard=0/2", Wishes(), "each task gets its share"),
        ("recipe.lrr=1", Wishes(), "did you mean recipe.lr"),
        ("user=file:no", Wishes(), "no is not there"),
        ("seed=1", Wishes(launch=Path("launch/none.yaml")), "which is not there; expected one of"),
        ("seed=1", Wishes(at_once=0), "--at-once: got 0"),
        ("seed=1", Wishes(tasks=2, nodes=2), "--tasks: got it beside --nodes"),
        ("seed=1", Wishes(at_once=2, nodes=2), "--at-once: got it beside --nodes"),
        ("seed=1", Wishes(gpus_per_node=-2), "--gpus-per-node: got -2; expected 0 or more"),
    ],
)
def test_mistakes_are_told(words: list[str], word: str, wishes: Wishes, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan_submission([*words, word], wishes)


def test_any_folder_will_do(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_submission(words, Wishes(nodes=2, launch=Path("launch/zero3.yaml")))
    script = next(Path(word) for word in plan.first if word.endswith(".sbatch"))
    assert script.is_file()
    assert Path(plan.environment["LAUNCH"]).is_file()
    assert Path(plan.environment["HUGGINGTWEETS_SLURM_DIR"]) == script.parent
    assert (Path(plan.environment["HUGGINGTWEETS_LAUNCH_DIR"]) / "multi_gpu.yaml").is_file()


def test_a_machine_without_sbatch_is_told(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_submission(words, Wishes())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="a machine without sbatch"):
        submit(plan)
    assert not plan.logs.exists()


def test_what_sbatch_refuses_is_told_also_where_nothing_can_be_cancelled(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The array is queued and the last job is not: the first goes again, if scancel is there."""
    plan = plan_submission(words, Wishes())
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        '#!/bin/sh\ncase "$*" in *afterany*) echo no such >&2; exit 1;; esac; echo 7\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:/bin")
    with pytest.raises(ConfigError, match="sbatch refused"):
        submit(plan)
