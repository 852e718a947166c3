"""Which posts are held out: whole groups of near-duplicates on one side. Texts only, no tokens.

What a near-duplicate is, `data/duplicates.py` says; groups reach over all users of a job.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.config.schema import SplitKind
from huggingtweets.data.duplicates import group_near_duplicates
from huggingtweets.posts.cleaning import CleanPost, CleanPosts


@dataclass(frozen=True)
class Split:
    """Texts to train on and texts held out, one inner tuple a user, newest first."""

    train: tuple[tuple[str, ...], ...]
    heldout: tuple[tuple[str, ...], ...]


def split_posts(
    users: Sequence[CleanPosts], *, kind: SplitKind, heldout_frac: float, seed: int
) -> Split:
    """Hold out at most `heldout_frac` of each user's posts (rounded), in whole groups.

    Groups are taken in random order, or for `SplitKind.time` from the newest by the age of their
    oldest post, and one that does not fit any more is trained on: so where all posts are one group
    nothing is held out. The result depends on the posts and the seed, not on the order of posts.

    Args:
        users: kept posts. Age is told by date, else by the number of the id; posts without
            either are taken to stand newest first.
        kind: how groups are chosen.
        heldout_frac: 0 holds out nothing; otherwise at least one post of a user with two, and never
            all.
        seed: the job's; `SplitKind.time` ignores it.
    """
    by_user = [_newest_first(user.posts) for user in users]
    owners = [user for user, posts in enumerate(by_user) for _ in posts]
    texts = [post.text for posts in by_user for post in posts]
    groups = _members(group_near_duplicates(texts)) if heldout_frac > 0 else []
    if kind is SplitKind.time:
        ages = [rank / len(posts) for posts in by_user for rank in range(len(posts))]
        groups.sort(key=lambda members: (max(ages[post] for post in members), members))
    else:
        groups.sort(key=lambda members: min(texts[post] for post in members))
        random.Random(f"split/{seed}").shuffle(groups)
    room = [_num_heldout(len(posts), heldout_frac) for posts in by_user]
    heldout = _choose(groups, owners, room)

    sides: tuple[list[list[str]], list[list[str]]] = ([[] for _ in by_user], [[] for _ in by_user])
    for post, text in enumerate(texts):
        sides[post in heldout][owners[post]].append(text)
    train, held = (tuple(tuple(user) for user in side) for side in sides)
    return Split(train, held)


def _newest_first(posts: Sequence[CleanPost]) -> list[CleanPost]:
    """Sort by date, else by number of the id; without either, the order stays."""
    if all(post.created_at for post in posts):
        return sorted(
            posts,
            key=lambda post: (post.created_at or "", len(post.id), post.id, post.text),
            reverse=True,
        )
    if all(post.id.isdecimal() for post in posts):
        return sorted(posts, key=lambda post: (int(post.id), post.text), reverse=True)
    return list(posts)


def _num_heldout(num_posts: int, frac: float) -> int:
    if frac <= 0 or num_posts < 2:
        return 0
    return min(max(1, round(num_posts * frac)), num_posts - 1)


def _members(labels: Sequence[int]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for post, label in enumerate(labels):
        groups.setdefault(label, []).append(post)
    return list(groups.values())


def _choose(groups: Sequence[Sequence[int]], owners: Sequence[int], room: list[int]) -> set[int]:
    """Take groups in order while every user they touch has room; return the posts taken."""
    room = list(room)
    taken: set[int] = set()
    for members in groups:
        touched = [owners[post] for post in members]
        if all(touched.count(user) <= room[user] for user in set(touched)):
            taken.update(members)
            for user in touched:
                room[user] -= 1
    return taken
