import difflib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huggingtweets.config.posts_schema import CleaningConfig, WordRule
from huggingtweets.config.schema import SplitKind
from huggingtweets.data.split import Split, split_posts
from huggingtweets.posts.cleaning import CleanPost, CleanPosts, clean_timeline
from huggingtweets.posts.records import Timeline

ORIGINAL = CleaningConfig(
    word_rule=WordRule.spaces, all_entities=False, strip_controls=False, drop_repeats=False
)
KINDS = list(SplitKind)


def person(handle: str, texts: Sequence[str]) -> CleanPosts:
    """One post a day, the first the newest."""
    newest = datetime(2030, 1, 1)
    posts = tuple(
        CleanPost(str(i), text, f"{newest - timedelta(days=i):%Y-%m-%dT%H:%M:%SZ}")
        for i, text in enumerate(texts)
    )
    return CleanPosts(handle, handle.title(), posts)


def different_texts(num: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(f"w{rng.randrange(10**6)}" for _ in range(8)) for _ in range(num)]


def split(*users: CleanPosts, kind: SplitKind = SplitKind.random, frac: float = 0.1) -> Split:
    return split_posts(users, kind=kind, heldout_frac=frac, seed=1)


@given(
    st.lists(st.lists(st.sampled_from(different_texts(12)), max_size=30), min_size=1, max_size=3),
    st.sampled_from(KINDS),
    st.floats(0, 0.9),
    st.integers(0, 3),
    st.randoms(),
)
@settings(deadline=None)
def test_every_post_is_on_one_side_with_all_its_equals(
    texts: list[list[str]], kind: SplitKind, frac: float, seed: int, rng: random.Random
) -> None:
    users = [person(f"user{i}", posts) for i, posts in enumerate(texts)]
    result = split_posts(users, kind=kind, heldout_frac=frac, seed=seed)
    for posts, train, heldout in zip(texts, result.train, result.heldout, strict=True):
        assert Counter(posts) == Counter(train) + Counter(heldout)
        assert len(heldout) <= max(1, round(frac * len(posts)))
    sides = [{text for posts in side for text in posts} for side in (result.train, result.heldout)]
    assert not sides[0] & sides[1]
    shuffled = [
        CleanPosts(user.handle, user.display_name, tuple(rng.sample(user.posts, len(user.posts))))
        for user in users
    ]
    assert split_posts(shuffled, kind=kind, heldout_frac=frac, seed=seed) == result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num", "held"), [(0, 0), (1, 0), (2, 1), (9, 1), (10, 1), (997, 100)])
def test_a_tenth_of_the_posts_is_held_out(kind: SplitKind, num: int, held: int) -> None:
    result = split(person("ann", different_texts(num)), kind=kind)
    assert (len(result.heldout[0]), len(result.train[0])) == (held, num - held)


@pytest.mark.parametrize("kind", KINDS)
def test_each_user_of_a_cyborg_gives_a_tenth(kind: SplitKind) -> None:
    users = [person(name, different_texts(num, num)) for name, num in (("a", 50), ("b", 900))]
    result = split(*users, kind=kind)
    assert [len(texts) for texts in result.heldout] == [5, 90]


def test_nothing_is_held_out_when_not_asked() -> None:
    result = split(person("ann", different_texts(50)), frac=0)
    assert (len(result.train[0]), result.heldout) == (50, ((),))


@pytest.mark.parametrize("kind", KINDS)
def test_one_group_is_all_trained_on(kind: SplitKind) -> None:
    texts = [f"Buenos dias, la agenda del gobierno para el viernes {i}" for i in range(40)]
    result = split(person("moncloa", texts), kind=kind)
    assert (len(result.train[0]), result.heldout) == (40, ((),))


def test_a_group_of_two_users_stays_together() -> None:
    shared = different_texts(40, seed=1)
    users = [
        person("ann", shared + different_texts(200, seed=2)),
        person("bob", [f"@ann {text.upper()}!" for text in shared] + different_texts(200, seed=3)),
    ]
    held = 0
    for seed in range(5):
        result = split_posts(users, kind=SplitKind.random, heldout_frac=0.2, seed=seed)
        ann, bob = (set(texts) for texts in result.heldout)
        for text in shared:
            assert (text in ann) == (f"@ann {text.upper()}!" in bob)
            held += text in ann
    assert held > 10


def test_the_seed_decides_a_random_split_only() -> None:
    user = person("ann", different_texts(300))
    for kind, is_same in ((SplitKind.random, False), (SplitKind.time, True)):
        one, other = (split_posts([user], kind=kind, heldout_frac=0.1, seed=s) for s in (1, 2))
        assert (one == other) is is_same


def test_time_holds_out_the_newest() -> None:
    texts = different_texts(300)
    result = split(person("ann", texts), kind=SplitKind.time)
    assert result == Split((tuple(texts[30:]),), (tuple(texts[:30]),))


def test_time_trains_on_new_posts_that_repeat_old_ones() -> None:
    texts = different_texts(100)
    texts[3] = texts[90]
    result = split(person("ann", texts), kind=SplitKind.time)
    assert result.heldout == ((*texts[:3], *texts[4:11]),)


@pytest.mark.parametrize("ids", ["number", "row"])
def test_without_dates_ids_tell_the_age_else_the_order(ids: str) -> None:
    texts = different_texts(100)
    names = [str(200 - i) if ids == "number" else f"row-{i + 1}" for i in range(100)]
    posts = [CleanPost(name, text) for name, text in zip(names, texts, strict=True)]
    if ids == "number":
        random.Random(0).shuffle(posts)
    result = split(CleanPosts("ann", "Ann", tuple(posts)), kind=SplitKind.time)
    assert result.heldout == (tuple(texts[:10]),)


def test_big_ben_keeps_its_chimes_together(read_account: Callable[[str], Timeline]) -> None:
    for config in (CleaningConfig(), ORIGINAL):
        cleaned, report = clean_timeline(read_account("big_ben_clock"), config)
        result = split(cleaned)
        assert len(result.heldout[0]) <= 1
        assert len(result.train[0]) + len(result.heldout[0]) == report.kept


# --- An independent look for duplicates across the split


def indicator(sets: Sequence[set[str]], vocabulary: dict[str, int]) -> npt.NDArray[np.float32]:
    matrix = np.zeros((len(sets), len(vocabulary)), dtype=np.float32)
    for row, features in enumerate(sets):
        matrix[row, [vocabulary[feature] for feature in features if feature in vocabulary]] = 1
    return matrix


def pairs_alike(
    heldout: Sequence[set[str]], train: Sequence[set[str]], jaccard: float
) -> Iterator[tuple[int, int]]:
    """Compare every held-out with every training post."""
    vocabulary = {feature: i for i, feature in enumerate(sorted(set().union(*heldout)))}
    shared = indicator(heldout, vocabulary) @ indicator(train, vocabulary).T
    sizes = [np.array([max(1, len(features)) for features in side]) for side in (heldout, train)]
    union = sizes[0][:, None] + sizes[1] - shared
    yield from zip(
        *(where.tolist() for where in np.nonzero(shared >= jaccard * union)), strict=True
    )


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", re.sub(r"@\w+", "", text.lower())))


def letter_pairs_of(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}


def find_leaks(train: Sequence[str], heldout: Sequence[str]) -> list[tuple[str, str]]:
    """Find pairs across the split with 4 of 5 words in common or 90 % of their characters."""
    leaks = [
        (heldout[i], train[j])
        for i, j in pairs_alike(
            [words_of(text) for text in heldout], [words_of(text) for text in train], 0.8
        )
    ]
    for i, j in pairs_alike(
        [letter_pairs_of(text.lower()) for text in heldout],
        [letter_pairs_of(text.lower()) for text in train],
        0.7,
    ):
        matcher = difflib.SequenceMatcher(None, heldout[i].lower(), train[j].lower(), False)
        if matcher.ratio() >= 0.9:
            leaks.append((heldout[i], train[j]))
    return leaks


def check_no_leak(timeline: Timeline, config: CleaningConfig) -> None:
    cleaned, _ = clean_timeline(timeline, config)
    for kind in KINDS:
        result = split(cleaned, kind=kind)
        if result.heldout[0]:
            assert find_leaks(result.train[0], result.heldout[0]) == []


def test_leaks_would_be_found() -> None:
    one, *others = different_texts(30)
    assert find_leaks([*others, one.replace("w", "W", 3)], [one]) != []
    assert find_leaks([*others, one[:-1]], [one]) != []
    assert find_leaks(others, [one]) == []


@pytest.mark.parametrize("account", ["PaulKagame", "hatoyamayukio", "noynoyaquino"])
def test_no_duplicate_crosses_the_split(
    read_account: Callable[[str], Timeline], account: str
) -> None:
    check_no_leak(read_account(account), CleaningConfig())


def test_no_duplicate_crosses_the_split_of_a_cyborg(
    read_account: Callable[[str], Timeline],
) -> None:
    users = [
        clean_timeline(read_account(name), CleaningConfig())[0]
        for name in ("MedvedevRussiaE", "QueenNoor", "JDMahama")
    ]
    for kind in KINDS:
        result = split(*users, kind=kind)
        train = [text for texts in result.train for text in texts]
        heldout = [text for texts in result.heldout for text in texts]
        assert len(heldout) > 250
        assert find_leaks(train, heldout) == []


@pytest.mark.slow
def test_no_duplicate_crosses_the_split_of_any_account(
    shared: Path, read_account: Callable[[str], Timeline]
) -> None:
    accounts = [path.name.split(".")[0] for path in sorted((shared / "tweets").glob("*.jsonl.gz"))]
    assert len(accounts) == 64
    for account in accounts:
        for config in (CleaningConfig(), ORIGINAL):
            check_no_leak(read_account(account), config)


@pytest.mark.parametrize(("num", "frac"), [(2, 0.8), (3, 0.9), (5, 0.95)])
def test_never_all_posts_are_held_out(num: int, frac: float) -> None:
    split = split_posts(
        [person("ann", different_texts(num))], kind=SplitKind.random, heldout_frac=frac, seed=0
    )
    assert len(split.train[0]) == 1
