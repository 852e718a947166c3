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


@pytest.mark.parametrize("line", ["12:0{}\tAnn\they", "[Ann] [오후 3:0{}] hey"])
def test_lines_of_chats(line: str, tmp_path: Path, load: Load) -> None:
    (tmp_path / "ann.txt").write_text("\n".join(line.format(n) for n in range(5)))
    with pytest.raises(SourceError, match=r"got a chat, as .* exports it"):
        load("text", tmp_path / "ann.txt", "ann")


@pytest.mark.parametrize(
    "extra", [{"sender": "ann"}, {"to_user": "bob"}, {"topic": "x"}, {"ts": "1"}]
)
def test_posts_that_share_a_key_with_chats(
    extra: dict[str, str], tmp_path: Path, load: Load
) -> None:
    (tmp_path / "ann.jsonl").write_text(json.dumps({"text": "a post", "user": "ann", **extra}))
    assert len(load("jsonl", tmp_path / "ann.jsonl", "ann").posts) == 1


def test_texts_that_begin_like_lines_of_chats(tmp_path: Path, load: Load) -> None:
    lines = ["[news] [update] all is well", "12:00 noon", "a", "b", "c", "d", "e", "f", "g", "h"]
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
    ],
)
def test_what_was_not_written_as_text_is_refused(
    lines: list[str], what: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=f"{what}.*expected posts, one a line"):
        load("text", tmp_path / "a.txt", "ann_marsh")


def test_texts_for_gpt_2_are_divided(tmp_path: Path, load: Load) -> None:
    (tmp_path / "a.txt").write_text("<|startoftext|>one<|endoftext|>\ntwo<|endoftext|>three\n")
    assert [post.text for post in load("text", tmp_path / "a.txt", "a").posts] == [
        "one", "two", "three",
    ]  # fmt: skip
