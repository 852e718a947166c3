"""From the records of a file to the posts of one person: the one way of all files."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import chain
from typing import Any

from huggingtweets.config.posts_schema import Decode, SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.activities import rich
from huggingtweets.posts.reading.by_handle import Said, nearest, quoted, show
from huggingtweets.posts.reading.byline import Field
from huggingtweets.posts.reading.chats import refuse_json_chat
from huggingtweets.posts.reading.decoding import decode_texts
from huggingtweets.posts.reading.flat import MAX_PATHS, names_text, roles_of
from huggingtweets.posts.reading.names import Mark, Who, words_of
from huggingtweets.posts.reading.record import CLOSED, Draft, Reader, has_text
from huggingtweets.posts.reading.shapes import KNOWN, LISTED, inner_value, records_of
from huggingtweets.posts.reading.timeline import RawPost, Skip, check_amount, make_timeline
from huggingtweets.posts.reading.who import Asked, Authors
from huggingtweets.posts.records import Timeline


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file."""

    fields: dict[str, Any]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Others:
    """People whose records were told apart without reading them."""

    names: Sequence[str]
    column: str


def configured_columns(config: SourceConfig) -> dict[str, str]:
    """Return the columns that are named in the configuration, by their use."""
    names = {key: getattr(config, f"{key}_column") for key in _COLUMNS}
    return {key: name for key, name in names.items() if name}


_COLUMNS = ("text", "user", "id", "date", "retweet")


def is_only_column(names: Sequence[str], config: SourceConfig) -> bool:
    """Whether a table has one column, which holds the texts, whatever it is called.

    One of `json` holds whole posts.
    """
    return len(names) == 1 and config.text_column is None and "json" not in words_of(names[0])


def check_columns(names: Sequence[str], config: SourceConfig, where: str) -> None:
    """Refuse a table without a column of posts.

    Args:
        names: its columns; those in structs dotted.
        config: may name the column.
        where: the file, for messages.

    Raises:
        SourceError: there is none, or it is a table of a chat.
    """
    refuse_json_chat(dict.fromkeys(name.replace(" ", "_") for name in names))
    told = configured_columns(config).values()
    twice = [name for name, num in Counter(names).items() if num > 1]
    for name in twice:
        is_text = config.text_column is None and names_text(name)
        is_author = config.user_column is None and roles_of(name).who is not None
        if name in told or is_text or is_author:
            raise SourceError(
                f"{where}: got {show(name)} as the name of {names.count(name)} columns; expected "
                "each name once; rename or remove what is not wanted"
            )
    is_known = any(names_text(name) or name == "description" for name in names)
    if config.text_column is None and not is_known:
        raise SourceError(
            f"{where}: got the columns {', '.join(map(show, names[:12]))}; expected one with the "
            "posts; name it with source.text_column="
        )


def gather(
    asked: Asked, found: Iterable[Row | Others | Skip], said: Said | None = None
) -> Timeline:
    """Read records, decide on the whole of them, and return the posts of one person.

    Raises:
        SourceError: nothing of this person can be read, or nobody can tell what is.
    """
    return _Gathering(asked, said or Said()).timeline(found)


def posts_of_account(values: Iterable[Any]) -> Iterator[RawPost | Skip]:
    """Read what a service or an archive has of one account; whose it is has been seen to.

    Texts come as its readers see them, escaped, as cleaning unescapes.
    """
    for draft in _drafts_of(record for value in values for record in records_of(value)):
        if isinstance(draft, Skip):
            yield draft
            continue
        post = draft.post
        text = post.text if draft.is_text else escape(post.text, quote=False)
        yield replace(post, text=text, is_retweet=bool(post.is_retweet))


def posts_of_x(records: Iterable[dict[str, Any] | str | Skip]) -> Iterator[RawPost | Skip]:
    """Read what X has of one account: escaped already, retweets perhaps by `RT @` alone."""
    for draft in _drafts_of(records):
        yield draft.post if isinstance(draft, Draft) else draft


def _drafts_of(records: Iterable[dict[str, Any] | str | Skip]) -> Iterator[Draft | Skip]:
    reader = Reader(SourceConfig())
    for record in records:
        if isinstance(record, Skip):
            yield record
        elif isinstance(record, str):
            yield Skip("an entry without text")
        elif KNOWN not in record:
            draft = reader.read(record)
            is_told = isinstance(draft, Draft) or draft == CLOSED
            yield draft if is_told else Skip("an entry without text")


def is_repost(post: RawPost | Skip) -> bool:
    """Whether it is one, which would stand for the post itself where somebody reposts his own."""
    return isinstance(post, RawPost) and bool(post.is_retweet)


class _Gathering:
    """What is known of one file so far."""

    def __init__(self, asked: Asked, said: Said) -> None:
        self._asked = asked
        self._said = said
        self._reader = Reader(asked.config)
        self._authors = Authors(asked)
        self._drafts: list[Draft] = []
        self._num_chars = 0
        self._notes: list[str] = []
        self._how: list[str] = []

    def timeline(self, found: Iterable[Row | Others | Skip]) -> Timeline:
        asked = self._asked
        timeline = make_timeline(asked.where, asked.handle, self._posts(found), how=self._how)
        notes = (*self._said.notes, *self._notes, *timeline.notes)
        return replace(timeline, notes=notes, how=tuple(self._how))

    def _posts(self, found: Iterable[Row | Others | Skip]) -> Iterator[RawPost | Skip]:
        num_skips = 0
        for item in found:
            if isinstance(item, Others):
                self._authors.pass_over(item.names, item.column)
                continue
            skip = item if isinstance(item, Skip) else self._take(item)
            if skip is not None:
                num_skips += 1
                yield skip
        yield from map(Skip, dict.fromkeys(self._said.damage))  # of each pass over the file
        self._check_configured()
        mine, open_ = self._authors.own(self._drafts)
        column = next((field.path for draft in mine for field in draft.fields), "user")
        yield from (Skip(f"no user in the column {show(column)}", draft.line) for draft in open_)
        self._tell_authors()
        yield from self._finish(self._settle_ids(self._settle_marks(mine)))

    def _take(self, row: Row) -> Skip | None:
        """Keep what one record says, unless it is surely somebody else's."""
        fields = row.fields
        if self._asked.config.decode != Decode.none:
            fields = _unfolded(fields)
        enriched = rich(fields)
        if isinstance(enriched, Skip):
            return replace(enriched, line=row.line)
        fields = enriched
        if KNOWN in fields:
            self._authors.know(fields[KNOWN])
            return None
        if fields.get("type") == "service" and "actor" in fields:  # in a channel of Telegram
            return Skip("what the service says, no post", row.line)
        if LISTED in fields:
            self._authors.check_key(fields[LISTED])
            fields = {key: one for key, one in fields.items() if key != LISTED}
        draft = self._reader.read(fields, row.line)
        if isinstance(draft, Skip):
            return draft
        if _NOT_UTF8.search(draft.post.text):  # amid a document, which was read all the same
            return Skip("not UTF-8", row.line)
        if self._asked.config.user_column:
            author = self._authors.told(fields)
            if author is None:
                column = show(self._asked.config.user_column)
                return Skip(f"no user in the column {column}", row.line)
            if not self._authors.see_told(author):
                return None
        else:
            if not any(field.who < Who.display for field in draft.fields):
                self._authors.look_at(self._reader.unknown)
            if not self._authors.see(draft):
                return None
        self._drafts.append(draft)
        self._num_chars += len(draft.post.text)
        check_amount(self._asked.where, len(self._drafts), self._num_chars)
        return None

    def _check_configured(self) -> None:
        """Refuse a configured column that no record has: it is misspelt."""
        config, paths = self._asked.config, self._reader.paths
        if not 0 < len(paths) < MAX_PATHS:
            return
        for key, name in configured_columns(config).items():
            if name not in paths:
                raise SourceError(
                    f"{self._asked.where}: got source.{key}_column={name}; expected a column "
                    f"of the file{nearest(name, paths)}"
                )

    def _tell_authors(self) -> None:
        others = len(self._authors.others)
        whose = "1 other" if others == 1 else f"{others} others"
        left_out = f"; {self._authors.num_others} records of {whose} left out" if others else ""
        self._how.append(f"author: {self._authors.by}{left_out}")
        if self._authors.num_opted_out:
            self._notes.append(
                f"{self._asked.where}: {self._authors.num_opted_out} records of people who want no "
                "model are left out"
            )

    # --- On the whole

    def _settle_marks(self, drafts: list[Draft]) -> list[Draft]:
        """Decide by all records which columns tell retweets, and read what depends on that."""
        marks_of = [dict(draft.marks) for draft in drafts]
        paths = Counter(path for marks in marks_of for path in marks)
        # One pass over all marks: where keys are data there are as many columns as records.
        numbers = {path: {0} if num < len(drafts) else set() for path, num in paths.items()}
        for path, number in chain.from_iterable(one.items() for one in marks_of):
            numbers[path].add(number)
        flags = {
            path for path in paths if roles_of(path).mark is Mark.flag and numbers[path] <= {0, 1}
        }
        settled = [_with_flags(draft, flags) for draft in drafts]
        has_marks = any(draft.post.is_retweet for draft in settled)
        for path in paths if not has_marks else ():
            is_open = roles_of(path).mark in (Mark.unsure, None)
            if is_open and 0 in numbers[path] and numbers[path] != {0}:
                self._notes.append(
                    f"{self._asked.where}: the column {show(path)} looks like a mark of retweets "
                    f"and is not used; if it is one, set source.retweet_column={quoted(path)}"
                )
        marks = [*self._reader.taken["mark"], *sorted(flags)]
        num = sum(bool(draft.post.is_retweet) for draft in settled)
        is_plain = all(draft.post.text.startswith("RT @") for draft in drafts)
        if num == len(drafts) and not is_plain and not self._asked.config.retweet_column:
            self._notes.append(
                f"{self._asked.where}: all {num} posts are retweets by {show(marks[0])}; if it "
                "says something else, set source.retweet_column= (empty) to go by their texts"
            )
        self._how.append(
            "retweets: "
            + (f"{', '.join(marks[:4])} ({num} marked)" if marks else "texts that begin with RT @")
        )
        return settled if has_marks else [_by_prefix(draft) for draft in settled]

    def _settle_ids(self, drafts: list[Draft]) -> list[Draft]:
        """Do without ids that are not the posts' own: one for different texts, and not by accident.

        Small numbers count rows or people. A long one is that of a post, which may have come whole
        and cut off, or been edited; where many have several texts, it is something else's as well.
        """
        posts = [draft.post for draft in drafts if draft.post.id and not draft.post.is_retweet]
        versions = {(post.id, _beginning(post)) for post in posts}
        texts = Counter(id_ for id_, _ in versions)
        twice = [id_ for id_, num in texts.items() if num > 1]
        if not any(len(id_ or "") < _ID_CHARS for id_ in twice) and 10 * len(twice) <= len(texts):
            return drafts
        self._notes.append(
            f"{self._asked.where}: {len(posts)} posts have {len(texts)} ids, which are not theirs, "
            "and count all"
        )
        return [_with(draft, id=None) for draft in drafts]

    def _finish(self, drafts: list[Draft]) -> Iterator[RawPost]:
        where, config = self._asked.where, self._asked.config
        open_ = [index for index, draft in enumerate(drafts) if not draft.is_text]
        texts = [draft.post.text for draft in drafts]
        decoded, done = decode_texts([texts[index] for index in open_], config.decode, where)
        for index, text in zip(open_, decoded, strict=True):
            texts[index] = text
        self._notes += [f"{where}: {one}" for one in done]
        reader = self._reader
        if reader.unread_date is not None and reader.num_unread_dates > max(1, reader.num_dates):
            column, value = map(show, reader.unread_date)
            self._notes.append(
                f"{where}: {reader.num_unread_dates} dates in {column} cannot be read, such as "
                f"{value}; the order of the file counts"
            )
        taken = [*self._reader.taken["text"]][:4]
        text_columns = self._said.only_column or ", ".join(taken)
        encoding = (self._said.encoding or "").lower()
        self._how.append(
            f"text: {text_columns or 'lines'}"
            + (f", {encoding}" if encoding else "")
            + (f", {'; '.join(done)}" if done else "")
        )
        for draft, text in zip(drafts, texts, strict=True):
            yield replace(draft.post, text=text, author_name=_author_name(draft.fields))


_ID_CHARS, _COMPARED_CHARS = 10, 40
"""X's ids have had ten digits since the end of 2008; a post that was cut or edited begins alike."""


def _beginning(post: RawPost) -> str:
    """Return what two versions of one post have in common; where the id is short, all of it."""
    return post.text if len(post.id or "") < _ID_CHARS else post.text[:_COMPARED_CHARS]


_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""What `reading.decode` leaves of such bytes."""


def _author_name(fields: Iterable[Field]) -> str | None:
    """Return the display name where there is one, else the handle as it is written."""
    name = min((field for field in fields if field.who is Who.display), default=None)
    named = min((field for field in fields if field.who < Who.display), default=None)
    return name.written if name else named.written.lstrip("@") if named else None


def _unfolded(fields: dict[str, Any]) -> dict[str, Any]:
    """Read the objects in columns that hold a whole post, or its author, as JSON or Python text."""
    for key, value in fields.items():
        if isinstance(value, str) and value[:1] == "{":
            roles = roles_of(key)
            is_post = roles.text is not None or "json" in words_of(key)
            inner = inner_value(value) if is_post or roles.who is not None else None
            if is_post and isinstance(inner, dict) and has_text(inner):
                return {**{name: one for name, one in fields.items() if name != key}, **inner}
            if roles.who is not None and isinstance(inner, dict):
                return {**fields, key: inner}
    return fields


def _with_flags(draft: Draft, flags: set[str]) -> Draft:
    """Read numbers in columns that turned out to be flags, not counts."""
    numbers = [number for path, number in draft.marks if path in flags]
    if not numbers or draft.post.is_retweet:
        return draft
    return replace(_with(draft, is_retweet=any(numbers)), is_soft=False)


def _by_prefix(draft: Draft) -> Draft:
    """Let `RT @` decide where a mark is only absent, and is so in the whole file."""
    post = draft.post
    is_open = post.is_retweet is False and draft.is_soft and post.text.startswith("RT @")
    return _with(draft, is_retweet=None) if is_open else draft


def _with(draft: Draft, **changes: Any) -> Draft:
    return replace(draft, post=replace(draft.post, **changes))
