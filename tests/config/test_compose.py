"""Every option composes; every typo gets one sentence."""

from dataclasses import asdict
from pathlib import Path

import pytest

from huggingtweets.config.compose import (
    check_arguments,
    compose_config,
    dump_config,
    folder_name,
    load_config,
    register,
    to_config,
    with_own_folders,
)
from huggingtweets.config.overrides import CONFIG_DIR, check_overrides, plain_values
from huggingtweets.config.plan import make_plan
from huggingtweets.config.posts_schema import SERVICES, SourceKind
from huggingtweets.config.schema import TrainConfig, group_names
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.storage.files import flatten

register()
NEEDS_PATH = set(SourceKind) - {SourceKind.demo, *SERVICES}
OPTIONS = [
    (group, path.stem)
    for group in (*group_names(), "experiment")
    for path in sorted((CONFIG_DIR / group).glob("*.yaml"))
]


def config_of(*overrides: str):
    return to_config(compose_config(["user=demo", *overrides]))


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="=".join)
def test_every_option_composes_and_makes_a_plan(group: str, option: str) -> None:
    overrides = [f"{group}={option}"]
    if group == "source" and option in NEEDS_PATH:
        overrides.append("source.path=posts")
    if option == "tiny":
        overrides.append("recipe.block_size=128")
    if (group, option) == ("publish", "hub"):
        overrides.append("consent=permission")
    plan = make_plan(config_of(*overrides), Job.of(["demo"]))
    assert len(plan.digest) == 64


def test_groups_are_the_folders_of_conf() -> None:
    folders = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()}
    assert folders == {*group_names(), "experiment", "sweep", "users"}


def check_and_plan(*overrides: str) -> None:
    check_arguments(["user=demo", *overrides])
    make_plan(config_of(*overrides), Job.of(["demo"]))


TYPOS = {
    "recip.lr=1": "did you mean recipe.lr",
    "recipe.lrr=1": "did you mean recipe.lr",
    "lr=3": "did you mean recipe.lr",
    "sorce=csv": "did you mean source?",
    "model.pth=x": "did you mean model.path",
    "outputdir=x": "did you mean output_dir",
    "engine.precison=fp32": "did you mean engine.precision",
    "sampling.temp=1": "no such key",
    "recipe.lr=abc": "expected a number",
    "recipe.lr=-1": "expected a number above 0",
    "recipe.epochs=0": "expected 1 or more",
    "recipe.epochs=1.5": "expected a whole number",
    "engine.slots=1.5": "expected auto or a whole number",
    "engine.slots=true": "expected auto or a whole number",
    "engine.peak_tflops=0": "expected a number above 0",
    "recipe.dropout=1": "expected a number from 0 to below 1",
    "recipe.warmup_frac=2": "from 0 to below 1",
    "recipe.heldout_frac=0.95": "to below 0.9",
    "recipe.block_size=4": "expected 8 or more",
    "recipe.keep=bst": "did you mean recipe.keep=best",
    "recipe.schedule=cosin": "did you mean recipe.schedule=cosine",
    "recipe=tweet": "did you mean recipe=tweets",
    "model=gpt3": "expected one of distilgpt2, gemma3-270m, gpt2",
    "source=csvv": "did you mean source=csv",
    "source=csv": "add source.path=",
    "engine.precision=fp64": "expected one of auto, fp32, bf16, fp16",
    "engine.compile=maybe": "expected true or false",
    "engine.micro_batch_size=x": "expected auto or a number",
    "engine.slots=0": "expected auto or a number",
    "sampling.top_p=0": "above 0, at most 1",
    "sampling.prompts=3": "expected a list",
    "source=null": "source: got null; expected one of",
    "recipe=3": "recipe: got '3'; expected one of",
    "output_dir=null": "output_dir: got null; expected text",
    "output_dir=[a]": "expected text",
    "recipe.dropout=abc": "recipe.dropout: got 'abc'; expected a number",
    "recipe.stop=null": "recipe.stop: got null; expected one of",
    "sampling.min_new_tokens=999": "sampling.max_new_tokens",
    "seed=x": "expected a whole number",
    "seed=-1": "expected 0 to",
    "consent=maybe": "expected one of unstated, own-archive",
    "output_dir=": "expected a folder",
    "hub.token=hf_abc": "secrets are never given on the command line",
    "+foo=1": "keys cannot be added",
    "~recipe": "keys cannot be added or removed",
    "user": "cannot be read as an override",
    "user==a": "cannot be read as an override",
    "recipe.epochs=1,2": "add -m",
    "--lr=3": "expected key=value without dashes",
    "model.path=null": "recipe.block_size: got 512",
}


@pytest.mark.parametrize("typo", TYPOS)
def test_typo_gets_one_sentence(typo: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_and_plan("recipe.block_size=512", typo)
    message = str(caught.value)
    assert TYPOS[typo] in message
    assert "\n" not in message
    assert "Traceback" not in message


def test_multirun_is_refused_under_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    check_arguments(["-m", "user=a,b", "recipe.lr=1e-4,2e-4"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"use `huggingtweets train -m user=a,b`"):
        check_arguments(["-m", "user=a,b"])


def test_each_setting_of_a_grid_gets_a_folder_of_its_own() -> None:
    grid = ["user=a,b", "recipe.lr=1e-4,2e-4", "seed=1,2", "model=tiny,gpt2", "shard=0/2"]
    *kept, folder = with_own_folders(check_overrides(grid, is_grid=True), "mine")
    assert kept == grid
    assert folder == (
        "output_dir='mine/lr-${folder_name:${recipe.lr}}_seed-${folder_name:${seed}}"
        "_model-${folder_name:${hydra:runtime.choices.model}}'"
    )
    for words in (["user=a"], ["user=a,b"], ["seed=1,2", "output_dir=a,b"]):
        assert with_own_folders(check_overrides(words, is_grid=True), "mine") == words


@pytest.mark.parametrize("flags", [["-m"], ["--multirun"], ["--mult"]], ids=str)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_grid_is_one_however_it_is_asked_for(flags: list[str], at: int, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\noutput_dir: my-results\n")
    words = ["user=a", "seed=1,2", "experiment=mine", f"--config-dir={tmp_path}"]
    words[at:at] = flags
    composed, taken = check_arguments(words)
    assert composed is None
    own = "output_dir='my-results/seed-${folder_name:${seed}}'"
    assert taken[:4] == ["user=a", "seed=1,2", "experiment=mine", own]
    assert {*taken[4:]} == {*flags, f"--config-dir={tmp_path}"}


def test_a_grid_may_have_several_sources() -> None:
    _, words = check_arguments(["-m", "user=a", "source=jsonl", "source.path=a,b"])
    assert words[-2].startswith("output_dir='output/path-$")


def test_each_value_has_a_folder_name_of_its_own() -> None:
    values = ["посты", "записи", "a/b", "a-b", "a/b c", None, 1e-4, "..", "", "x" * 300, -1, 1]
    values += ["\udcff", "\udcfe"]
    names = [folder_name(value) for value in values]
    assert len(set(names)) == len(names)
    assert names[:2] == values[:2]
    assert all(name and name == Path(name).name and len(name) < 60 for name in names)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("output_dir=über uns", "über uns"),
        ("output_dir=~nosuch/x", "~nosuch/x"),
        ("output_dir=1e5", "1e5"),
        ("output_dir=~/x", str(Path.home() / "x")),
        ("optout_file=#1;2.txt", "#1;2.txt"),
        ("source.path=посты/a.jsonl", "посты/a.jsonl"),
        ("model.path=null", None),
        ("model.path='a,b'", "a,b"),
        ("recipe.warm_start=&/.crowd", "&/.crowd"),
    ],
)
def test_a_path_needs_no_quotes(word: str, value: object) -> None:
    config = flatten(asdict(to_config(compose_config([word]))))
    assert config[word.partition("=")[0]] == value
    assert plain_values(plain_values([word])) == plain_values([word])


@pytest.mark.parametrize("flag", [["--help"], ["--cfg", "job"], ["--info", "defaults"]])
def test_flags_of_hydra_are_left_to_hydra(flag: list[str]) -> None:
    check_arguments(flag)


def test_what_is_checked_is_what_runs_but_for_what_hydra_has_to_do() -> None:
    composed, _ = check_arguments(["user=a", "recipe.epochs=2"])
    assert composed is not None
    assert to_config(composed) == config_of("user=a", "recipe.epochs=2")
    for words in (["-m", "user=a", "seed=1,2"], ["user=a", "hydra.verbose=true"], ["--info"]):
        assert check_arguments(words)[0] is None


def test_dumped_config_loads_as_it_was(tmp_path: Path) -> None:
    config = config_of("recipe.dropout=null", "source=csv", "source.path=a b", "seed=7")
    plan = make_plan(config, Job.of(["a", "B"]))
    (tmp_path / "config.yaml").write_text(dump_config(plan.config))
    loaded = load_config(tmp_path / "config.yaml")
    assert loaded == plan.config
    assert loaded.user == ["a", "b"]


@pytest.mark.parametrize("text", ["", "a: [", "recipe: 3", "recipe: {lr: x}", "\x00"])
def test_damaged_config_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    if text == "":
        assert load_config(tmp_path / "config.yaml").seed == 42
        return
    with pytest.raises(ConfigError):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "text",
    ["1_000", "1e5", "null", "0x1f", ".5", "-1", "e5", "2001-01-01", "it's", "~", ".nan", "é"],
)
def test_dumped_texts_stay_texts(text: str, tmp_path: Path) -> None:
    config = TrainConfig(user=[text, "b"], output_dir=text)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_numbers_of_other_sweeps_are_taken_as_they_are_meant() -> None:
    config = to_config(compose_config(["recipe.epochs=3.0", "recipe.dropout=None", "seed=7."]))
    assert (config.recipe.epochs, config.recipe.dropout, config.seed) == (3, None, 7)
    config = to_config(compose_config(["recipe.max_steps=1e3", "engine.slots=2.0", "job_index=1."]))
    assert (config.recipe.max_steps, config.engine.slots, config.job_index) == (1000, 2, 1)
    assert plain_values(["-m", "recipe.epochs=3.0,4.0", "recipe.lr=1.0", "user=a.0"]) == [
        "-m", "recipe.epochs=3,4", "recipe.lr=1.0", "user=a.0",
    ]  # fmt: skip
    assert plain_values(["seed=9007199254740993,9007199254740993.0"]) == [
        "seed=9007199254740993,9007199254740993"
    ]


@pytest.mark.parametrize("word", ["seed=042", "recipe.epochs=01", "recipe.epochs=01.0"])
def test_numbers_that_begin_with_0_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="expected a whole number"):
        check_arguments(["user=a", word])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-m", "user=a", "hydra/launcher=submitit_slurm"], "`huggingtweets submit`"),
        (["user=a", "hydra/job_logging=none"], "are not used here"),
        (["-m", "user=a", "recipe.lr=interval(1,2)"], "`huggingtweets sweep`"),
        (["-m", "user=a", "recipe=glob(*)"], "expected some; write a,b,c"),
        (["-m", "user=a", "recipe.stop=never,nevre"], "did you mean recipe.stop=never?"),
        (["-m", "user=a", "recipe.lr=1e-4,-1"], "recipe.lr: got -1"),
        (["-m", "user=a", "--nosuch"], "train: got --nosuch; expected key=value"),
        (["user=a", "--config-dir=/no/such/folder"], "--config-dir: got '/no/such/folder'"),
        (["user=a", "--config-path=/no/such/folder"], "--config-path: got '/no/such/folder'"),
    ],
)
def test_what_hydra_offers_and_we_do_not_is_said(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_arguments(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_may_be_called_by_a_number(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/2.yaml").write_text("epochs: 2\n")
    flag = f"--config-dir={tmp_path}"
    composed, _ = check_arguments([flag, "recipe=2", "user=a"])
    assert composed is not None
    assert composed.recipe.epochs == 2
    _, words = check_arguments(["-m", flag, "recipe=2,tweets", "user=a"])
    assert words[0] == "recipe='2','tweets'"
    _, words = check_arguments([flag, "recipe=2", "--cfg", "job"])
    assert words[0] == "recipe='2'"


def test_a_grid_of_experiments_has_a_folder_for_each() -> None:
    _, words = check_arguments(["-m", "experiment=demo,demo-real"])
    own = "experiment-${folder_name:${hydra:runtime.choices.experiment}}"
    assert words[1] == f"output_dir='output/{own}'"


def test_options_of_another_folder_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("lr: 3e-4\n")
    flag = f"--config-dir={tmp_path}"
    check_arguments([flag, "recipe=mine", "user=a"])
    with pytest.raises(ConfigError, match=r"did you mean recipe\.lr"):
        check_arguments([flag, "recipe=mine", "recipe.lrr=1"])
    (tmp_path / "recipe/mine.yaml").write_text("lrr: 3e-4\n")
    with pytest.raises(ConfigError, match="lrr"):
        check_arguments([flag, "recipe=mine", "user=a"])
