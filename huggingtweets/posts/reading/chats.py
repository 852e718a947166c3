"""Chats are not posts: half of the words are somebody else's, and all were meant for few."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import name_key, show
from huggingtweets.posts.reading.flat import roles_of
from huggingtweets.posts.reading.names import CHATS, words_set

_TIME = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[\s\u202f]?[AaPp]\.?[Mm]\.?)?"
_DAY = (
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}[- ][A-Za-z]{3}[- ]\d{2,4}"
    r"|[A-Z][a-z]{2,8} \d{1,2}, \d{4})"
)
_LINE = re.compile(
    rf"[\u200e\u200f\ufeff]?(?:"
    # WhatsApp, Signal
    rf"\[?{_DAY},?[\sT\u202f]{{1,3}}{_TIME}\]?(?:\s?[-–]\s?|\s{{1,2}}|:\s)[^:\n]{{1,60}}:\s"
    rf"|\[{_DAY},?[\s\u202f](?:at )?{_TIME}\]\s[^\n]{{1,60}}$"  # DiscordChatExporter
    rf"|[^\[\n]{{1,60}},\s\[{_DAY},?[\s\u202f](?:at )?{_TIME}\]:?\s?$"  # copied from Telegram
    rf"|<[^<>\n]{{1,40}}>\s|\[{_TIME}\]\s<[^<>\n]{{1,40}}>\s"  # IRC
    rf"|{_TIME}\t[^\t\n]{{1,60}}\t"  # LINE
    r"|\[[^\[\]\n]{1,40}\] \[[^\[\]\n]{4,14}\] "  # KakaoTalk
    r"|(?:From|Type|Sent|Received|Conversation): \S"  # sigtop
    r")"
)
_MAX_NAME_WORDS = 3
_MIN_LINES, _MIN_SHARE, _SURE_SHARE = 3, 0.3, 0.8
_TELEGRAM = words_set(
    "personal_chat private_group private_supergroup public_supergroup saved_messages bot_chat "
    "private_channel"
)
_RECEIVERS = (
    "recipient", "recipient_id", "recipientId", "recipient_screen_name", "receiver", "receiver_id",
)  # fmt: skip
_CHAT_KEYS = (
    *CHATS,
    *(
        ("a message service", frozenset({sender, receiver}))
        for sender in ("sender", "sender_id", "senderId", "sender_screen_name", "sender_username")
        for receiver in _RECEIVERS
    ),
)
"""Keys that only the chats of a service have together."""
_PAGE = re.compile(r"\s*<(?:\?xml|!doctype html|html|head|body|rss|feed)\b", re.I)
_NAME = r"@?\w[\w.@ -]{0,30}?"
_SPEAKER = re.compile(
    r"(?!RT @)(?:[\[(]?\d[\d.:/T+Z -]{3,60}[\])]?\s?[,|-]?\s?)?"  # number, date
    rf"(?:<({_NAME})>\s|({_NAME})(?::\s|\t|\s[-–—|]\s))"
)
_ABOVE = re.compile(r"(@\w{1,30}):?\s?$")
_SIGNED = re.compile(rf"[^\n]{{1,2000}}\s(?:[-–—~]|--)\s?({_NAME})\s?$")
_TABLE = re.compile(r"[\"']?\d{5,25}[\"']?\s?[,;\t|]")
_PRINTED = re.compile(r"\w{2,30}\(\w{1,30}=|<[\w.]{1,60} object at |\[['\"].*['\"]\]\s*$")
_NO_LINES = (
    (_TABLE, "a table", "use source=csv with a line of column names above"),
    (_PRINTED, "objects as Python prints them", "write the texts alone, or JSON"),
)
_TELLING = words_set(
    "from_id messages channel_id conversationId envelope chatItem sender_name key_remote_jid "
    "dmConversation messageCreate client_msg_id message_create dm_conversation_id blocks room_id "
    "is_from_me topic_id conversationid AuthorID role contact_name Contents"
).union(_RECEIVERS)
"""One of each at least: nearly all records have none."""


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
    hits = sum(bool(_LINE.match(line.strip("\r\n"))) for line in shown)
    if hits >= _MIN_LINES and hits >= _MIN_SHARE * len(shown):
        raise _refusal(where, "WhatsApp, Telegram, Signal or Discord")
    if shown and _PAGE.match(shown[0]):
        raise SourceError(
            f"{where}: got a page of the web; expected posts, one a line; ask the service for "
            "JSON or CSV, or keep the texts alone"
        )
    for pattern, what, do in _NO_LINES:
        if shown and sum(bool(pattern.match(line)) for line in shown) >= _SURE_SHARE * len(shown):
            raise SourceError(f"{where}: got {what}; expected posts, one a line; {do}")
    if shown and _is_header(shown[0]):
        raise SourceError(
            f"{where}: got a table ({show(shown[0].strip())}); expected posts, one a line; use "
            "source=csv, under a name that ends in .csv"
        )
    named = ((_SPEAKER, _SURE_SHARE), (_SIGNED, _SURE_SHARE), (_ABOVE, _MIN_SHARE))
    for pattern, share in () if is_one_person else named:
        matches = [match for line in shown if (match := pattern.match(line))]
        speakers = [next(filter(None, match.groups())).lower() for match in matches]
        names = sorted(set(speakers))
        is_alone = len(names) == 1 and name_key(names[0]) == handle
        is_of_many = 1 < len(names) <= len(speakers) / 2 or is_alone
        if is_of_many and len(speakers) >= max(_MIN_LINES, share * len(shown)):
            raise SourceError(
                f"{where}: got lines with names ({', '.join(map(show, names[:2]))}); expected the "
                "posts of one person, one a line; keep that person's lines alone, without the "
                "name, or set source.user_column= (empty) if all are theirs"
            )


def _is_header(line: str) -> bool:
    """Whether a line is the names of columns, one of them for posts."""
    names = max((line.strip().split(separator) for separator in ",;\t|"), key=len)
    are_names = len(names) > 1 and all(0 < len(name.split()) <= _MAX_NAME_WORDS for name in names)
    return are_names and any(roles_of(name.strip('" ')).text is not None for name in names)


def refuse_json_chat(value: Mapping[str, Any]) -> None:
    """Refuse an object that only the export of a chat has.

    Raises:
        SourceError: it is one.
    """
    if _TELLING.isdisjoint(value):
        return
    if str(value.get("type")) in _TELEGRAM and isinstance(value.get("messages"), list):
        raise _refusal("", "Telegram")
    for service, keys in _CHAT_KEYS:
        if keys <= value.keys():
            raise _refusal("", service)


def _refusal(where: str, service: str) -> SourceError:
    return SourceError(
        f"{where or 'source.path'}: got a chat, as {service} exports it; expected posts, because a "
        "chat holds other people's private words; use the posts of a public account, or a text "
        "file with your own lines alone, one per line, without dates and names"
    )
