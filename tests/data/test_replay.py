from dataclasses import replace
from pathlib import Path

import pytest

from huggingtweets.config.schema import SplitKind
from huggingtweets.data.replay import Earlier, add_replay, keep_new, read_earlier
from huggingtweets.data.split import Split, split_posts
from huggingtweets.errors import DataError
from huggingtweets.posts.cleaning import CleanPost, CleanPosts
from huggingtweets.posts.records import Post, Timeline, write_timelines
from huggingtweets.storage.files import write_jsonl

WORDS = ["snow", "tea", "cloud", "river", "stone", "lamp", "paper", "wind", "door", "salt"]
OLD = [f"old {WORDS[n % 10]} {WORDS[n // 10]} {n} of that year" for n in range(100)]
NEW = [f"fresh {WORDS[n // 10]} {WORDS[n % 10]} and {n} more things" for n in range(40)]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """An earlier job: 100 posts received, 90 learnt, 10 held out."""
    timeline = Timeline(
        "ann", "Ann", tuple(Post(str(n), f"{t} http://x") for n, t in enumerate(OLD))
    )
    write_timelines(tmp_path / "tweets.jsonl.gz", [timeline])
    rows = [{"user": "ann", "side": "train", "text": text} for text in OLD[:90]]
    rows += [{"user": "ann", "side": "heldout", "text": text} for text in OLD[90:]]
    write_jsonl(tmp_path / "dataset.jsonl.gz", rows)
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def now() -> tuple[list[CleanPosts], list[Timeline]]:
    """All posts as received today, and as cleaned: by another cleaning than before."""
    texts = [*NEW, *OLD]
    timeline = Timeline(
        "ann", "Ann", tuple(Post(f"{n}x", f"{t} http://x") for n, t in enumerate(texts))
    )
    clean = tuple(CleanPost(f"{n}x", text.upper()) for n, text in enumerate(texts))
    return [CleanPosts("ann", "Ann", clean)], [timeline]


def test_only_what_the_earlier_job_has_not_received_is_new(job: Path) -> None:
    earlier = read_earlier(str(job), ["ann"])
    assert earlier is not None
    (kept,) = keep_new(*now(), earlier)
    assert [post.text for post in kept.posts] == [text.upper() for text in NEW]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_learnt_is_learnt_again_and_never_held_out(job: Path, share: float) -> None:
    earlier = read_earlier(str(job), ["ann"])
    assert earlier is not None
    split = split_posts(keep_new(*now(), earlier), kind=SplitKind.random, heldout_frac=0.1, seed=1)
    mixed = add_replay(split, ["ann"], earlier, share=share, seed=1)
    replayed = [text for text in mixed.train[0] if text in OLD]
    assert len(replayed) == round(share * 90)
    assert set(replayed) <= set(OLD[:90])
    assert not set(mixed.heldout[0]) & set(OLD)
    assert len(mixed.train[0]) + len(mixed.heldout[0]) == 40 + len(replayed)
    assert mixed == add_replay(split, ["ann"], earlier, share=share, seed=1)
    if share == 0.25:
        assert mixed != add_replay(split, ["ann"], earlier, share=share, seed=2)


def test_what_is_nearly_learnt_already_is_not_held_out() -> None:
    earlier = Earlier({"ann": frozenset()}, {"ann": tuple(OLD)})
    near = OLD[3] + "!"
    split = Split((("something else altogether",),), ((near, "an unseen thought of today"),))
    mixed = add_replay(split, ["ann"], earlier, share=0.0, seed=1)
    assert mixed.heldout == (("an unseen thought of today",),)
    assert near in mixed.train[0]


def test_without_new_posts_there_is_nothing_to_do_unless_old_ones_are_wanted(job: Path) -> None:
    earlier = read_earlier(str(job), ["ann"])
    assert earlier is not None
    nothing = Split(((),), ((),))
    with pytest.raises(DataError, match=r"^ann: got no post .*recipe.replay=1"):
        add_replay(nothing, ["ann"], earlier, share=0.0, seed=1)
    assert len(add_replay(nothing, ["ann"], earlier, share=1.0, seed=1).train[0]) == 90


def test_other_bases_are_no_earlier_job(job: Path, tmp_path: Path) -> None:
    assert read_earlier("gpt2", ["ann"]) is None
    assert read_earlier(None, ["ann"]) is None
    assert read_earlier(str(job), ["bob"]) is None
    assert read_earlier(str(job.rename(tmp_path / "copied")), ["ann"]) is None


def test_people_who_are_new_to_a_cyborg_keep_all_posts(job: Path) -> None:
    earlier = read_earlier(str(job), ["ann", "bob"])
    assert earlier is not None
    users, timelines = now()
    users.append(replace(users[0], handle="bob"))
    timelines.append(replace(timelines[0], handle="bob"))
    ann, bob = keep_new(users, timelines, earlier)
    assert (len(ann.posts), len(bob.posts)) == (40, 140)


def test_damage_is_one_sentence(job: Path) -> None:
    (job.parent / "dataset.jsonl.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError, match=r"expected the posts that the model was trained on"):
        read_earlier(str(job), ["ann"])
