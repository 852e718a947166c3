"""Chats in any form are refused with the reason; posts that only look a little like one are not."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Timeline

Load = Callable[..., Timeline]

RECORDS: dict[str, dict[str, Any]] = {
    "X, API v2": {"id": "1", "text": "hey", "dm_conversation_id": "1-2", "sender_id": "5"},
    "X, API v1.1": {"id": "1", "message_create": {"message_data": {"text": "hey"}}},
    "X, older": {"text": "hey", "sender_screen_name": "ann", "recipient_screen_name": "bob"},
    "Slack": {"type": "message", "user": "U1", "text": "hey", "ts": "1.2", "blocks": []},
    "Matrix": {"room_id": "!a:b", "sender": "@ann:b", "content": {"body": "hey"}},
    "iMessage": {"text": "hey", "is_from_me": 1, "handle_id": 3},
    "Google Chat": {"text": "hey", "topic_id": "x", "message_id": "y", "creator": {"name": "Ann"}},
    "Teams": {"content": "hey", "conversationid": "19:x", "messagetype": "Text", "from": "ann"},
    "Discord": {"AuthorID": "1", "Author": "ann", "Date": "x", "Content": "hey", "Reactions": ""},
    "a table": {"text": "hey", "sender": "ann", "receiver": "bob"},
    "Snapchat": {"From": "bob", "Media Type": "TEXT", "Content": "hey", "IsSender": False},
    "WeChat": {"StrContent": "hey", "IsSender": 1, "NickName": "ann"},
    "Tinder": {"match_id": "Match 1", "messages": [{"from": "You", "message": "hey"}]},
    "Hinge": {"chats": [{"body": "hey"}], "match": [{"timestamp": "2023"}]},
    "Claude": {"name": "Help", "chat_messages": [{"sender": "human", "text": "hey"}]},
    "ChatGPT": {"title": "Help", "create_time": 1.0, "mapping": {"a": {"message": {}}}},
    "Bluesky": {"text": "hey", "rev": "2", "sender": {"did": "did:plc:a"}, "sentAt": "2023"},
    "Rocket.Chat": {"rid": "room", "msg": "hey", "u": {"username": "ann"}},
}
COLUMNS = {
    "LinkedIn": ["CONVERSATION ID", "FROM", "SENDER PROFILE URL", "CONTENT"],
    "iMazing": ["Chat Session", "Message Date", "Sender Name", "Text"],
    "Viber": ["Date", "Time", "Sender", "Phone number", "Message"],
    "SMS": ["Type", "Date", "Name / Number", "Sender", "Content"],
}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("tool", RECORDS)
def test_messages_are_no_posts(tool: str, kind: str, tmp_path: Path, load: Load) -> None:
    record = RECORDS[tool]
    path = tmp_path / f"ann.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join([json.dumps(record)] * 3))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([[*record], *[[*record.values()]] * 3])
    with pytest.raises(SourceError, match=r"got a chat, as .* exports it"):
        load(kind, path, "ann")


@pytest.mark.parametrize("tool", COLUMNS)
def test_tables_of_messages_are_known_by_their_columns(
    tool: str, tmp_path: Path, load: Load
) -> None:
    names = COLUMNS[tool]
    (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in [names, *[["x"] * 5] * 3]))
    for config in ({}, {"text_column": names[-1]}):
        with pytest.raises(SourceError, match=r"got a chat, as .* exports it"):
            load("csv", tmp_path / "a.csv", "x", **config)


LINES = {
    "LINE": "12:0{n}\t{who}\they {n}",
    "KakaoTalk": "[{who}] [오후 3:0{n}] hey {n}",
    "WhatsApp, Korean": "2022. 12. 31. 오후 11:1{n}, {who} : hey {n}",
    "WhatsApp, Chinese": "2022/12/31 下午11:1{n} - {who}: hey {n}",
    "WhatsApp, Spanish": "31/12/22, 11:1{n}\u202fp.\xa0m. - {who}: hey {n}",
    "WhatsApp, Arabic": "\u200f٣١/١٢/٢٠٢٢، ١١:1{n} م - {who}: hey {n}",
    "WhatsApp, French": "31/12/2022 à 23:1{n} - {who} : hey {n}",
    "WhatsApp, German": "31.12.22 um 23:1{n} - {who}: hey {n}",
    "WhatsApp, Finnish": "31.12.2022 klo 23.1{n} - {who}: hey {n}",
    "WhatsApp, Bulgarian": "31.12.22 г., 23:1{n} ч. - {who}: hey {n}",
    "KakaoTalk, of a phone": "2022년 12월 31일 오후 11:1{n}, {who} : hey {n}",
    "Zoom": "17:05:1{n} From {who} to Everyone:\n\they {n}",
    "irssi": "10:1{n} < {who}> hey {n}",
    "QQ": "2023-01-01 10:00:1{n} {who}(12345)\nhey {n}\n",
    "iMessage": "Jan 01, 2023  5:00:1{n} PM (Read by them after 1 minute)\n{who}\nhey {n}\n",
    "Discord, copied": "{who} — Today at 5:1{n} PM\nhey {n}",
    "Discord, in lines": "{who}\n  — 12/31/2022 5:1{n} PM\nhey {n}",
    "Slack, copied": "{who}  5:1{n} PM\nhey {n}",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_lines_of_chats(line: str, tmp_path: Path, load: Load) -> None:
    both = [line.format(n=n, who=("Ann", "Bob Reed")[n % 2]) for n in range(6)]
    (tmp_path / "ann.txt").write_text("\n".join(both))
    with pytest.raises(SourceError, match=r"got a chat, as .* exports it"):
        load("text", tmp_path / "ann.txt", "ann")


def test_ones_own_channel_of_telegram_is_no_chat(tmp_path: Path, load: Load) -> None:
    first = {"type": "message", "from": "Ann's pond", "from_id": "channel1", "date_unixtime": "1"}
    pieces = {"text_entities": [{"type": "bold", "text": "bold"}]}
    posts = [{**first, **pieces, "id": n, "text": [f"day {n} ", {"text": "bold"}]} for n in (1, 2)]
    said = {"id": 9, "type": "service", "actor": "Ann", "action": "pin_message", "text": ""}
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"type": "public_channel", "messages": [*posts, said]}))
    assert [post.text for post in load("jsonl", path, "ann_marsh").posts] == [
        "day 2 bold", "day 1 bold",
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "private_channel", "messages": posts}))
    with pytest.raises(SourceError, match="got a chat, as Telegram"):
        load("jsonl", path, "ann_marsh")


def test_real_posts_are_no_chats(shared: Path, tmp_path: Path, load: Load) -> None:
    for name in ("mustafaag", "Number10gov", "MedvedevRussia"):
        posts = load("jsonl", shared / "tweets", name.lower()).posts
        (tmp_path / "a.txt").write_text("\n".join(post.text for post in posts))
        assert len(load("text", tmp_path / "a.txt", name.lower()).posts) >= len(posts)


@pytest.mark.parametrize(
    "extra", [{"sender": "ann"}, {"to_user": "bob"}, {"topic": "x"}, {"ts": "1"}]
)
def test_posts_that_share_a_key_with_chats(
    extra: dict[str, str], tmp_path: Path, load: Load
) -> None:
    (tmp_path / "ann.jsonl").write_text(json.dumps({"text": "a post", "user": "ann", **extra}))
    assert len(load("jsonl", tmp_path / "ann.jsonl", "ann").posts) == 1


def test_texts_that_begin_like_lines_of_chats(tmp_path: Path, load: Load) -> None:
    lines = [
        "[news] [update] all is well",
        "12:00 noon",
        "-- 12:30",
        "INSERT INTO bed VALUES (me)",
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
    ]
    (tmp_path / "ann.txt").write_text("\n".join(lines))
    assert len(load("text", tmp_path / "ann.txt", "ann").posts) == 10


BOTH = [("ann_marsh", f"the pond is grey, day {n}") for n in range(5)]
BOTH += [("tom_reed", f"the harbour is red, day {n}") for n in range(5)]
TEXTS_OF_TWO = {
    "name - text": "{0} - {1}",
    "name | text": "{0} | {1}",
    "twint": "1520000000000000000 2022-04-28 00:45:59 +0000 <{0}> {1}",
    "[day] @name: text": "[2022-04-28] @{0}: {1}",
    "signed": "{1} — {0}",
    "name,text": "{0},{1}",
    "name (@handle): text": "Somebody (@{0}): {1}",
    "above": "@{0}\n   {1}\n",
}


@pytest.mark.parametrize("form", TEXTS_OF_TWO.values(), ids=TEXTS_OF_TWO)
def test_lines_of_two_people_are_refused(form: str, tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.txt").write_text("\n".join(form.format(*one) for one in BOTH))
    with pytest.raises(SourceError, match=r"got lines with names.*ann_marsh.*tom_reed"):
        load("text", tmp_path / "a.txt", "ann_marsh")


def test_ones_own_name_before_each_line_is_no_post(tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"ann_marsh: {text}" for _, text in BOTH))
    with pytest.raises(SourceError, match="without the name"):
        load("text", tmp_path / "a.txt", "ann_marsh")
    (tmp_path / "a.txt").write_text("\n".join(f"Ann Marsh: {text}" for _, text in BOTH))
    with pytest.raises(SourceError, match="without the name"):
        load("text", tmp_path / "a.txt", "ann_marsh")
    news = "\n".join(f"BREAKING: {text}" for _, text in BOTH)
    (tmp_path / "a.txt").write_text(news)
    assert len(load("text", tmp_path / "a.txt", "ann_marsh").posts) == 10


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (["id,user,text", *(f"{n},{name},{text}" for n, (name, text) in enumerate(BOTH))], "table"),
        ([f"15200000000000{n};{text}" for n, (_, text) in enumerate(BOTH)], "table"),
        ([f"Status(_api=<tweepy>, _json={{'text': '{text}'}})" for _, text in BOTH], "Python"),
        ([repr([text for _, text in BOTH])], "Python"),
        (json.dumps([{"text": text} for _, text in BOTH], indent=1).split("\n"), "source=jsonl"),
        (json.dumps([text for _, text in BOTH], indent=1).split("\n"), "source=jsonl"),
        ([line for who, text in BOTH for line in (f"- text: {text}", f"  user: {who}")], "YAML"),
        (["| user | text |", "|---|---|", *(f"| {who} | {text} |" for who, text in BOTH)], "Mark"),
        ([f"INSERT INTO posts VALUES ({n}, '{text}');" for n, (_, text) in enumerate(BOTH)], "SQL"),
        (["From ann@a.b Mon Jan  1 10:00:00 2023", "Subject: the pond", "", "grey"], "mail"),
        ([f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\nthe pond\n" for n in range(9)], "subtitles"),
        (["<tweets>", *(f"<tweet><text>{text}</text></tweet>" for _, text in BOTH)], "XML"),
        (['window.YTD.tweets.part0 = [{"tweet": {"full_text": "a"}}]'], "source=x_archive"),
        ([f"2023-01-0{n % 9 + 1} 10:00:00 {text}" for n, (_, text) in enumerate(BOTH)], "dates"),
        ([f"2023-01-0{n % 9 + 1}\t{text}" for n, (_, text) in enumerate(BOTH)], "dates"),
    ],
)
def test_what_was_not_written_as_text_is_refused(
    lines: list[str], what: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=f"(?=.*{what}).*expected posts, one a line"):
        load("text", tmp_path / "a.txt", "ann_marsh")


def test_texts_for_gpt_2_or_between_nuls_are_divided(tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.txt").write_text("<|startoftext|>one<|endoftext|>\ntwo\0three\n")
    assert [post.text for post in load("text", tmp_path / "a.txt", "a").posts] == [
        "one", "two", "three",
    ]  # fmt: skip
