"""The benchmark on a real base: what it asks for, keeps and concludes; here on a tiny base."""

import math
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small import ROOT

from huggingtweets.config.compose import register
from huggingtweets.posts.records import Post, Timeline

sys.path.append(str(ROOT / "benchmarks"))
from quality_real import canaries, plan, plots, statistics
from quality_real.main import PUBLISHED, work_off
from quality_real.rows import Rows
from quality_real.tables import report
from quality_real.work import Workshop, recipe_of

register()
TINY = (
    "model=tiny", "model.num_layers=1", "model.width=32", "model.num_heads=2",
    "model.vocab_size=300", "model.max_positions=1024",
)  # fmt: skip
DESIGN = plan.Design(
    base=TINY, choice=("QueenNoor", "NASA"), test=("TheOnion", "JDMahama"), crowd=("Oreo", "NASA"),
    num_choice=12, num_test=(16, 12), num_heldout=6, num_crowd=8, samples=1, num_seeds=1,
)  # fmt: skip


def invented(run: plan.Run, bits: float) -> plan.Row:
    """What a run could have left, of four posts of ten bytes each."""
    nats = 10 * bits * math.log(2)
    posts = [[f"{run.account}{index}", nats, 30.0, 10] for index in range(4)]
    evals = [{"epoch": 0.0, "bits": 4.0, "train_bits": 4.0, "prefix": None, "extracted": None}]
    figures = {"bits": bits, "base": 4.0, "train_bits": bits, "tokens": 9, "seconds": 1.0}
    figures |= {"steps": 1, "kept_epoch": 1.0, "tokens_per_byte": 0.3}
    return {"figures": figures, "posts": posts, "evals": evals}


def rates_asked(rows: Rows, bits_at: dict[float, float]) -> list[float]:
    """Let the walk over the rates go on invented figures; return what it asked to be trained."""
    asked = []
    for group in plan.groups(rows, DESIGN, ["rates"]):
        missing = rows.missing(group)
        if missing:
            rate = recipe_of(missing[0].words)["recipe.lr"]
            asked.append(rate)
            for run in missing:
                rows.add(run, invented(run, bits_at[rate]))
    return asked


def test_rates_are_tried_only_where_it_gets_better(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    upwards = {1e-4: 9.0, 3e-4: 3.0, 1e-3: 2.0, 3e-3: 1.5, 1e-2: 1.8}
    assert rates_asked(Rows(path, recipe_of), upwards) == [1e-3, 3e-3, 1e-2]
    downwards = {1e-4: 1.6, 3e-4: 1.5, 1e-3: 2.0, 3e-3: 2.5, 1e-2: 9.0}
    assert rates_asked(Rows(tmp_path / "down", recipe_of), downwards) == [1e-3, 3e-3, 3e-4, 1e-4]
    assert rates_asked(Rows(path, recipe_of), {}) == [], "what is there is not trained again"


def test_a_later_step_takes_the_best_rate(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl", recipe_of)
    rates_asked(rows, {1e-4: 1.6, 3e-4: 1.5, 1e-3: 2.0, 3e-3: 2.5, 1e-2: 9.0})
    [first] = [
        group for group in plan.groups(rows, DESIGN, ["ranks"]) if rows.missing(group)
    ][:1]  # fmt: skip
    assert recipe_of(first[0].words)["recipe.lr"] == 3e-4
    assert recipe_of(first[0].words)["recipe.lora_rank"] == 4
    assert recipe_of(first[0].words)["recipe.lora_alpha"] == 8


def test_a_row_counts_once_it_is_whole_and_as_long_as_its_recipe_is_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    run, other = plan.on_choice(DESIGN, "rates", "a", plan.LORA)
    Rows(path, recipe_of).add(run, invented(run, 2.0))
    path.write_text(path.read_text() + '{"run": {"step"')  # killed while it wrote
    rows = Rows(path, recipe_of)
    assert rows.missing([run, other]) == [other]
    rows.add(other, invented(other, 3.0))
    again = Rows(path, recipe_of)
    assert again.missing([run, other]) == []
    assert plan.mean_bits(again.of([run, other])) == 2.5
    assert again.missing([replace(run, seed=1)]), "another seed is another run"
    published = tmp_path / "published.jsonl"
    path.rename(published)
    elsewhere = Rows(path, recipe_of, published)
    assert elsewhere.missing([run]) == []
    elsewhere.add(run, invented(run, 1.5))
    assert [row["figures"]["bits"] for row in Rows(path, recipe_of, published).of([run])] == [1.5]

    changed = Rows(path, lambda words: recipe_of(words) | {"recipe.epochs": 99})
    assert changed.missing([run, other]) == [run, other]


def test_published_rows_can_be_read(tmp_path: Path) -> None:
    """All of them: their overrides are words that today's configuration knows."""
    assert len(Rows(tmp_path / "none", recipe_of, PUBLISHED).all) == len(
        PUBLISHED.read_text("utf-8").splitlines()
    )


def test_a_difference_is_paired_by_post_and_tells_chance_from_gain() -> None:
    rng = random.Random(0)

    def accounts(shift: float, noise: float) -> dict[str, statistics.Posts]:
        hard = random.Random(1)
        return {
            name: {
                str(index): (100 * (hard.uniform(1, 5) + shift + rng.gauss(0, noise)), 100)
                for index in range(40)
            }
            for name in "abcdefgh"
        }

    first = accounts(0, 0)
    better = statistics.difference(accounts(-0.05, 0.05), first)
    assert better is not None
    assert better.low < -0.05 < better.high < 0
    assert (better.wins, better.num) == (8, 8)
    assert better.percent == pytest.approx(-100 * 0.05 / 3, rel=0.3)
    same = statistics.difference(accounts(0, 0.05), first)
    assert same is not None
    assert same.low < 0 < same.high
    assert statistics.difference({"z": {"1": (1.0, 1)}}, first) is None


def test_canaries_are_planted_as_often_as_they_say_and_ranked_by_loss() -> None:
    made = canaries.make_canaries(0)
    posts = tuple(Post(id=str(index), text=f"post number {index}") for index in range(200))
    planted = canaries.plant(Timeline("a", "A", posts), made, range(20, 180))
    for one in made:
        assert sum(one.text in post.text for post in planted.posts) == one.copies
    assert planted.posts[:20] == posts[:20]
    others = canaries.candidates(made[0], 0)
    assert others[0] == made[0].text
    assert len(set(others)) == canaries.NUM_CANDIDATES
    assert canaries.exposure([1.0, *[2.0] * 511]) == 9
    assert canaries.exposure([3.0, *[2.0] * 511]) == 0


@pytest.fixture(scope="module")
def worked(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The test, few posts and canaries, trained in earnest on a tiny base and few posts."""
    folder = tmp_path_factory.mktemp("quality")
    rows = Rows(folder / "rows.jsonl", recipe_of)
    workshop = Workshop(DESIGN, shared, folder)
    few = replace(DESIGN, num_choice=48)  # as many places as there are canaries
    some = [
        group
        for group in plan.groups(rows, few, ["canaries"])
        if group[0].setting in ("masked", "not masked")
    ]
    some.append(
        plan.on_test(DESIGN, "posts", "50 posts, crowd", ("recipe=lora",), num_train=12,
                     base=DESIGN.crowd_name)
    )  # fmt: skip
    groups = [*plan.groups(rows, DESIGN, ["test"]), *some]
    assert not work_off(rows, workshop, groups, until=0.0), "no time for anything"
    assert work_off(rows, workshop, groups, until=math.inf, together=1)
    return rows, workshop, folder


def test_recipes_are_trained_sampled_and_told(worked: Any) -> None:
    rows, workshop, folder = worked
    settings = rows.settings("test")
    assert set(settings) == {"lora", "huggingtweets", "tweets"}
    for name, own in settings.items():
        assert [row["run"]["account"] for row in own] == ["TheOnion", "JDMahama"]
        for row in own:
            assert row["figures"]["bits"] < row["figures"]["base"], name
            assert len(row["posts"]) == DESIGN.num_heldout
            assert len(row["samples"]) <= 5
    heldout = [[post[0] for post in own[0]["posts"]] for own in settings.values()]
    assert heldout[0] == heldout[1] == heldout[2], "all are scored on the same posts"
    told = report(rows, workshop, DESIGN)
    assert "| held-out bits per byte |" in told
    assert "planted 16" in told
    before = (folder / "rows.jsonl").read_bytes()
    groups = plan.groups(rows, DESIGN, ["test"])
    assert work_off(rows, workshop, groups, until=0.0), "nothing is left to do"
    assert (folder / "rows.jsonl").read_bytes() == before


def test_what_is_masked_stands_in_no_training_post(worked: Any) -> None:
    rows, _, _ = worked
    [masked], [plain] = (rows.settings("canaries")[name] for name in ("masked", "not masked"))
    seen = {
        name: {(one["form"], one["copies"]): one["seen"] for one in row["canaries"]}
        for name, row in (("masked", masked), ("plain", plain))
    }
    for (form, copies), num in seen["plain"].items():
        assert num > 0, (form, copies)
        assert (seen["masked"][form, copies] == 0) == (form != "locker")


def test_pictures_stand_by_themselves(worked: Any, tmp_path: Path) -> None:
    rows, _, _ = worked
    [path] = plots.write_plots(rows, tmp_path)
    picture = path.read_text()
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "from the crowd" in picture
