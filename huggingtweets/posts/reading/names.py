"""What a column or key is by its name alone; the facts stand in names.txt.

A name is looked up by its words: `screenName`, `screen_name`, `Screen Name` and the key
`screen_name` of an object `user` are told apart only where that matters.
"""

import re
from enum import IntEnum
from functools import lru_cache
from pathlib import Path

_WORD = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|[0-9]+")
_MAX_NAME_CHARS = 200


def words_set(text: str) -> frozenset[str]:
    """Return the words of a text, for tables."""
    return frozenset(text.split())


def read_facts(text: str) -> dict[str, tuple[str, ...]]:
    """Read tables, each a line `[name]` and entries that are separated by commas."""
    plain = re.sub("(?m)^#.*", "", text)
    tables = re.findall(r"^\[(.*)\]$([^\[]*)", plain, re.MULTILINE)
    return {name: tuple(" ".join(one.split()) for one in rest.split(",")) for name, rest in tables}


_FACTS = read_facts(Path(__file__).with_name("names.txt").read_text(encoding="utf-8"))
TABLES = {name: frozenset(entries) for name, entries in _FACTS.items()}
CHATS = [
    (service, words_set(keys)) for service, keys in (one.split(" = ") for one in _FACTS["chats"])
]
_JOINED = dict(entry.split(" = ") for entry in _FACTS["joined"])


@lru_cache(maxsize=1 << 14)
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, lower case: `author.userName` is author, user, name."""
    words = (word.lower() for word in _WORD.findall(name[:_MAX_NAME_CHARS]))
    parts = " ".join(_JOINED.get(word, word) for word in words)
    return tuple(parts.replace("re tweet", "retweet").split())  # `isReTweet`


# --- Who wrote it


class Who(IntEnum):
    """What a field says about the author; the lower, the surer it is the handle."""

    handle = 0
    """The handle, by a name that means nothing else: `screen_name`, `acct`."""
    username = 1
    """The handle nearly always: `username` is a display name in twitterscraper's files."""
    someone = 2
    """Handle or display name, as the tool pleases: `user`, `author`, `from`, `user_name`."""
    display = 3
    """The display name."""
    id = 4
    """The number or the key of the account."""


NEVER = TABLES["never the author"]
FOREIGN = NEVER | TABLES["hardly the author"]
NO_AUTHORS, NO_NAMES = TABLES["no people"], TABLES["no names"]
_ROOTS, _NOISE = TABLES["people"], TABLES["noise"]
_PEOPLE = _ROOTS | TABLES["other people"]
_LEAVES, _BARE = (
    {entry: who for who in Who for entry in _FACTS.get(f"{where} {who.name}", ())}
    for where in ("leaf", "bare")
)


@lru_cache(maxsize=1 << 14)
def who_role(name: str) -> Who | None:
    """Return what a column or key (dotted where nested) says about a record's author, if anything.

    200 names that tools write are in `tests/posts/sources/author_names.tsv`.
    """
    words = words_of(name)
    if not words or FOREIGN.intersection(words):
        return None
    kept = [word for word in words if word not in _NOISE]
    if not kept:
        return None
    phrase = " ".join(kept)
    if phrase in _BARE:
        return _BARE[phrase]
    for size in range(len(kept)):
        roots, leaf = kept[: len(kept) - size], " ".join(kept[len(kept) - size :])
        if all(word in _ROOTS or word == "name" for word in roots) and roots[0] in _ROOTS:
            if not leaf:  # `user_name` is either, `author_name` is what somebody is called
                is_name = "name" in roots and roots[-2:] != ["user", "name"]
                return Who.display if is_name else Who.someone
            if leaf in _LEAVES:
                return _LEAVES[leaf]
    return None


@lru_cache(maxsize=1 << 14)
def may_name_people(name: str) -> bool:
    """Whether a column that no table knows is called as if it held people: `post_source_handle`."""
    words = [word for word in words_of(name) if word not in _NOISE and not word.isdecimal()]
    return words[-1:] != [] and not {words[-1], words[-1].removesuffix("s")}.isdisjoint(_PEOPLE)


@lru_cache(maxsize=1 << 14)
def is_of_profile(name: str) -> bool:
    """Whether a column says of its author what hardly changes: `author_description`, `avatar`."""
    words = words_of(name)
    if words[-1:] == ("id",):
        return may_name_people(name[:-2])
    if not TABLES["profile alone"].isdisjoint(words):
        return True
    return not (_ROOTS.isdisjoint(words) or TABLES["profile"].isdisjoint(words))


# --- What it says, which it is, when it was written

TEXTS, IDS, DATES = _FACTS["texts"], _FACTS["ids"], _FACTS["dates"]
ACCESS, CLOSED_WORDS = _FACTS["access"], TABLES["closed"]


def rank_of(name: str, names: tuple[str, ...]) -> int | None:
    """Return the place of a name in a list, wrappers before it left out; None: it is not in it."""
    words = words_of(name)
    for start, word in enumerate(words):
        if (phrase := " ".join(words[start:])) in names:
            return names.index(phrase)
        if word not in TABLES["wrappers"]:
            break
    return None


# --- Is it theirs


class Mark(IntEnum):
    """How a column tells a retweet, repost, boost or share."""

    flag = 0
    """Yes or no."""
    presence = 1
    """Something about the original, empty where there is none: Hydrator's `retweet_id`."""
    kind = 2
    """A word for the kind of post: `tweet_type`, GNIP's `verb`."""
    references = 3
    """X v2's `referenced_tweets`."""
    unsure = 4
    """Looks like one, and means something else or is not known: told, not used."""


RETWEET_KINDS, OTHER_KINDS, OWN_KINDS = (
    TABLES[f"{whose} kinds"] for whose in ("retweet", "other", "own")
)
_SHARING, _FLAGS, _VERBS = TABLES["sharing"], TABLES["flags"], TABLES["verbs"]
_ABOUT_POSTS, _ORIGINALS = TABLES["about posts"], TABLES["originals"]


@lru_cache(maxsize=1 << 14)
def mark_role(name: str) -> Mark | None:
    """Return how a column tells retweets, None where it does not.

    60 that tools write are in `tests/posts/sources/retweet_marks.tsv`.
    """
    words = words_of(name)
    phrase = " ".join(words)
    if phrase in TABLES["no marks"]:
        return None
    if phrase in TABLES["kinds"] or (
        words[-1:] in (("type",), ("kind",)) and (_ABOUT_POSTS | _SHARING).issuperset(words)
    ):
        return Mark.kind
    if phrase == "referenced tweets" or phrase == "referenced tweets type":
        return Mark.references
    rest = [word for word in words if word not in _SHARING]
    if len(rest) == len(words):
        left = [word for word in words if word not in _ORIGINALS]
        is_of_original = len(left) < len(words) and TABLES["names of originals"].issuperset(left)
        if "source" in words:  # of a post; others are the program that wrote it, or an account
            is_of_original = bool(left) and TABLES["post words"].issuperset(left)
        return Mark.unsure if is_of_original else None
    if TABLES["counted"].intersection(rest) or TABLES["callers"].intersection(rest):
        return None
    if phrase == "retweeted":  # X v1.1: whether who asked has retweeted it
        return Mark.unsure
    if len(words) == 1 and words[0] in TABLES["counts alone"]:
        return None
    if all(word in _FLAGS for word in rest):
        return Mark.flag
    if _VERBS.intersection(rest) and all(word in _FLAGS | _ABOUT_POSTS for word in rest):
        return Mark.flag  # `tweet_is_retweet`
    return Mark.presence if all(word in TABLES["of the original"] for word in rest) else Mark.unsure
