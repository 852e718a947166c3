"""Who wrote the records of a file: the one place that decides whose words are learnt.

What cannot be told is refused with the name of the column and the key to set, never assumed.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from huggingtweets.config.posts_schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.posts.optout import handle_hash
from huggingtweets.posts.reading.by_handle import name_key, nearest, quoted, show
from huggingtweets.posts.reading.byline import (
    Field,
    is_called,
    is_same,
    named,
    squeezed,
    typed_handle,
    writer_of,
)
from huggingtweets.posts.reading.flat import ADDRESSES, get_path, is_foreign
from huggingtweets.posts.reading.names import (
    NEVER,
    NO_AUTHORS,
    NO_NAMES,
    Who,
    is_of_profile,
    may_name_people,
    words_of,
)
from huggingtweets.posts.reading.record import Draft

# So that memory stays bounded where columns or keys hold data: more is not looked at.
_MAX_VALUES = 1000
_MAX_COLUMNS = 300
_MAX_AUTHORS = 200_000
_MAX_NAME_CHARS = 50
_PLAINLY_HANDLE = re.compile(r"@\w{1,30}|[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*_\w{0,28}", re.ASCII)
_NO_NAME = re.compile(
    r"\W*|[\W\d_]*[^\W\d_]?[\W\d_]*|true|false|yes|no|n/?an?|none|null|[a-z]{2,3}[_-][A-Za-z]{2,4}|"
    r"[a-z+.-]{2,10}:.*|<.*|[\d\W]+[a-z]{1,3}|\S+\.[a-z]{2,4}/.*|\d{1,4}[-/.].*",
    re.IGNORECASE | re.DOTALL,
)
"""No name of anybody: numbers, single letters, yes and no, locales, addresses, HTML, dates."""
_MAX_NAME_WORDS = 5
_ALL_THEIRS = "source.user_column= (empty) if all are theirs"


@dataclass(frozen=True)
class Asked:
    """Whose posts of which file are wanted, and what is known beside the file."""

    where: str
    """The file, for messages."""
    handle: str
    """Canonical."""
    config: SourceConfig
    is_named_for: bool = False
    """Whether the file is called by the handle, which is told where records say nothing."""
    optouts: Collection[str] = ()
    """Hashes of people whose records are left out whatever else holds."""


class _Column:
    """Values of a column that no table knows, as long as they may be people."""

    def __init__(self, path: str) -> None:
        words = words_of(path)
        self.values: Counter[str] = Counter()
        self.writers: Counter[str] = Counter()
        """Of the addresses of posts; whose they are counts where all values are such."""
        self.is_closed = False
        self.is_people = may_name_people(path)
        self.is_of_profile = is_of_profile(path)
        self.is_source = words[-1:] == ("source",)
        self.is_known = not (self.is_people or NO_AUTHORS.isdisjoint(words))
        self.is_address = words[-1:] in ADDRESSES and not is_foreign(path)

    def add(self, text: str) -> None:
        has_others = self.values or self.is_closed or not self.is_address
        if not has_others and (writer := writer_of(text)) is not None:
            self.writers[writer] += 1
            return
        self.writers.clear()
        is_name = len(text) <= _MAX_NAME_CHARS and text.count(" ") < _MAX_NAME_WORDS
        if not (self.is_of_profile or (is_name and "\n" not in text)):
            self.is_closed = True
            self.values.clear()
        elif text in self.values or len(self.values) < _MAX_VALUES:
            self.values[text] += 1

    def may_tell_authors(self, handle: str, num_records: int, is_named_for: bool) -> bool:
        """Whether nobody can say that these values are not authors.

        Sure enough are the handle itself or values with `@`; else few values that may be names.
        """
        if len(self.writers) > 1 and self.writers.total() >= num_records / 2:
            return True
        keys = {name_key(value) for value in self.values}
        if len(keys) < 2 or self.is_of_profile:
            return len(keys) > 1
        plain = squeezed(handle)
        if any(squeezed(key) == plain for key in keys):
            return True
        half = len(self.values) / 2
        if sum(value.startswith("@") for value in self.values) >= half:
            return True
        num = self.values.total()
        no_names = {value: count for value, count in self.values.items() if _is_no_name(value)}
        is_of_programs = self.is_source and bool(no_names)  # one that is known is enough
        if self.is_known or is_of_programs or 2 * sum(no_names.values()) >= num:
            return False
        is_few = len(keys) <= num / 2 and num >= num_records / 2
        return self.is_people or (is_few and not is_named_for)


def _is_no_name(value: str) -> bool:
    """Whether a value can be no name of anybody."""
    return bool(_NO_NAME.fullmatch(value)) or not NO_NAMES.isdisjoint(words_of(value.lower()))


class Authors:
    """What the records of one file say about their authors, gathered while they are read."""

    def __init__(self, asked: Asked) -> None:
        """Begin without records."""
        self._asked = asked
        self._handle = asked.handle
        self._column = asked.config.user_column
        """Empty: all is by the handle; None: to be found out."""
        self.others: dict[str, None] = {}
        """Keys of other authors, in the order they came."""
        self.num_others = 0
        self.num_opted_out = 0
        self._hits: set[str] = set()
        """Paths under which the handle itself was found."""
        self._handles_of_id: dict[str, set[str]] = {}
        self._columns: dict[str, _Column] = {}
        self._num_seen = 0
        self._path_of_others = ""
        self.by = ""
        """What was taken for the author, in words."""

    # --- While reading

    def told(self, record: Mapping[str, Any]) -> str | None:
        """Return the author by the configured column; None where the record has none."""
        value = get_path(record, self._column or "")
        if isinstance(value, dict):
            return named(value, "user.")
        if isinstance(value, bool | float) or not str(value if value is not None else "").strip():
            return None
        return writer_of(str(value)) or name_key(str(value)[:200])

    def check_key(self, key: str) -> None:
        """Refuse a list that nothing but its key names, unless that is the handle.

        Raises:
            SourceError: it is not.
        """
        if self._column is None and not self.is_wanted(name_key(key)):
            raise SourceError(
                f"{self._asked.where}: got a list under the key {show(key)}, and nothing says "
                f"whose it is; expected posts of {self._handle}; call the key {self._handle} if "
                f"they are theirs, or set {_ALL_THEIRS}"
            )

    def see(self, draft: Draft) -> bool:
        """Take note of a record; False: it is surely somebody else's, so its text can go."""
        self._num_seen += 1
        named = [field for field in draft.fields if field.who < Who.display]
        for field_ in draft.fields:
            if field_.who is Who.id and len(self._handles_of_id) < _MAX_AUTHORS:
                known = self._handles_of_id.setdefault(field_.value, set())
                sure = min(named)[:1] if named else None
                known.update(one.value for one in named if (one.who,) == sure)
        hits = [one.path for one in named if self.is_wanted(one.value, one.path)]
        self._hits.update(hits)
        if not named or hits or self._column == "":
            return True
        self._count_other(min(named))
        return False

    def see_told(self, key: str) -> bool:
        """Take note of an author by the configured column; False: it is somebody else."""
        if is_called(key, self._handle, self._column or ""):
            return True
        self._count_other(Field(Who.username, 0, self._column or "", key))
        return False

    def know(self, ids: Mapping[str, str]) -> None:
        """Learn which handles numbers stand for, as a page of X's API says beside its posts."""
        for number, handle in ids.items():
            if len(self._handles_of_id) < _MAX_AUTHORS:
                self._handles_of_id.setdefault(number, set()).add(name_key(handle))

    def pass_over(self, names: Iterable[str], path: str) -> None:
        """Count other authors whose records were never read."""
        for name in names:
            self._count_other(Field(Who.someone, 0, path, name_key(name)))

    def look_at(self, unknown: Iterable[tuple[str, Any]]) -> None:
        """Take note of columns that no table knows: they may be authors all the same."""
        for path, value in unknown:
            is_number_of_profile = type(value) is int and is_of_profile(path)
            if path[:1] == "\0" or not (isinstance(value, str) or is_number_of_profile):
                continue
            column = self._columns.get(path)
            if column is None:
                if len(self._columns) >= _MAX_COLUMNS or NEVER.intersection(words_of(path)):
                    continue
                column = self._columns[path] = _Column(path)
            text = str(value).strip()
            if text and not column.is_closed:
                column.add(text)

    def is_wanted(self, key: str, path: str = "") -> bool:
        """Whether a handle is the one asked for."""
        return is_same(key, self._handle, path)

    def _count_other(self, field_: Field) -> None:
        self.num_others += 1
        self._path_of_others = self._path_of_others or field_.path
        if len(self.others) < _MAX_AUTHORS:
            self.others[field_.value] = None

    # --- At the end

    def own(self, drafts: list[Draft]) -> tuple[list[Draft], list[Draft]]:
        """Return the drafts of whom was asked for, and those of nobody who can be told.

        Raises:
            SourceError: all are other people's, or records differ in what looks like their author,
                and nothing says how.
        """
        mine, open_ = self._divide(drafts)
        mine = self._without_optouts(mine)
        if self.others and not mine:
            self._refuse_others()
        return mine, open_

    def _divide(self, drafts: list[Draft]) -> tuple[list[Draft], list[Draft]]:
        if self._column is not None:
            self.by = f"column {self._column}, as told" if self._column else "all, as told"
            return drafts, []
        mine, open_ = [], []
        for draft in drafts:
            author = self._author(draft)
            if author is None:
                open_.append(draft)
            elif self.is_wanted(author.value, author.path):
                mine.append(draft)
                self.by = self.by or f"column {author.path}"
            else:
                self._count_other(author)
        if mine or self.others:
            return mine, open_
        self._check_one_person(open_)
        self.by = self.by or (
            "the file's name" if self._asked.is_named_for else "nothing; taken for one person's"
        )
        return open_, []

    @cached_property
    def _has_known_number(self) -> bool:
        """Whether a number stands for the handle alone; asked once, when all was read."""
        sure = (handles for handles in self._handles_of_id.values() if len(handles) == 1)
        return any(self.is_wanted(*handles) for handles in sure)

    def _author(self, draft: Draft) -> Field | None:
        """Return the field that names the author of one record, by all that the file says."""
        named = [field for field in draft.fields if field.who < Who.display]
        if named:
            if min(named).who is Who.handle:
                sure = [field for field in named if field.who is Who.handle]
                return min(sure, key=lambda one: (one.depth, one.path not in self._hits))
            return min(named, key=lambda one: (one.path not in self._hits, one.who, one.depth))
        ids = [field for field in draft.fields if field.who is Who.id]
        for one in ids:
            handles = self._handles_of_id.get(one.value, set())
            if len(handles) == 1:
                return one._replace(value=next(iter(handles)))
        if ids and self._has_known_number:
            return ids[0]._replace(value=f"id {ids[0].value}")
        names = [field for field in draft.fields if field.who is Who.display]
        if not ids and names and not self._hits and not self.others:
            hit = next((one for one in names if name_key(one.value) == self._handle), None)
            if hit is not None:
                return hit._replace(value=self._handle)
        return None

    def _check_one_person(self, drafts: list[Draft]) -> None:
        """Refuse a file that names nobody and yet may be of several people."""
        values: dict[tuple[Who, str], Counter[str]] = {}
        for draft in drafts:
            for one in draft.fields:
                values.setdefault((one.who, one.path), Counter())[one.value] += 1
        in_all = [key for key in sorted(values) if values[key].total() == len(drafts)]
        same = [key for key in in_all if len(values[key]) == 1]
        # One number in all records settles it, whatever names the person has had.
        has_number = any(who is Who.id for who, _ in same)
        for key in sorted(values):
            if len(values[key]) > 1 and (key[0] is Who.id or not has_number):
                self._refuse(key[1], values[key])
        if values and not in_all:
            paths = ", ".join(show(path) for _, path in list(values)[:3])
            raise SourceError(
                f"{self._asked.where}: got records that say their author by {paths}, and others "
                f"that do not; expected the posts of {self._handle} alone, or a handle in all; "
                f"leave the others out, or set {_ALL_THEIRS}"
            )
        if same:
            who, path = min(same)
            found = next(iter(values[who, path]))
            if who is Who.display and _is_another(found, self._handle):
                self._refuse_another(found, path)
            self.by = f"one {path} in all, {show(found)}"
        for path, column in self._columns.items():
            only = next(iter(column.values), "")
            if column.is_people and len(column.values) == 1 and _is_another(only, self._handle):
                self._refuse_another(only, path)
            if column.is_of_profile and has_number:
                continue
            if column.may_tell_authors(self._handle, len(drafts), self._asked.is_named_for):
                self._refuse(path, column.writers or column.values)

    def _refuse_another(self, found: str, path: str) -> None:
        raise SourceError(
            f"{self._asked.where}: got posts by {show(found)} (column {show(path)}), not by "
            f"{self._handle}; expected the posts of {self._handle}; use "
            f"user={quoted(name_key(found))}, or {_ALL_THEIRS}"
        )

    def _refuse(self, path: str, values: Collection[str]) -> None:
        shown = ", ".join(show(value, 40) for value in list(values)[:2])
        first = next(iter(values))
        typed = typed_handle(first)
        do = (
            f"if it tells them, with user={typed} for {show(first, 40)}"
            if typed
            else "and a name of your own in its cells, as user= takes no other letters than English"
        )
        raise SourceError(
            f"{self._asked.where}: got records of {len(values)} authors by the column {show(path)} "
            f"({shown}), and nothing says which are by {self._handle}; expected the posts of one "
            f"person, or a column with handles; set source.user_column={quoted(path)} {do}, "
            f"or {_ALL_THEIRS}"
        )

    def _without_optouts(self, drafts: list[Draft]) -> list[Draft]:
        """Leave out whoever wants no model, also where they were taken for somebody else."""
        if not self._asked.optouts:
            return drafts

        @cache  # a hash per author, not per post
        def wants_none(key: str) -> bool:
            return key != self._handle and handle_hash(key) in self._asked.optouts

        kept = [
            draft
            for draft in drafts
            if not any(wants_none(name_key(one.value)) for one in draft.fields)
        ]
        self.num_opted_out = len(drafts) - len(kept)
        return kept

    def _refuse_others(self) -> None:
        num = len(self.others)
        only = next(iter(self.others))
        there = "is 1 other user" if num == 1 else f"are {num} other users"
        one = f"use user={quoted(typed_handle(only) or only)}, or {_ALL_THEIRS}"
        raise SourceError(
            f"{self._asked.where}: got no post of user {self._handle}; there {there}"
            f"{nearest(self._handle, self.others)} (column {show(self._path_of_others)}); "
            + (one if num == 1 else "check user= or set source.user_column=")
        )


def _is_another(name: str, handle: str) -> bool:
    """Whether a display name is plainly a handle, and another one."""
    return bool(_PLAINLY_HANDLE.fullmatch(name)) and name_key(name) != handle
