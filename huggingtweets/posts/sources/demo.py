"""Invented people with voices of their own: everything runs without an account or a network.

They post as real people do: links, mentions, escaped entities, retweets, repeats, single words.
"""

import html
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.timeline import parse_date
from huggingtweets.posts.records import Post, Timeline


@dataclass(frozen=True)
class Voice:
    """One invented person."""

    handle: str
    display_name: str
    rules: Mapping[str, tuple[str, ...]]
    """Templates by the name of the rule; demo_voices.txt says how they are filled."""


def read_voices(text: str) -> tuple[Voice, ...]:
    """Read the people of demo_voices.txt; what stands before the first of them is a comment."""
    voices = []
    for person in text.split("\n= ")[1:]:
        head, *lines = person.splitlines()
        handle, _, name = head.partition(" | ")
        rules: dict[str, list[str]] = {}
        rule: list[str] = []
        for line in filter(None, lines):
            if line.startswith(" "):
                rule.append(line.strip().replace(" / ", "\n"))
            else:
                rule = rules.setdefault(line.removesuffix(":"), [])
        voices.append(Voice(handle, name, {one: tuple(rules[one]) for one in rules}))
    return tuple(voices)


VOICES = read_voices(Path(__file__).with_name("demo_voices.txt").read_text(encoding="utf-8"))
DEMO_HANDLES = tuple(voice.handle for voice in VOICES)
NUM_POSTS = 1500
"""Of each person."""
_OPENINGS = ("dream", "think", "like", "dislike", "want")
_AND = re.compile(r" an(?:d|') ")
_SLOT = re.compile(r"\{(\w+)\}")
_FIRST_S, _MEAN_GAP_S = 1_650_000_000, 30_000
_EPOCH_MS = 1_288_834_974_657
"""X counts the milliseconds in its ids from here."""
_LINK_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


@lru_cache(maxsize=len(VOICES))
def demo_timeline(handle: str, seed: int = 0) -> Timeline:
    """Let one of the invented people post; the same posts for the same seed, everywhere.

    Raises:
        SourceError: nobody has this handle.
    """
    voice = next((one for one in VOICES if one.handle == handle), None)
    if voice is None:
        raise SourceError(
            f"source=demo: got user={handle}; expected one of {', '.join(DEMO_HANDLES)}; "
            "for real people choose a source=, such as source=x_archive source.path=FILE"
        )
    rng = random.Random(f"{seed}:{handle}")
    speaker = _Speaker(voice, rng)
    moment = _FIRST_S + rng.randrange(86_400)
    posts = []
    for text, is_retweet in speaker.posts(NUM_POSTS):
        moment += 60 + int(rng.expovariate(1 / _MEAN_GAP_S))
        number = (moment * 1000 + rng.randrange(1000) - _EPOCH_MS) << 22
        posts.append(Post(str(number), text, parse_date(moment), is_retweet))
    return Timeline(handle, voice.display_name, tuple(reversed(posts)))


def demo_corpus(seed: int = 0) -> list[str]:
    """Return the texts of all invented people, for the vocabulary of a small model."""
    return [post.text for handle in DEMO_HANDLES for post in demo_timeline(handle, seed).posts]


class _Speaker:
    """One person in the act of posting: the words of a voice, drawn without quick repeats."""

    def __init__(self, voice: Voice, rng: random.Random) -> None:
        self._voice = voice
        self._rng = rng
        self._decks: dict[str, list[str]] = {}
        self._seen: set[str] = set()

    def posts(self, num: int) -> list[tuple[str, bool]]:
        """Return (text as the API would give it, whether it is a retweet), oldest first."""
        posts: list[tuple[str, bool]] = []
        kinds: tuple[tuple[float, Callable[[], str]], ...] = (
            (0.36, self._opening),
            (0.42, self._statement),
            (0.10, self._reply),
            (0.06, self._retweet),
            (0.04, self._remark),
        )
        while len(posts) < num:
            draw = self._rng.random()
            for share, kind in kinds:
                draw -= share
                if draw < 0:
                    text = kind()
                    posts.append((html.escape(text, quote=False), kind == self._retweet))
                    break
            else:
                if posts:
                    posts.append(self._rng.choice(posts))
        return posts

    def _opening(self) -> str:
        return self._new(lambda: self._dressed(self._draw_one("opening", _OPENINGS)))

    def _statement(self) -> str:
        return self._new(lambda: self._dressed("say"))

    def _reply(self) -> str:
        friend = self._say("friend")
        return f"@{friend} {self._new(lambda: self._dressed('say'))}"

    def _retweet(self) -> str:
        """Somebody else of the cast, quoted and cut as X cuts it."""
        other = self._rng.choice([one for one in VOICES if one is not self._voice])
        text = f"RT @{other.handle}: {_Speaker(other, self._rng)._say('say')}"
        return text if len(text) <= 140 else text[:139] + "…"

    def _remark(self) -> str:
        """Too short to be kept."""
        remark = self._say("short")
        return f"{remark} {self._link()}" if self._rng.random() < 0.4 else remark

    def _dressed(self, rule: str) -> str:
        """One to three sentences, and now and then an emoji, a hashtag, an ampersand or a link."""
        parts = [self._say(rule)]
        for share, what in ((0.6, "aside"), (0.3, "tail"), (0.15, "emoji"), (0.08, "hashtag")):
            if self._rng.random() < share:
                parts.append(self._say(what))
        if self._rng.random() < 0.12:
            parts.append(self._link())
        text = " ".join(parts)
        return _AND.sub(" & ", text, count=1) if self._rng.random() < 0.1 else text

    def _new(self, make: Callable[[], str]) -> str:
        """Make posts until one was not made before."""
        text = make()
        for _ in range(20):
            if text not in self._seen:
                break
            text = make()
        self._seen.add(text)
        return text

    def _say(self, rule: str) -> str:
        """Fill a template of a rule, down to the last slot."""
        return _SLOT.sub(self._fill, self._draw_one(rule, self._voice.rules[rule]))

    def _fill(self, slot: re.Match[str]) -> str:
        name = slot[1].lower()
        words = str(self._rng.randint(2, 60)) if name == "n" else self._say(name)
        return words[:1].upper() + words[1:] if slot[1][0].isupper() else words

    def _draw_one(self, name: str, choices: tuple[str, ...]) -> str:
        """Draw like a card from a deck that is shuffled when it is used up."""
        deck = self._decks.get(name)
        if not deck:
            deck = self._decks[name] = list(choices)
            self._rng.shuffle(deck)
        return deck.pop()

    def _link(self) -> str:
        return "https://t.co/" + "".join(self._rng.choices(_LINK_LETTERS, k=10))
