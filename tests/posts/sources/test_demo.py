"""The invented people."""

import itertools
import os
import re
import subprocess
import sys
import time

import pytest

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.errors import SourceError
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.sources.demo import DEMO_HANDLES, VOICES, demo_corpus, demo_timeline

OPENINGS = ("My dream is", "I think that", "I like", "I don't like", "I want")


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.handle)
def test_every_slot_has_a_rule_and_every_rule_a_use(voice: object) -> None:
    rules = voice.rules  # type: ignore[attr-defined]
    slots = {
        slot.lower()
        for template in itertools.chain(*rules.values())
        for slot in re.findall(r"\{(\w+)\}", template)
    }
    first = {
        "emoji",
        "hashtag",
        "friend",
        "dream",
        "think",
        "like",
        "dislike",
        "want",
        "say",
        "aside",
        "tail",
        "short",
    }
    assert slots - {"n"} == rules.keys() - first
    assert first <= rules.keys()
    assert all(rules.values())
    assert not any(re.search(r"[{}]", re.sub(r"\{\w+\}", "", t)) for r in rules.values() for t in r)


@pytest.mark.parametrize("handle", DEMO_HANDLES)
def test_people_post_as_people_do(handle: str) -> None:
    timeline = demo_timeline(handle)
    posts = timeline.posts
    assert len(posts) == 1500
    ids = [int(post.id) for post in posts]
    assert ids == sorted(set(ids), reverse=True)
    dates = [post.created_at or "" for post in posts]
    assert dates == sorted(dates, reverse=True)
    retweets = [post for post in posts if post.is_retweet]
    assert 40 < len(retweets) < 150
    assert all(post.text.startswith("RT @") for post in retweets)
    own = [post.text for post in posts if not post.is_retweet]
    for pattern, least in (
        (r"https://t\.co/\w{10}", 100),
        (r"&amp;", 20),
        (r"^@\w+ ", 80),
        (r"#\w+", 60),
        (r"[\U0001f300-\U0001faff☠⚰]", 100),
    ):
        assert sum(bool(re.search(pattern, text)) for text in own) >= least, pattern
    assert not any(re.search(r"[<>{}]|&(?!amp;|lt;|gt;)", text) for text in own)


@pytest.mark.parametrize("handle", DEMO_HANDLES)
def test_enough_is_left_to_train_on(handle: str) -> None:
    cleaned, report = clean_timeline(demo_timeline(handle), CleaningConfig())
    assert report.kept_chars > 80_000
    assert report.short > 20
    assert report.repeats > 5
    texts = [post.text for post in cleaned.posts]
    for opening in OPENINGS:
        assert sum(text.startswith(opening) for text in texts) > 60, opening


def test_voices_differ() -> None:
    """The words of one person hardly occur with another: a voice can be told from one post."""
    words = {
        handle: set(
            re.findall(
                r"[a-z']{4,}",
                " ".join(
                    post.text.lower() for post in demo_timeline(handle).posts if not post.is_retweet
                ),
            )
        )
        for handle in DEMO_HANDLES
    }
    for one, other in itertools.combinations(DEMO_HANDLES, 2):
        shared = len(words[one] & words[other]) / len(words[one] | words[other])
        assert shared < 0.25, (one, other)


def test_posts_repeat_their_templates_only_so_much() -> None:
    """A held-out split keeps near-duplicates on one side; it must have something to split."""
    from huggingtweets.data.duplicates import group_near_duplicates

    for handle in DEMO_HANDLES:
        cleaned, _ = clean_timeline(demo_timeline(handle), CleaningConfig())
        groups = group_near_duplicates([post.text for post in cleaned.posts])
        largest = max(groups.count(group) for group in set(groups))
        assert largest < 0.08 * len(groups)


def test_seeds_decide_and_only_seeds() -> None:
    assert demo_timeline("demo", 1) != demo_timeline("demo", 2)
    code = (
        "import hashlib; from huggingtweets.posts.sources.demo import demo_corpus;"
        "print(hashlib.sha256(repr(demo_corpus(7)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_corpus_has_everybody() -> None:
    corpus = demo_corpus(seed=3)
    assert len(corpus) == 1500 * len(DEMO_HANDLES)
    assert demo_timeline(DEMO_HANDLES[-1], 3).posts[0].text in corpus


def test_unknown_people_get_the_list() -> None:
    with pytest.raises(SourceError, match="expected one of demo, captain_biscuit"):
        demo_timeline("karpathy")


def test_a_person_takes_no_time() -> None:
    times = []
    for seed in range(100, 105):
        start = time.perf_counter()
        demo_timeline("demo", seed)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3
