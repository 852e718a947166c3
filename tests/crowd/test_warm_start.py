"""A warm start: one model of some posts of the batch, from which each person's model begins."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from job_processes import train
from safetensors.torch import load_file
from small import SMALL_MODEL

from huggingtweets.bases.model import find_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import make_plan
from huggingtweets.config.schema import CROWD_FOLDER, TrainConfig
from huggingtweets.crowd import warm_start
from huggingtweets.crowd.record import RECORD, read_crowd
from huggingtweets.crowd.warm_start import begin_warm
from huggingtweets.data.prepare import clean_posts, prepare
from huggingtweets.errors import ConfigError, OptedOutError
from huggingtweets.handles import Job
from huggingtweets.jobs.selection import select_jobs
from huggingtweets.people.purge import plan_purge, purge
from huggingtweets.posts.optout import add_optout
from huggingtweets.posts.sources.load import load_timeline

CPU = torch.device("cpu")
PEOPLE = ("ann", "bob", "carl", "dora", "eve")
QUICK = (
    *SMALL_MODEL, "recipe.block_size=64", "engine.precision=fp32", "recipe.max_steps=3",
    "recipe.warm_start=batch", "cleaning.min_chars=0", "cleaning.warn_chars=0", "sampling.num=1",
    "source=jsonl", "source.path=posts", "user=file:users.txt", "output_dir=out",
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with posts of five people, of each 60 that nobody else says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "posts").mkdir()
    words = random.Random(0)
    for handle in PEOPLE:
        rows = [
            {"id": str(i), "text": " ".join(f"{handle}{words.randrange(999)}" for _ in range(6))}
            for i in range(60)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "posts" / f"{handle}.jsonl").write_text(lines)
    (tmp_path / "users.txt").write_text("\n".join(PEOPLE) + "\n")
    return tmp_path


def config_of(*words: str) -> TrainConfig:
    register()
    return to_config(compose_config([*QUICK, *words]))


def jobs_of(config: TrainConfig) -> list[Job]:
    return select_jobs(config.user)


def begin(config: TrainConfig, why_not: str | None = None) -> Path:
    return Path(begin_warm(config, jobs_of(config), find_base(config.model), CPU, why_not).path)


def test_everybody_begins_from_the_crowd_and_the_card_says_so(place: Path) -> None:
    done = train(*QUICK, cwd=place)
    assert done.returncode == 0, done.stderr
    crowd = read_crowd(place / "out" / CROWD_FOLDER)
    assert crowd is not None
    assert sorted(crowd.people) == sorted(PEOPLE)
    assert crowd.num_posts == 5 * 40
    first = load_file(crowd.model / "model.safetensors")
    for handle in PEOPLE:
        card = (place / "out" / handle / "model" / "README.md").read_text()
        assert "by an epoch on 200 posts of 5 people" in card
        assert not any(f"@{other}" in card for other in PEOPLE if other != handle)
    # Three small steps lead away from the crowd's weights, not from those of the base.
    own = load_file(place / "out" / "ann" / "model" / "model.safetensors")
    base = find_base(config_of().model)
    of_base = load_file(Path(base.path) / "model.safetensors")
    name = "transformer.wte.weight"
    assert (own[name] - first[name]).norm() < (own[name] - of_base[name]).norm()
    # Nobody waits for it again, and who comes later begins from the same.
    stamp = (crowd.folder / RECORD).stat().st_mtime_ns
    (place / "users.txt").write_text("\n".join([*PEOPLE, "fred"]))
    shutil.copy(place / "posts" / "ann.jsonl", place / "posts" / "fred.jsonl")
    again = train(*QUICK, cwd=place)
    assert again.returncode == 0, again.stderr
    assert (crowd.folder / RECORD).stat().st_mtime_ns == stamp


def test_nobody_s_heldout_posts_are_in_it(place: Path) -> None:
    config = config_of("recipe=tweets")
    chosen = {user.handle: user for user, _ in warm_start._chosen_posts(config, jobs_of(config))}
    base = find_base(config.model)
    for job in select_jobs(config.user):
        timeline = load_timeline(config.source, job.handles[0])
        users, reports = clean_posts([timeline], config.cleaning)
        split = prepare(
            users, reports, recipe=config.recipe, seed=config.seed, codec=base.codec
        ).split
        learnt = {post.text for post in chosen[job.handles[0]].posts}
        assert split.heldout[0]
        assert learnt <= set(split.train[0])
        assert not learnt & set(split.heldout[0])


def test_who_opts_out_is_not_in_the_next_one(place: Path) -> None:
    optout = place / "optout.txt"
    optout.touch()
    config = config_of(f"optout_file={optout}")
    folder = begin(config).parent
    add_optout("bob", str(optout))
    with pytest.raises(OptedOutError, match="bob"):
        begin(replace(config, recipe=replace(config.recipe, warm_start=str(folder))))
    crowd = read_crowd(begin(config).parent)
    assert crowd is not None
    assert "bob" not in crowd.people
    assert len(crowd.people) == 4


def test_another_batch_begins_from_a_folder(place: Path) -> None:
    folder = begin(config_of()).parent
    alone = config_of(f"recipe.warm_start={folder}", "user=ann", "output_dir=other")
    assert begin(alone, "it is of no family of ours").parent == folder


def test_a_damaged_crowd_is_trained_again(place: Path) -> None:
    model = begin(config_of())
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:-1])
    begin(config_of())
    assert (model / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("words", "why_not", "expected"),
    [
        (("user=ann",), None, "many people"),
        (("source=bluesky", "source.path=null"), None, "huggingtweets import"),
        ((), "it is of no family of ours", "no family of ours"),
        (("recipe.warm_start=nowhere",), None, "no whole crowd"),
        (("user=file:two.txt",), None, "2 people who have enough posts"),
    ],
    ids=["one person", "a service", "single engine", "no crowd", "few people"],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    place: Path, words: tuple[str, ...], why_not: str | None, expected: str
) -> None:
    (place / "two.txt").write_text("ann\nbob\n")
    with pytest.raises(ConfigError, match=expected):
        begin(config_of(*words), why_not)


def test_another_base_s_crowd_is_refused(place: Path) -> None:
    config = config_of()
    folder = begin(config).parent
    # Every tiny model bears the same name.
    wider = config_of("model.width=64", f"recipe.warm_start={folder}", "user=ann")
    with pytest.raises(ConfigError, match="trained from another tiny"):
        begin(wider)
    other = replace(find_base(config.model), name="gpt2")
    with pytest.raises(ConfigError, match="trained from tiny"):
        begin_warm(config, jobs_of(config), other, CPU, None)


def test_adapters_alone_would_fit_no_base(place: Path) -> None:
    config = config_of("recipe.adapter=lora", "publish.lora=adapter")
    with pytest.raises(ConfigError, match=r"publish\.lora=merged"):
        make_plan(config, select_jobs(config.user)[0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("consent=public-donation",), "batch"),
        (("consent=permission",), None),
        (("consent=public-donation", "user=ann"), None),
        (("consent=public-donation", "source=bluesky"), None),
        (("consent=public-donation", "publish.lora=adapter"), None),
    ],
    ids=["donated", "permitted", "one person", "a service", "adapters"],
)
def test_recipe_lora_begins_from_a_crowd_where_posts_were_donated(
    place: Path, words: tuple[str, ...], expected: str | None
) -> None:
    config = config_of("recipe=lora", "recipe.warm_start=auto", *words)
    plan = make_plan(config, select_jobs("file:users.txt")[0])
    assert plan.config.recipe.warm_start == expected


@pytest.mark.parametrize("handles", [PEOPLE, PEOPLE[:2]], ids=["many", "few"])
def test_donated_posts_are_a_crowd_where_they_suffice(
    place: Path, handles: tuple[str, ...]
) -> None:
    (place / "users.txt").write_text("\n".join(handles))
    words = (*QUICK, "recipe.adapter=lora", "recipe.warm_start=auto", "consent=public-donation")
    done = train(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    card = (place / "out" / "ann" / "model" / "README.md").read_text()
    assert ("posts of 5 people" in card) == (len(handles) == 5)
    again = train(*words, cwd=place)
    assert f"done={len(handles)}" in again.stderr, again.stderr


def test_purge_takes_the_crowd_and_what_began_from_it(place: Path) -> None:
    done = train(*QUICK, "publish=none", cwd=place)
    assert done.returncode == 0, done.stderr
    elsewhere = train(
        *QUICK, "publish=none", f"recipe.warm_start={place / 'out' / CROWD_FOLDER}",
        "output_dir=out/two", "user=ann", cwd=place,
    )  # fmt: skip
    assert elsewhere.returncode == 0, elsewhere.stderr
    traces = plan_purge("bob", place / "out")
    assert {job.slug for job in traces.jobs} == set(PEOPLE)
    assert place / "out" / CROWD_FOLDER in traces.files
    purge(traces)
    assert not (place / "out" / CROWD_FOLDER).exists()
    assert not (place / "out" / "ann").exists()
    assert plan_purge("bob", place / "out").is_empty
