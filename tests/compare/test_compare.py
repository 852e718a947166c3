"""Two trainings of the same people, held against each other; and the end of a grid."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from job_processes import SMALL, Running, Start

from huggingtweets.cli import main as cli
from huggingtweets.compare.comparison import PairedScores, compare, mean_difference
from huggingtweets.compare.settings import read_settings
from huggingtweets.compare.table import write_page
from huggingtweets.config.compose import check_arguments, register
from huggingtweets.errors import ConfigError

register()


def write_job(folder: Path, slug: str, bits: float, **config: object) -> None:
    root = folder / slug
    root.mkdir(parents=True)
    result = {
        "slug": slug,
        "eval": {"bits_per_byte": bits, "base_bits_per_byte": 3.0},
        "train": {"tokens": 1000, "seconds": 2.0},
        "quality": {
            "text": {
                "memorisation": {
                    "samples": {"ngram_fracs": [0.2, 0.1, 0, 0, 0], "copied_frac": 0.5}
                },
                "diversity": {"samples": {"distinct": [0.5, 0.8, 0.9]}},
            }
        },
    }
    (root / "result.json").write_text(json.dumps(result))
    lines = [f"  {key}: {json.dumps(value)}" for key, value in config.items()]
    (root / "config.yaml").write_text("seed: 1\nuser: x\nrecipe:\n" + "\n".join(lines) + "\n")


@pytest.fixture
def outputs(tmp_path: Path) -> list[Path]:
    """Two trainings of four people, and a fifth that only one has."""
    for name, gain, lr in (("one", 0.0, 1e-4), ("two", 0.1, 2e-4)):
        for at, slug in enumerate(("ann", "bob", "cy", "<b>dee")):
            extra = 0.3 if (name, slug) == ("two", "cy") else 0.0
            write_job(tmp_path / name, slug, 2.0 + at / 10 - gain + extra, lr=lr, epochs=4)
    write_job(tmp_path / "two", "only", 1.0, lr=2e-4, epochs=4)
    return [tmp_path / "one", tmp_path / "two"]


def test_means_wins_and_settings(outputs: list[Path]) -> None:
    found = compare(read_settings(outputs), None)
    first, second = found.totals
    assert (first.bits, second.bits) == (pytest.approx(2.15), pytest.approx(2.125))
    assert second.difference == pytest.approx(-0.025)
    assert second.wins == 3
    assert second.interval
    assert second.interval.low == pytest.approx(-0.1)
    assert second.interval.low < second.difference < second.interval.high
    assert second.copied == pytest.approx(0.06)
    assert (second.long_copied, second.distinct_2, second.tokens) == (0.5, 0.8, 1000)
    assert found.changed == {"recipe.lr": [1e-4, 2e-4]}
    assert found.num_left_out == 1
    assert found.people[-1].slug == "cy"


def test_folder_of_a_grid_stands_for_its_settings(outputs: list[Path]) -> None:
    assert [one.name for one in read_settings([outputs[0].parent])] == ["one", "two"]
    assert len(read_settings([*outputs, outputs[0]])) == 2


@pytest.mark.parametrize("names", [["one"], ["one", "none"], ["empty", "one"]])
def test_what_cannot_be_compared_is_one_sentence(
    names: list[str], outputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (outputs[0].parent / "empty").mkdir()
    assert cli.main(["compare", *(str(outputs[0].parent / name) for name in names)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("huggingtweets: compare: got ")
    assert "Traceback" not in err


def test_people_in_common_are_needed(outputs: list[Path], tmp_path: Path) -> None:
    write_job(tmp_path / "other", "eve", 2.0)
    with pytest.raises(ConfigError, match="no person that one, other have in common"):
        compare(read_settings([outputs[0], tmp_path / "other"]), None)


@pytest.mark.parametrize("bits", ["{}", "null", '"2.0"', "[2.0]"])
def test_damaged_results_are_passed_over(bits: str, outputs: list[Path]) -> None:
    (outputs[0] / "ann" / "result.json").write_text('{"eval": ')
    result = (outputs[1] / "bob" / "result.json").read_text()
    (outputs[1] / "bob" / "result.json").write_text(
        result.replace('"bits_per_byte": 2.0', f'"bits_per_byte": {bits}')
    )
    found = compare(read_settings(outputs), None)
    assert {row.slug for row in found.people} == {"cy", "<b>dee"}


def test_a_configuration_without_end_is_none(outputs: list[Path]) -> None:
    for slug in ("ann", "bob", "cy", "<b>dee"):
        (outputs[0] / slug / "config.yaml").write_text("[" * 20_000)
    assert compare(read_settings(outputs), None).changed["recipe.lr"] == [None, 2e-4]
    for path in outputs[0].parent.glob("*/*/config.yaml"):
        path.write_text("recipe: {lr: &itself [*itself]}")
    assert not compare(read_settings(outputs), None).changed


def test_posts_drawn_in_pairs_tell_a_small_steady_gain() -> None:
    rng = np.random.default_rng(1)
    hard = rng.uniform(10, 90, 200)  # posts differ much more than models do
    nats = (tuple(hard), tuple(hard - 1), tuple(hard + rng.normal(0, 5, 200)))
    scores = PairedScores(nats, (50,) * 200)
    gain = scores.difference(1, seed=0)
    assert gain.low == pytest.approx(gain.high)
    assert gain.low == pytest.approx(-1 / math.log(2) / 50)
    noise = scores.difference(2, seed=0)
    assert noise.low < 0 < noise.high


def test_one_person_has_no_interval_over_people() -> None:
    assert mean_difference([0.1], seed=0) is None
    found = mean_difference([0.1, 0.2, 0.3], seed=0)
    assert found
    assert 0.1 <= found.low < 0.2 < found.high <= 0.3


def test_page_shows_hostile_names_as_text(outputs: list[Path], tmp_path: Path) -> None:
    settings = read_settings(outputs)
    page = tmp_path / "page.html"
    write_page(page, compare(settings, None), settings, "x<script>")
    text = page.read_text()
    assert "&lt;b&gt;dee" in text
    assert not re.search(r"<b>|<script|(?:src|href)=\"(?!data:)", text)


def test_a_page_takes_no_folders_place(
    outputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *map(str, outputs), "--page", str(outputs[1])]) == 2
    assert "name one with --page" in capsys.readouterr().err
    assert (outputs[1] / "ann" / "result.json").is_file()


def test_each_setting_of_a_grid_has_a_folder() -> None:
    def folder(*words: str) -> str:
        _, taken = check_arguments(["-m", *words])
        return [word for word in taken if word.startswith("output_dir=")][-1]

    group = folder("recipe=lora,tweets", "recipe.lr=1e-4,2e-4")
    assert group == (
        "output_dir='output/recipe-${folder_name:${hydra:runtime.choices.recipe}}"
        "_lr-${folder_name:${recipe.lr}}'"
    )
    assert folder("recipe=lora,tweets", "output_dir=x/").startswith("output_dir='x/recipe-$")
    own = "output_dir=x/${recipe.lr}"
    assert folder("recipe=lora,tweets", own) == own


@pytest.mark.parametrize("word", ["recipe=tweets,twets", "recipe.epochs=1,0.5", "model=tiny,gpt3"])
def test_a_wrong_value_of_a_grid_is_found_before_the_first_training(word: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        check_arguments(["-m", "user=demo", word])


def test_a_grid_over_a_group_runs_and_ends_with_its_comparison(tmp_path: Path) -> None:
    own = [text for text in SMALL if not text.startswith(("sampling", "recipe"))]
    words = ["-m", "recipe=huggingtweets,tweets", "user=demo", *own, "recipe.block_size=32"]
    words += ["recipe.max_steps=3", "sampling.num=1", "sampling.max_new_tokens=12"]
    log = tmp_path / "log"
    running = Running(Start([*words, f"output_dir={tmp_path}/out"], log=log))
    assert running.wait(900.0) == 0, running.words()
    shown = running.words()
    assert "recipe-huggingtweets" in shown
    assert "Person by person" in shown
    page = (tmp_path / "out" / "grid.html").read_text()
    assert "recipe.isolate_documents" in page
    found = compare(read_settings([tmp_path / "out"]), None)
    assert [total.name for total in found.totals] == ["recipe-huggingtweets", "recipe-tweets"]
    assert cli.main(["compare", str(tmp_path / "out"), "--json"]) == 0
