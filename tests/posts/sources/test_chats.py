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
