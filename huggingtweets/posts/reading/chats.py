"""Chats are not posts: half of the words are somebody else's, and all were meant for few."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.byline import squeezed
from huggingtweets.posts.reading.flat import are_columns
from huggingtweets.posts.reading.names import CHATS, words_set

_TIME = (
    r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?"
    r"(?:\s?[AaPp]\.?\s?[Mm]\b\.?|\s?[^\W\d_]{1,2}\b\.?)?"  # 5:10 p. m., ١١:١٠ م
)
_DAY = (
    r"(?:\d{1,4}[./-]\s?\d{1,2}[./-]\s?\d{1,4}\.?|\d{1,2}[. -]{1,2}[^\W\d_]{3,9}\.?[ -]\d{2,4}"
    r"|[^\W\d_]{3,9}\.? \d{1,2}, \d{4}|\d{2,4}[年년]\s?\d{1,2}[月월]\s?\d{1,2}[日일])"
)
_MOMENT = rf"{_DAY}[,،T]?\s{{0,3}}(?:[^\W\d_]{{1,6}}[.,]{{0,2}}\s?){{0,2}}{_TIME}"
"""Day and time in any country's way, with the words it puts between: `um`, `à`, `klo`, `오후`."""
_LINE = re.compile(
    # WhatsApp, Signal
    rf"\[?{_MOMENT}\]?(?:\s?[-–,]\s?|\s{{1,2}}|:\s)[^:\n]{{1,60}}:\s"
    rf"|\[{_MOMENT}\]\s[^\n]{{1,60}}$"  # DiscordChatExporter
    rf"|[^\[\n]{{1,60}},\s\[{_MOMENT}\]:?\s?$"  # copied from Telegram
    rf"|[—–-]?\s?(?:{_MOMENT}|{_TIME})(?:\s\([^()\n]{{1,60}}\))?\s*$"  # nothing else: iMessage
    rf"|<[^<>\n]{{1,40}}>\s|\[{_TIME}\]\s<[^<>\n]{{1,40}}>\s"  # IRC
    rf"|{_TIME}\t[^\t\n]{{1,60}}\t"  # LINE
    r"|\[[^\[\]\n]{1,40}\] \[[^\[\]\n]{4,14}\] "  # KakaoTalk
    r"|(?:From|Type|Sent|Received|Conversation): \S"  # sigtop
)
_HEAD = re.compile(
    rf"(?:{_MOMENT}\s+|{_TIME}\s(?=<|[^:\n]{{1,60}}:$))(?P<after><?\s?[^\s:<>][^:<>\n]{{0,60}})"
    r"(?:>\s|:?\s?$)"  # Zoom, QQ, IRC
    rf"|(?P<before>[^\s:][^:\n]{{0,40}}?)(?:\s{{2}}|\s[—–-]\s)(?:(?:[^\W\d_]{{1,9}}\s){{0,2}}{_TIME}"
    rf"|{_MOMENT})\s*$"  # copied from Slack, from Discord
)
"""A name and a time, which make a chat only where the names come again."""
_MARKS = re.compile("[\u200e\u200f\ufeff\u202a-\u202e\u2066-\u2069]")
"""What turns the direction of writing, unseen."""
_MIN_LINES, _MIN_SHARE, _SURE_SHARE = 3, 0.3, 0.8
_TELEGRAM = words_set(
    "personal_chat private_group private_supergroup public_supergroup saved_messages bot_chat "
    "private_channel"
)
_SENDERS = words_set("sender sender_id senderId sender_screen_name sender_username")
_RECEIVERS = words_set(
    "recipient recipient_id recipientId recipient_screen_name receiver receiver_id"
)
_TELLING = frozenset(max(keys, key=len) for _, keys in CHATS).union(_RECEIVERS, {"messages"})
"""One key of each chat at least, the longest, which is the rarest: nearly all records have none."""
_PAGE = re.compile(
    r"\s*<(?:\?xml|!doctype html|html|head|body|table|rss|feed)\b"
    r"|\s*<(?:tweets?|posts?|status(?:es)?|messages?|items?|entry|entries|records?|rows?|root|data"
    r"|dataset|export|archive|document|channel|opml|plist)>\s*$",
    re.I,
)
"""Of the web, or XML, whose first tag stands alone; `<sigh>` is said."""
_NAME = r"@?\w[\w.@ -]{0,30}?"
_SPEAKER = re.compile(
    r"(?!RT @)(?:[\[(]?\d[\d.:/T+Z -]{3,60}[\])]?\s?[,|-]?\s?)?"  # number, date
    rf"(?:<({_NAME})>\s|({_NAME})(?:\s\((@\w{{1,30}})\))?(?::\s|\t|\s[-–—|]\s|,(?=[^\s\d])))"
)
_ABOVE = re.compile(r"(@\w{1,30}):?\s?$")
_SIGNED = re.compile(rf"[^\n]{{1,2000}}\s(?:[-–—~]|--)\s?({_NAME})\s?$")
_FORMATS = (
    (r"window\.YTD\.", 0, "a file of an archive from X", "use source=x_archive"),
    (r"From \S+@\S+ \w{3} ", 0, "mail", "keep the texts alone"),
    (
        r"[\"']?\d{5,25}[\"']?\s?[,;\t|]", 0.8, "a table",
        "use source=csv with a line of column names above",
    ),
    (
        r"\w{2,30}\(\w{1,30}=|<[\w.]{1,60} object at |\[['\"].*['\"]\]\s*$", 0.8,
        "objects as Python prints them", "write the texts alone, or JSON",
    ),
    (r"\s*\|.*\|\s*$", 0.8, "a table of Markdown", "save it as CSV and use source=csv"),
    (
        r"\s*(?:(?:INSERT INTO|(?:DROP|CREATE) TABLE|LOCK TABLES)\b|/\*!\d|\(\d+,.*\)[,;]?$)",
        0.3, "SQL", "save the table as CSV and use source=csv",
    ),
    (
        r"\s*(?:[\[\]{}]+,?|\"[^\"]{1,60}\":\s?\S.*|\".*\",|\[\{\".*)\s*$", 0.8, "JSON",
        "use source=jsonl, under a name that ends in .json",
    ),
    (
        r"(?:\s*-\s|\s+)(?:text|content|body|message|user|author|date|id|created_at):\s", 0.8,
        "YAML", "keep the texts alone, or save it as JSON and use source=jsonl",
    ),
    (
        r"[\d:.,]{8,14} --> [\d:.,]{8,14}", 0.2, "subtitles", "keep the texts alone",
    ),
    (
        rf"[\[(]?{_DAY}(?:[,T]?\s?{_TIME})?[\])]?[\s,|:;-]{{1,4}}\S", 0.8,
        "lines that begin with dates",
        "keep the texts alone, or save them as CSV with a line of column names, for source=csv",
    ),
)  # fmt: skip
"""What is no plain text: how lines of it look, how many of them (0: the first), what to do."""


def refuse_text_chat(
    where: str, lines: Iterable[str], handle: str, *, is_one_person: bool = False
) -> None:
    """Refuse a text whose lines are those of a chat, of a table, or of a page of the web.

    Args:
        where: the file, for messages.
        lines: some hundred from its beginning.
        handle: whose posts are wanted, canonical.
        is_one_person: whether somebody said so; then lines may begin with names.

    Raises:
        SourceError: it is one.
    """
    shown = [line for line in lines if line.strip()]
    bare = [_MARKS.sub("", line).strip() for line in shown]
    hits = sum(bool(_LINE.match(line)) for line in bare)
    heads = [match["after"] or match["before"] for line in bare if (match := _HEAD.match(line))]
    hits = max(hits, len(heads) if len(set(heads)) > 1 and _come_again(heads) else 0)
    if hits >= _MIN_LINES and hits >= _MIN_SHARE * len(shown):
        raise _refusal(where, "WhatsApp, Telegram, Signal or Discord")
    refuse_page(where, shown[0] if shown else "")
    if shown and _is_header(shown[0]):
        raise SourceError(
            f"{where}: got a table ({show(shown[0].strip())}); expected posts, one a line; use "
            "source=csv, under a name that ends in .csv"
        )
    named = ((_SPEAKER, _SURE_SHARE), (_SIGNED, _SURE_SHARE), (_ABOVE, _MIN_SHARE))
    for pattern, share in () if is_one_person else named:
        matches = [match for line in shown if (match := pattern.match(line))]
        speakers = [next(filter(None, match.groups()[::-1])).lower() for match in matches]
        names = sorted(set(speakers))
        is_alone = len(names) == 1 and squeezed(names[0]) == squeezed(handle)
        is_of_many = (len(names) > 1 and _come_again(speakers)) or is_alone
        if is_of_many and len(speakers) >= max(_MIN_LINES, share * len(shown)):
            raise SourceError(
                f"{where}: got lines with names ({', '.join(map(show, names[:2]))}); expected the "
                "posts of one person, one a line; keep that person's lines alone, without the "
                "name, or set source.user_column= (empty) if all are theirs"
            )
    for form, share, what, do in _FORMATS:
        looked_at = shown if share else shown[:1]
        hits = sum(bool(re.match(form, line)) for line in looked_at)
        if hits and hits >= share * len(looked_at):
            raise SourceError(f"{where}: got {what}; expected posts, one a line; {do}")


def _come_again(names: list[str]) -> bool:
    """Whether there are twice as many lines as names, as where a few people talk."""
    return 0 < len(set(names)) <= len(names) / 2


def refuse_page(where: str, line: str) -> None:
    """Refuse a file whose first line is that of a page of the web, or of XML.

    Raises:
        SourceError: it is one.
    """
    if _PAGE.match(line):
        raise SourceError(
            f"{where}: got a page of the web or XML; expected posts, one a line; ask the service "
            "for JSON or CSV, or keep the texts alone"
        )


def _is_header(line: str) -> bool:
    """Whether a line is the names of columns, one of them for posts."""
    names = max((line.strip().split(separator) for separator in ",;\t|"), key=len)
    return all(map(str.strip, names)) and are_columns([name.strip('" ') for name in names])


def refuse_json_chat(value: Mapping[str, Any]) -> None:
    """Refuse an object that only the export of a chat has.

    Raises:
        SourceError: it is one.
    """
    if _TELLING.isdisjoint(value):  # every record comes by here
        return
    if str(value.get("type")) in _TELEGRAM and isinstance(value.get("messages"), list):
        raise _refusal("", "Telegram")
    is_channel = str(value.get("from_id")).startswith("channel")  # to be read by everyone
    for service, keys in CHATS:
        if keys <= value.keys() and not (is_channel and service == "Telegram"):
            raise _refusal("", service)
    if not (_SENDERS.isdisjoint(value) or _RECEIVERS.isdisjoint(value)):
        raise _refusal("", "a message service")


def _refusal(where: str, service: str) -> SourceError:
    return SourceError(
        f"{where or 'source.path'}: got a chat, as {service} exports it; expected posts, because a "
        "chat holds other people's private words; use the posts of a public account, or a text "
        "file with your own lines alone, one per line, without dates and names"
    )
