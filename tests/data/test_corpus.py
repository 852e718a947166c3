from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huggingtweets.data.corpus import epoch_documents

USERS = st.lists(st.lists(st.text("ab", max_size=9), max_size=12), min_size=1, max_size=4)


def chars_per_user(users: list[list[str]], pairs: list[tuple[int, int]]) -> list[int]:
    counts = Counter[int]()
    for user, index in pairs:
        counts[user] += len(users[user][index])
    return [counts[user] for user in range(len(users))]


@given(USERS, st.integers(0, 5), st.booleans())
def test_every_post_comes_and_users_reach_the_longest(
    users: list[list[str]], epoch: int, mix_users: bool
) -> None:
    pairs = epoch_documents(users, epoch=epoch, seed=3, mix_users=mix_users)
    totals = [sum(map(len, texts)) for texts in users]
    for user, (texts, chars) in enumerate(zip(users, chars_per_user(users, pairs), strict=True)):
        times = Counter(index for owner, index in pairs if owner == user)
        assert set(times) == set(range(len(texts)))
        assert max(times.values(), default=0) - min(times.values(), default=0) <= 1
        if totals[user]:
            assert max(totals) <= chars < max(totals) + max(map(len, texts))


def test_one_user_is_reshuffled_every_epoch() -> None:
    users = [[f"post {i}" for i in range(100)]]
    epochs = [epoch_documents(users, epoch=epoch, seed=1) for epoch in range(3)]
    for pairs in epochs:
        assert sorted(pairs) == [(0, index) for index in range(100)]
    assert len({tuple(pairs) for pairs in epochs}) == 3


def test_order_depends_on_the_seed_alone() -> None:
    users = [[f"post {i}" for i in range(50)], ["x"] * 5]
    assert epoch_documents(users, epoch=2, seed=1) == epoch_documents(users, epoch=2, seed=1)
    assert epoch_documents(users, epoch=2, seed=1) != epoch_documents(users, epoch=2, seed=2)


def test_a_short_user_does_not_grow_from_epoch_to_epoch() -> None:
    users = [["a" * 10] * 20, ["b" * 10] * 300]
    for epoch in range(4):
        pairs = epoch_documents(users, epoch=epoch, seed=0)
        assert Counter(user for user, _ in pairs) == {0: 300, 1: 300}
    assert [len(texts) for texts in users] == [20, 300]


@pytest.mark.parametrize("mix_users", [True, False])
def test_users_are_mixed_or_follow_each_other(mix_users: bool) -> None:
    users = [[f"{name} {i}" for i in range(50)] for name in "abc"]
    owners = [user for user, _ in epoch_documents(users, epoch=0, seed=0, mix_users=mix_users)]
    changes = sum(left != right for left, right in pairwise(owners))
    assert (changes > 50) if mix_users else (changes == 2)


def test_the_parts_repeated_differ_from_epoch_to_epoch() -> None:
    users = [[str(i % 10) for i in range(20)], ["b"] * 30]
    repeated = [
        frozenset(pair for pair, n in Counter(pairs).items() if n == 2)
        for pairs in (epoch_documents(users, epoch=epoch, seed=0) for epoch in range(4))
    ]
    assert len(set(repeated)) > 1
