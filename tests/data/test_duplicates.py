import random
import re
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huggingtweets.data.duplicates import group_near_duplicates, normalise
from huggingtweets.posts.records import Timeline

BASE = "the senate voted today to protect our rivers"


def groups_by_comparing_all(texts: Sequence[str]) -> list[int]:
    """Every pair, set by set: what the fast search must equal."""
    normalised = [normalise(text) for text in texts]
    words = [set(text.split()) for text in normalised]
    pieces = [
        {f" {word} "[i : i + 4] for word in each for i in range(len(word) - 1)} for each in words
    ]
    labels = list(range(len(texts)))
    for right in range(len(texts)):
        for left in range(right):
            if (
                normalised[left] == normalised[right]
                or jaccard(pieces[left], pieces[right]) >= 0.5
                or jaccard(words[left], words[right]) >= 0.7
            ):
                joined = {labels[left], labels[right]}
                labels = [min(joined) if label in joined else label for label in labels]
    return labels


def jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right) if left | right else 0.0


WORDS = st.sampled_from(
    ["vote", "votes", "voted", "a", "bc", "river", "rivers", "日本語", "ดี", "😀"]
)
POSTS = st.lists(WORDS, max_size=9).map(" ".join)


@given(st.lists(POSTS | st.text("ab ", max_size=12), max_size=12))
@settings(deadline=None)
def test_groups_equal_those_of_comparing_all_pairs(texts: list[str]) -> None:
    assert group_near_duplicates(texts) == groups_by_comparing_all(texts)


@pytest.mark.parametrize("account", ["TheOnion", "AV_Abhisit", "hatoyamayukio", "noynoyaquino"])
def test_groups_of_real_posts_equal_those_of_comparing_all_pairs(
    read_account: Callable[[str], Timeline], account: str
) -> None:
    texts = [post.text for post in read_account(account).posts[:250]]
    labels = group_near_duplicates(texts)
    assert labels == groups_by_comparing_all(texts)
    assert 0 < len(texts) - len(set(labels)) < 125


@pytest.mark.parametrize(
    "text",
    [
        f"@ann {BASE} https://t.co/x1",
        BASE.upper() + "!!! 🎉",
        "Thé sènate — voted (today) to protect our rivers…",
        "today the senate voted: protect our rivers to",
        "the senate voted today to protect our forests",
        "the senate votes today to protect our river",
        f"so good: {BASE}",
        f"{BASE} and our lakes",
    ],
)
def test_near_duplicates(text: str) -> None:
    assert group_near_duplicates(["something else altogether", BASE, text]) == [0, 1, 1]


@pytest.mark.parametrize(
    "text",
    ["", "the", "the senate adjourned", "we went to see our friends the rivers today", "😀"],
)
def test_no_near_duplicates(text: str) -> None:
    assert group_near_duplicates([BASE, text]) == [0, 1]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("@Ann It’s  DONE: https://t.co/x #Win_now", "its done win now"),
        ("Ünïcödé ﬁne ＡＢＣ ё й", "unicode fine abc е и"),
        ("😀 !", "😀 !"),
        ("", ""),
        ("ที่นี่", "ทน"),
        ("日本、東京", "日本 東京"),
        ("lone \ud800 half", "lone half"),
    ],
)
def test_normalise(text: str, normalised: str) -> None:
    assert normalise(text) == normalised


def test_groups_chain() -> None:
    words = [character * 4 for character in "abcdefghi"]
    chain = [" ".join(words[i : i + 6]) for i in range(4)]
    assert group_near_duplicates(chain) == [0, 0, 0, 0]
    assert group_near_duplicates([chain[0], chain[3]]) == [0, 1]


def test_no_posts_no_groups() -> None:
    assert group_near_duplicates([]) == []
    assert group_near_duplicates(["one"]) == [0]
    assert group_near_duplicates(["", "", "😀"]) == [0, 0, 2]
    assert group_near_duplicates(["", " "]) == [0, 1]


@given(st.randoms())
@settings(max_examples=20, deadline=None)
def test_order_does_not_matter(rng: random.Random) -> None:
    numbers = random.Random(1)
    texts = [" ".join(numbers.choices(BASE.split(), k=6)) for _ in range(60)]
    shuffled = list(texts)
    rng.shuffle(shuffled)
    assert partition(texts) == partition(shuffled)


def partition(texts: Sequence[str]) -> set[frozenset[str]]:
    members: dict[int, set[str]] = {}
    for text, label in zip(texts, group_near_duplicates(texts), strict=True):
        members.setdefault(label, set()).add(text)
    return {frozenset(group) for group in members.values()}


def different(rng: random.Random) -> str:
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(20))


def weather(rng: random.Random) -> str:
    return (
        f"The weather in {rng.randrange(999)} is {rng.random():.3f} degrees now, the wind blows at "
        f"{rng.random():.3f} knots from the west, have a nice day all of you"
    )


def half_a_template(rng: random.Random) -> str:
    return f"this template makes about half of the text of each post {different(rng)[:60]}"


@pytest.mark.parametrize("make", [different, weather, half_a_template])
def test_a_full_timeline_takes_about_a_second(make: Callable[[random.Random], str]) -> None:
    rng = random.Random(0)
    texts = [make(rng) for _ in range(3200)]
    start = time.process_time()
    labels = group_near_duplicates(texts)
    assert time.process_time() - start < 3
    assert (len(set(labels)) == 1) == (make is weather)


def test_one_huge_post_takes_no_time() -> None:
    texts = ["x" * 25_000, "ab " * 8_000, re.sub("", " ", "c" * 12_000), BASE]
    start = time.process_time()
    assert group_near_duplicates(texts) == [0, 1, 2, 3]
    assert time.process_time() - start < 1
