"""Every mistake in a sweep file is one sentence; what is right is read as it was meant."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from huggingtweets.cli.main import main
from huggingtweets.config.compose import register
from huggingtweets.config.overrides import CONFIG_DIR
from huggingtweets.config.schema import Consent
from huggingtweets.errors import ConfigError
from huggingtweets.jobs import consent
from huggingtweets.sweep.plan import Sweep, check_alone, plan_sweep
from huggingtweets.sweep.space import Choices, Range, as_override
from huggingtweets.sweep.spec import Measure, Objective, Pruner, PrunerKind, Sampler, read_spec

register()

GOOD = """
space:
  recipe.lr: {low: 1e-5, high: 1e-2, log: true}
  recipe.epochs: {low: 1, high: 4}
"""


def plan(text: str, path: Path, *arguments: str) -> Sweep:
    path.write_text(text)
    return plan_sweep(read_spec(path, ["user=demo", *arguments]), path)


WRONG = {
    "a wrong key": ("space: {recipe.lrr: [1, 2]}", "did you mean recipe.lr?"),
    "a wrong group option": ("space: {model: [tiny, gpt3]}", "model: got 'gpt3'"),
    "people": ("space: {user: [ann, bob]}", "space.user: got a key that no trial heeds"),
    "a source": ("space: {source: [demo, jsonl]}", "space.source: got a key that no trial heeds"),
    "samples": ("space: {sampling.top_p: [0.8, 0.9]}", "got a key that no trial heeds"),
    "an empty range": ("space: {recipe.lr: {low: 2e-3, high: 1e-3}}", "the empty range 0.002"),
    "a range of one point": ("space: {recipe.lr: {low: 1e-3, high: 1e-3}}", "the empty range"),
    "no choice": ("space: {recipe.schedule: []}", "got an empty list"),
    "mixed types": ("space: {recipe.lr: [1e-3, small]}", "of number and text"),
    "mixed with truth": ("space: {recipe.lr: [1e-3, true]}", "of number and true or false"),
    "a list of lists": ("space: {recipe.lr: [[1], [2]]}", "expected choices of one type"),
    "a choice twice": ("space: {recipe.lr: [1e-3, 1e-3]}", "different choices"),
    "an unknown choice": ("space: {recipe.schedule: [cosine, sine]}", "did you mean"),
    "a choice out of bounds": ("space: {recipe.lr: [1e-3, -1]}", "recipe.lr: got -1"),
    "an end out of bounds": ("space: {recipe.epochs: {low: 0, high: 3}}", "recipe.epochs: got 0"),
    "text for a number": ("space: {recipe.epochs: [few, many]}", "expected a whole number"),
    "half an epoch": ("space: {recipe.epochs: {low: 1.5, high: 3}}", "got 1.5; expected a whole"),
    "a range of words": ("space: {recipe.schedule: {low: 1, high: 2}}", "holds no number"),
    "no high": ("space: {recipe.lr: {low: 1e-3}}", "got no high"),
    "a misspelt end": ("space: {recipe.lr: {low: 1e-3, hihg: 1}}", "did you mean high?"),
    "text for an end": ("space: {recipe.lr: {low: small, high: 1}}", "low: got 'small'"),
    "a log of zero": ("space: {recipe.dropout: {low: 0, high: 0.5, log: true}}", "above 0"),
    "log and step": ("space: {recipe.lr: {low: 1, high: 2, log: true, step: 1}}", "step: got 1"),
    "one value": ("space: {recipe.lr: 1e-3}", "expected a range or a list"),
    "no space": ("sampler: tpe", "got no space"),
    "an empty space": ("space: {}", "space: got {}"),
    "a misspelt setting": (GOOD + "samplr: tpe", "did you mean sampler?"),
    "a misspelt sampler": (GOOD + "sampler: tpee", "did you mean tpe?"),
    "a misspelt pruner": (GOOD + "pruner: ahsa", "expected one of none, median, asha"),
    "a misspelt measure": (GOOD + "objective: held", "did you mean heldout?"),
    "a weight of zero": (GOOD + "objective: {heldout: 1, memorisation: 0}", "the weight 0"),
    "no trials": (GOOD + "trials: 0", "trials: got 0"),
    "half a trial": (GOOD + "trials: 1.5", "trials: got 1.5"),
    "parallel nothing": (GOOD + "parallel: 0", "parallel: got 0"),
    "a continuous grid": (GOOD + "sampler: grid", "continuous range with sampler: grid"),
    "cmaes over words": (
        "space: {recipe.schedule: [cosine, linear]}\nsampler: cmaes",
        "choices with sampler: cmaes",
    ),
    "two objectives, pruned": (
        GOOD + "objective: [heldout, memorisation]\npruner: asha",
        "pruner: got asha with several objectives",
    ),
    "a fused block size": ("space: {recipe.block_size: [64, 128]}\nway: fused", "way: got fused"),
    "arguments of no list": (GOOD + "config: recipe=tweets", "expected a list of arguments"),
    "a wrong argument": (GOOD + "config: [recip=tweets]", "did you mean recipe"),
    "nothing held out": (GOOD + "config: [recipe.heldout_frac=0]", "recipe.heldout_frac: got 0"),
    "no YAML": ("space: [", "expected YAML"),
    "a list": ("- 1", "got no keys"),
    "an empty file": ("", "got no space"),
    "a W&B sweep": ("method: random\nparameters: {}", "wandb sweep"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistake_is_one_sentence(name: str, tmp_path: Path) -> None:
    text, part = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        plan(text, tmp_path / "sweep.yaml")
    message = str(caught.value)
    assert part in message
    assert "\n" not in message
    assert message.count("expected") == 1


def test_missing_file_names_one_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"conf/sweep/huggingtweets\.yaml"):
        read_spec(tmp_path / "none.yaml")


def test_the_original_space_is_read_number_for_number() -> None:
    path = CONFIG_DIR / "sweep" / "huggingtweets.yaml"
    sweep = plan_sweep(read_spec(path, ["user=demo"]), path)
    lr = sweep.spec.space["recipe.lr"]
    assert isinstance(lr, Range)
    assert lr.is_log
    assert (lr.low, lr.high) == pytest.approx((2.718281828**-14, 2.718281828**-6), rel=1e-3)
    assert sweep.spec.space["recipe.epochs"] == Range(1, 10, is_whole=True)
    assert sweep.spec.space["recipe.schedule"] == Choices(("constant", "linear", "cosine"))
    assert sweep.spec.space["recipe.warmup_frac"] == Choices((0.0, 0.1, 0.2))
    assert sweep.spec.space["recipe.global_batch_size"] == Choices((1, 4, 8))
    assert sweep.spec.sampler is Sampler.random
    assert sweep.max_epochs == 10
    assert sweep.config.recipe.block_size == 1024
    assert str(sweep.root) == "output/sweep-huggingtweets"


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    arguments = ("sweep.trials=5", "sweep.pruner.kind=asha", "recipe=tweets", "output_dir=x")
    sweep = plan(
        GOOD + "trials: 9\nconfig: [recipe=huggingtweets]", tmp_path / "a.yaml", *arguments
    )
    assert sweep.spec.trials == 5
    assert sweep.spec.pruner.kind is PrunerKind.asha
    assert sweep.config.recipe.block_size == 256
    assert str(sweep.root) == "x"


def test_an_argument_changes_one_setting_of_the_pruner(tmp_path: Path) -> None:
    text = GOOD + "pruner: {kind: asha, min_epochs: 2, factor: 3}"
    sweep = plan(text, tmp_path / "a.yaml", "sweep.pruner.factor=4")
    assert sweep.spec.pruner == Pruner(PrunerKind.asha, min_epochs=2, factor=4)
    sweep = plan(GOOD + "pruner: asha", tmp_path / "a.yaml", "sweep.pruner.factor=4")
    assert sweep.spec.pruner == Pruner(PrunerKind.asha, factor=4)


def test_several_users_and_a_cyborg_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(GOOD)
    two = plan_sweep(read_spec(path, ["user=1e5,Bob"]), path)
    assert two.slugs == ("1e5", "bob")
    cyborg = plan_sweep(read_spec(path, ["user=[alice,bob]"]), path)
    assert cyborg.slugs == ("alice-bob",)
    (tmp_path / "users.txt").write_text("a\nb c\n")
    listed = plan_sweep(read_spec(path, [f"user=file:{tmp_path}/users.txt"]), path)
    assert listed.slugs == ("a", "b-c")


def test_a_grid_is_searched_whole(tmp_path: Path) -> None:
    text = "space: {recipe.lr: [1e-4, 1e-3], recipe.epochs: {low: 1, high: 3}}\nsampler: grid"
    assert plan(text, tmp_path / "a.yaml").spec.trials == 6


def test_objectives_weigh_or_stand_side_by_side(tmp_path: Path) -> None:
    figures = {Measure.heldout: 2.0, Measure.memorisation: 0.5}
    weighted = plan(GOOD + "objective: {heldout: 1, memorisation: 0.4}", tmp_path / "a.yaml")
    assert weighted.spec.objective.values(figures) == [pytest.approx(2.2)]
    assert weighted.spec.objective.names == ("1 x heldout + 0.4 x memorisation",)
    pair = plan(GOOD + "objective: [heldout, memorisation]", tmp_path / "b.yaml")
    assert pair.spec.objective.values(figures) == [2.0, 0.5]
    assert Objective().values(figures) == [2.0]


@pytest.mark.parametrize(
    "value", ["it's", "a,b", "c:\\", "c:\\'", "1e5", "null", None, True, 1e-5, 3]
)
def test_overrides_come_through_hydra_as_they_were(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(as_override("key", value))  # type: ignore[arg-type]
    assert override.value() == value


def test_a_launcher_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check_alone("a.yaml", ["user=demo"])
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"run `huggingtweets sweep a\.yaml user=demo`"):
        check_alone("a.yaml", ["user=demo"])


def test_without_optuna_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "optuna" else object()
    )
    assert main(["sweep", "any.yaml"]) == 2
    assert "pip install 'huggingtweets[sweep]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "text", "dimension"),
    [
        ("recipe.lr", "interval(1e-5, 1e-3)", Range(1e-5, 1e-3)),
        ("recipe.lr", "tag(log, interval(1e-5, 1e-3))", Range(1e-5, 1e-3, is_log=True)),
        ("recipe.epochs", "interval(1, 10)", Range(1, 10, is_whole=True)),
        ("recipe.epochs", "range(1, 10)", Range(1, 9, is_whole=True)),
        ("recipe.epochs", "range(1, 10, 4)", Range(1, 9, step=4, is_whole=True)),
        ("recipe.epochs", "1,2,4", Choices((1, 2, 4))),
        ("recipe.schedule", "choice(cosine, constant)", Choices(("cosine", "constant"))),
        ("recipe", "huggingtweets,tweets", Choices(("huggingtweets", "tweets"))),
        ("recipe.dropout", "null,0.1", Choices((None, 0.1))),
    ],
)
def test_ranges_are_written_as_hydra_writes_them(
    key: str, text: str, dimension: object, tmp_path: Path
) -> None:
    found = plan(f'space: {{{key}: "{text}"}}', tmp_path / "a.yaml", "model=tiny")
    assert found.spec.space == {key: dimension}
    path = tmp_path / "b.yaml"
    path.write_text("space: {}")
    words = ["user=demo", "model=tiny", f"{key}={text}"]
    on_the_command_line = plan_sweep(read_spec(path, words), path)
    assert on_the_command_line.spec.space == {key: dimension}


@pytest.mark.parametrize("text", ["intervall(1, 2)", "interval(1", "1e-3"])
def test_what_hydra_cannot_read_is_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space\.recipe\.lr: got .*interval\(1, 10\)"):
        plan(f'space: {{recipe.lr: "{text}"}}', tmp_path / "a.yaml")


def test_the_default_is_the_first_trial(tmp_path: Path) -> None:
    short = ("model=tiny", "recipe.block_size=64")
    found = plan(GOOD, tmp_path / "a.yaml", *short, "recipe=huggingtweets")
    assert found.spec.default == {"recipe.lr": 1.372e-4, "recipe.epochs": 4}
    assert found.default.recipe.epochs == 4
    groups = plan("space: {recipe: [tweets, huggingtweets]}", tmp_path / "b.yaml", "model=tiny")
    assert groups.spec.default == {"recipe": "tweets"}
    impossible = plan(GOOD, tmp_path / "c.yaml", "model=tiny", "model.max_positions=64")
    assert impossible.spec.default == {}


@pytest.mark.parametrize(
    "space",
    [
        "space: {recipe: [huggingtweets, lora], model: [tiny]}",
        "space: {recipe.schedule: [linear], recipe.keep: [last], model.path: [gpt2, null]}",
        "space: {recipe.epochs: [9], recipe.dropout: [0.5], recipe.lr: [1], seed: [1, 2]}",
    ],
)
def test_the_default_trial_is_the_settings_without_a_search(space: str, tmp_path: Path) -> None:
    found = plan(space, tmp_path / "a.yaml", "recipe=tweets", "recipe.epochs=3", "model=tiny")
    stated = replace(found.config, consent=Consent.permission)  # as `plan_sweep` does
    trial = replace(found, config=stated).trial_config(found.spec.default, tmp_path)
    assert (trial.model, trial.seed) == (found.default.model, found.default.seed)
    assert trial.recipe == found.default.recipe
    assert trial.consent is Consent.permission


def test_a_ground_that_is_asked_for_keeps_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consent, "is_somebody_there", lambda: True)
    monkeypatch.setattr(consent, "ask", lambda question: "permission")
    words = ("user=ann", "source=jsonl", "source.path=x", "model=tiny", "recipe.block_size=64")
    found = plan(GOOD, tmp_path / "a.yaml", *words, "publish=hub")
    assert found.spec.default
    assert found.default.consent is found.config.consent is Consent.permission


def test_a_file_that_is_nowhere_is_named_as_it_was_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sweep", "huggingtweet.yaml", "user=demo"]) == 2
    assert "sweep: got huggingtweet.yaml, which is not there" in capsys.readouterr().err
