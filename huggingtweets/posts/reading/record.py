"""One record of any tool, a row or a JSON object, as what it says: text, author, mark, date."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any, NamedTuple

from huggingtweets.config.posts_schema import SourceConfig
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.byline import Field, fields_of
from huggingtweets.posts.reading.flat import (
    MAX_PATHS,
    Flat,
    flat_of,
    flatten,
    get_path,
    is_empty,
    names_text,
)
from huggingtweets.posts.reading.json_values import dig
from huggingtweets.posts.reading.names import (
    CLOSED_WORDS,
    OTHER_KINDS,
    OWN_KINDS,
    RETWEET_KINDS,
    TABLES,
    Mark,
    words_of,
)
from huggingtweets.posts.reading.rich_text import html_to_text
from huggingtweets.posts.reading.timeline import (
    RawPost,
    Skip,
    parse_date,
    parse_id,
    parse_picture_url,
)

_MAX_VERSIONS = 100
_MAX_KIND_CHARS = 20
_MAX_VALUE_CHARS = 200
_FALSE = frozenset(
    {"false", "f", "0", "no", "n", "0.0", "off", "nein", "non", "não", "нет", "ні", "否", "いいえ"}
)
_PICTURES = ("user.profile_image_url_https", "author.profile_image_url")
_RETWEET_HEAD = re.compile(r"RT @\w{1,30}: ", re.ASCII)
# GNIP's `tag:search.twitter.com,2005:123`, Mastodon's `https://.../statuses/123/activity`
_NUMBERS_END = re.compile(r"[:/](\d{5,25})(?:/activity)?/?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Draft:
    """A post as far as one record tells."""

    post: RawPost
    fields: tuple[Field, ...]
    """About the author; empty: it says nothing."""
    is_soft: bool
    """Whether it is not a retweet only because something is absent that other tools leave out."""
    marks: tuple[tuple[str, int], ...] = ()
    """Columns that may be marks or counts, and their numbers; yes is 1."""
    is_text: bool = True
    """Whether the text needs no more looking at: made of HTML or facets here."""
    line: int | None = None


class Reader:
    """Reads records as drafts, the configured columns first; remembers which columns it took."""

    def __init__(self, config: SourceConfig) -> None:
        """Read by this configuration."""
        self._config = config
        self.taken: dict[str, dict[str, None]] = {"text": {}, "mark": {}, "date": {}, "id": {}}
        """Per use the paths that were taken, in the order they came."""
        self._textless = ""
        self.num_dates = 0
        self.num_unread_dates = 0
        self.unread_date: tuple[str, str] | None = None
        """Column and value of the first that should be a date and cannot be read."""
        self.paths: dict[str, None] = {}
        """Paths seen, those of objects on the way included."""
        self.unknown: list[tuple[str, Any]] = []
        """Of the record read last, paths and values that no table knows."""

    def read(self, record: Mapping[str, Any], line: int | None = None) -> Draft | Skip:
        """Read one record."""
        found = self._read(record, line)
        return replace(found, line=line) if isinstance(found, Skip) else found

    def _read(self, record: Mapping[str, Any], line: int | None) -> Draft | Skip:
        config, flat = self._config, flat_of(record)
        layout = flat.layout
        self.unknown = flat.at(layout.unknown)
        if len(self.paths) < MAX_PATHS:
            for path, _ in flat.items:
                if path not in self.paths:
                    self._remember(path)
        for path, value in flat.at(layout.access):
            if (kept_back := _kept_back(path, value)) is not None:
                return kept_back
        text = self._text(record, flat)
        if isinstance(text, Skip):
            return text
        marks = self._marks(record, flat)
        if isinstance(marks, Skip):
            return marks
        own_id = self._pick("id", _columns(record, config.id_column, flat, layout.ids), parse_id)
        if own_id and (end := _NUMBERS_END.search(own_id)):
            own_id = end[1]
        dates = _columns(record, config.date_column, flat, layout.dates)
        original = record.get("retweeted_status")
        if isinstance(original, dict):
            text = _whole_retweet(text, original)
        versions = _versions(record)
        is_v2 = "edit_history_tweet_ids" in record
        post = RawPost(
            escape(html_to_text(text), quote=False) if record.get(RICH) == "html" else text,
            own_id,
            self._pick("date", dates, parse_date),
            marks.is_retweet,
            author_picture=_picture(record),
            older_ids=tuple(one for one in versions[:-1] if one != own_id) if is_v2 else (),
            is_outdated=own_id in versions[:-1],
        )
        fields, is_rich = tuple(fields_of(flat, own_id)), isinstance(record.get(RICH), str)
        return Draft(post.cut(), fields, marks.is_soft, marks.unsure, is_rich, line)

    def _remember(self, path: str) -> None:
        self.paths[path] = None
        while (path := path.rpartition(".")[0]) and path not in self.paths:
            self.paths[path] = None

    def _text(self, record: Mapping[str, Any], flat: Flat) -> str | Skip:
        """Return the text; where no other is known, `description` of what may be a post."""
        name = self._config.text_column
        if name is not None:
            value = get_path(record, name)
            if isinstance(value, str):
                self.taken["text"][name] = None
                return value
            return Skip(f"no text in the column {show(name)}")
        found = flat.at(flat.layout.texts)
        rivals = record.get(RIVALS, [])
        if flat.layout.answers:
            beside = flat.at(flat.layout.answers)
            answers = [path for path, one in beside if isinstance(one, str) and " " in one.strip()]
            rivals = rivals or [path for path, _ in found[:1] if answers] + answers
        if len(rivals) > 1:
            return Skip(f"texts in {', '.join(map(show, rivals))}; set source.text_column= to one")
        for path, value in found:
            if is_text_value(path, value) and (text := _as_text(value)):
                self.taken["text"][path] = None
                return text
        if any(isinstance(value, str) for _, value in found):
            return ""
        if found:
            return Skip(f"no text in the column {show(found[0][0])}")
        # A profile has its names bare: `username`, `displayName`.
        authors = [flat.items[place][0] for place, who in flat.layout.authors if who is not None]
        last = record.get("description")
        is_post = any(not TABLES["people"].isdisjoint(words_of(path)) for path in authors)
        if isinstance(last, str) and last.strip() and is_post:
            self.taken["text"]["description"] = None
            return last
        if not self._textless and flat.items:
            names = ", ".join(show(path, 40) for path, _ in flat.items[:8] if path[:1] != "\0")
            self._textless = f" (the first has the columns {names}); set source.text_column="
        return Skip(f"no text that is known{self._textless}")

    def _pick(
        self, use: str, columns: list[tuple[str, Any]], parse: Callable[[Any], str | None]
    ) -> str | None:
        """Return the first value that can be read among the columns for this use."""
        for path, value in columns:
            if (found := parse(value)) is not None:
                self.taken[use][path] = None
                self.num_dates += use == "date"
                return found
            if use == "date" and not is_empty(value):
                self.unread_date = self.unread_date or (path, str(value))
                self.num_unread_dates += 1
        return None

    def _marks(self, record: Mapping[str, Any], flat: Flat) -> "_Marks | Skip":
        """Return what tells whether it is a retweet; a `Skip` for what is no post at all."""
        configured = self._config.retweet_column
        if configured is not None:
            if not configured or configured not in self.paths:
                return _Marks(None)
            self.taken["mark"][configured] = None
            value = get_path(record, configured)
            kind = _is_retweet_kind(value)
            return _Marks(read_mark(Mark.flag, value, configured) if kind is None else kind)
        said: list[tuple[bool, bool]] = []
        unsure = []
        for path, value in self.unknown:  # a column of kinds by another name
            is_short = isinstance(value, str) and len(value) <= _MAX_KIND_CHARS
            if is_short and (kind := _is_retweet_kind(value)) is not None:
                unsure.append((path, int(kind)))
        for place, role in flat.layout.marks:
            path, value = flat.items[place]
            kind = _is_retweet_kind(value)
            if role is Mark.kind:
                if _kind_of(value) in OTHER_KINDS:
                    return Skip("a like, a follow or the like, no post")
                if kind is None:
                    continue
                flag: bool | None = kind
            else:
                is_original = kind is False and words_of(path)[-1] == "status"  # `retweetStatus`
                flag = False if is_original else read_mark(role, value, path)
            if role is Mark.flag and _is_number(value):
                unsure.append((path, int(float(str(value)))))
                continue
            if role is Mark.unsure:
                unsure.append((path, int(bool(flag))))
                continue
            self.taken["mark"][path] = None
            if flag is not None:
                said.append((flag, role is not Mark.flag))
        if any(flag for flag, _ in said):
            return _Marks(True, False, tuple(unsure))
        if not said:
            is_v1 = isinstance(record.get("user"), dict) and "screen_name" in record["user"]
            return _Marks(False if is_v1 else None, is_v1, tuple(unsure))
        return _Marks(False, all(is_soft for _, is_soft in said), tuple(unsure))


class _Marks(NamedTuple):
    """Fields of a `Draft`."""

    is_retweet: bool | None
    is_soft: bool = False
    unsure: tuple[tuple[str, int], ...] = ()


def _columns(
    record: Mapping[str, Any], configured: str | None, flat: Flat, places: tuple[int, ...]
) -> list[tuple[str, Any]]:
    """Return the configured column with its value, or those that are known for a use."""
    return [(configured, get_path(record, configured))] if configured else flat.at(places)


RICH = "\0rich"
"""Key that a shape adds to a record whose text is HTML (`html`) or ready (`text`)."""


RIVALS = "\0rivals"
"""Key that a shape adds to a record of several texts, for where they stand."""
CLOSED = Skip("a post that is not open to everyone")


def _kept_back(path: str, value: object) -> Skip | None:
    """Return why a post is not for all, by a column that may say so."""
    word, words = str(value).strip().lower(), words_of(path)
    if not {"visibility", "privacy", "audience"}.isdisjoint(words):
        return CLOSED if word in CLOSED_WORDS else None
    is_never = word == r"\n" or word.startswith("0000-00-00")  # as MySQL writes it
    if isinstance(value, dict | list) or is_empty(value) or word in _FALSE or is_never:
        return None
    return Skip("a deleted post") if "deleted" in words else CLOSED


def is_text_value(path: str, value: object) -> bool:
    """Whether it may be a text: a string, or pieces of one, as Telegram's channels have them."""
    return isinstance(value, str) or (isinstance(value, list) and words_of(path)[-1:] == ("text",))


def _as_text(value: Any) -> str:
    """A text, also where it comes in pieces."""
    if isinstance(value, str):
        return value
    parts = (part.get("text") if isinstance(part, dict) else part for part in value[:1000])
    return "".join(part for part in parts if isinstance(part, str))


def _kind_of(value: object) -> str:
    """Return the word of a kind column: of `Re-tweets` and `app.bsky.defs#retweet`, `retweet`."""
    if isinstance(value, dict | list):  # whole posts, which take long to print
        return ""
    word = str(value)[:_MAX_VALUE_CHARS].strip().lower().rpartition(".")[2].rpartition("#")[2]
    word = word.replace("-", "")
    one = word.removesuffix("s")
    return one if one in RETWEET_KINDS | OWN_KINDS else word


def _is_retweet_kind(value: object) -> bool | None:
    """Whether a word for a kind of post is one for retweets; None: nor is it one for own posts."""
    word = _kind_of(value)
    return word in RETWEET_KINDS if word in RETWEET_KINDS | OWN_KINDS else None


def _is_number(value: object) -> bool:
    """Whether a flag is a number that may count retweets; 19 digits are an id."""
    if isinstance(value, bool):
        return False
    text = str(value).strip()
    return isinstance(value, int | float | str) and bool(re.fullmatch(r"\d{1,9}(?:\.0)?", text))


def read_mark(role: Mark, value: object, path: str) -> bool | None:
    """Read one mark: a flag in any spelling, or whatever is there of the original."""
    if role is Mark.references:
        if isinstance(value, list):
            return any(dig(one, "type") == "retweeted" for one in value)
        return None if value is None or value != value else "retweeted" in str(value)
    if is_empty(value) or (isinstance(value, dict) and _is_hollow(value)):
        return False if role is Mark.presence or words_of(path)[-1] == "id" else None
    if isinstance(value, dict):
        return not is_empty(value.get("tree_html", True))  # Tumblr: of what was there before
    word = str(value).strip().lower()
    if (isinstance(value, list) and words_of(path)[-1] == "by") or "/intent/" in word:
        return None  # who shared it, and where to click to share it
    return word not in _FALSE


def _is_hollow(value: Mapping[str, Any]) -> bool:
    """Whether an object has keys alone, as Arrow writes what is absent; X has `{"result": {}}`."""
    return all(
        _is_hollow(inner) if isinstance(inner, dict) and inner else inner != {} and is_empty(inner)
        for inner in value.values()
    )


def _picture(record: Mapping[str, Any]) -> str | None:
    return next(
        (found for path in _PICTURES if (found := parse_picture_url(get_path(record, path)))), None
    )


def _whole_retweet(cut: str, original: Mapping[str, Any]) -> str:
    """Put the whole post behind `RT @name: ` where only its beginning stands."""
    head, flat = _RETWEET_HEAD.match(cut), flat_of(original)
    texts = (text for _, text in flat.at(flat.layout.texts) if isinstance(text, str))
    whole = next(texts, None)
    return cut if head is None or whole is None else head.group() + whole


def _versions(record: Mapping[str, Any]) -> list[str]:
    """All versions of an edited post of X, oldest first; empty where nothing is said."""
    listed = record.get("edit_history_tweet_ids")
    if listed is None:
        edited = dig(record, "edit_info", "edit", "editControlInitial", "editTweetIds")
        listed = edited or dig(record, "edit_info", "initial", "editTweetIds")
    if isinstance(listed, str) and listed.startswith("["):
        try:
            listed = json.loads(listed.replace("'", '"'))
        except ValueError:
            return []
    ids = listed[-_MAX_VERSIONS:] if isinstance(listed, list) else []
    return [one for one in ids if isinstance(one, str)]


def has_text(value: object) -> bool:
    """Whether an object has a text of its own, however it is called."""
    return isinstance(value, dict) and text_path(value) is not None


def text_path(value: Mapping[str, Any]) -> str | None:
    """Return where an object has a text, None where it has none."""
    for path, inner in flatten(value):
        if is_text_value(path, inner) and names_text(path):
            return path
    return None
