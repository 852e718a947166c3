"""Whatever two people's records are mixed into: nobody's model is trained on the other's."""

import csv
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.gather import Row, gather
from huggingtweets.posts.reading.who import Asked
from huggingtweets.posts.sources.load import load_timeline

NAMES = ("ann_marsh", "bob", "Carla99", "d.example.org", "news_desk", "x_1")
Shape = Callable[[str, dict[str, str]], dict[str, Any]]

SHAPES: list[Shape] = [
    lambda t, p: {
        "text": t,
        "user": {"screen_name": p["handle"], "name": p["name"], "id": p["id"]},
    },
    lambda t, p: {"full_text": t, "user": {"id_str": p["id"], "screen_name": p["handle"]}},
    lambda t, p: {"text": t, "user": {"id": int(p["id"])}},
    lambda t, p: {"text": t, "author_id": p["id"], "edit_history_tweet_ids": []},
    lambda t, p: {
        "text": t,
        "author_id": p["id"],
        "author": {"username": p["handle"], "id": p["id"]},
    },
    lambda t, p: {
        "data": [{"id": str(abs(hash(t)) + 10**9), "text": t, "author_id": p["id"]}],
        "includes": {"users": [{"id": p["id"], "username": p["handle"], "name": p["name"]}]},
    },
    lambda t, p: {"body": t, "verb": "post", "actor": {"preferredUsername": p["handle"]}},
    lambda t, p: {"rawContent": t, "user": {"username": p["handle"], "displayname": p["name"]}},
    lambda t, p: {"content": t, "user": {"_type": "snscrape.User", "username": p["handle"]}},
    lambda t, p: {"tweet": t, "username": p["handle"], "name": p["name"], "user_id": p["id"]},
    lambda t, p: {"text": t, "screenName": p["handle"], "replyToSN": p["other"]},
    lambda t, p: {"text": t, "screen_name": p["handle"], "username": p["name"]},
    lambda t, p: {"text": t, "user_screen_name": p["handle"], "user_name": p["name"]},
    lambda t, p: {"text": t, "from_user": p["handle"], "to_user": p["other"]},
    lambda t, p: {"text": t, "author": p["handle"], "mentions": [p["other"]]},
    lambda t, p: {"text": t, "author": {"handle": p["handle"], "displayName": p["name"]}},
    lambda t, p: {"text": t, "author.username": p["handle"], "author.name": p["name"]},
    lambda t, p: {
        "text": t,
        "user.screen_name": p["handle"],
        "in_reply_to_screen_name": p["other"],
    },
    lambda t, p: {
        "rest_id": "5",
        "legacy": {"full_text": t},
        "core": {"user_results": {"result": {"legacy": {"screen_name": p["handle"]}}}},
    },
    lambda t, p: {
        "content": f"<p>{t}</p>",
        "reblog": None,
        "visibility": "public",
        "account": {"acct": p["handle"], "username": p["handle"], "display_name": p["name"]},
    },
    lambda t, p: {
        "post": {
            "uri": f"at://did:plc:{p['id']}/app.bsky.feed.post/1{abs(hash(t))}",
            "author": {"did": f"did:plc:{p['id']}", "handle": p["handle"]},
            "record": {"text": t},
        }
    },
    lambda t, p: {
        "uri": f"at://did:plc:{p['id']}/app.bsky.feed.post/1{abs(hash(t))}",
        "value": {"$type": "app.bsky.feed.post", "text": t},
    },
    lambda t, p: {
        "text": t,
        "quoted_status": {"text": "no", "user": {"screen_name": p["other"]}},
        "user": {"screen_name": p["handle"]},
    },
    lambda t, p: {"tweet": {"full_text": t, "user": {"screen_name": p["handle"]}}},
    lambda t, p: {"text": t, "author_url": f"https://x.com/{p['handle']}"},
    lambda t, p: {"text": t, "id": "77", "url": f"https://x.com/{p['handle']}/status/77"},
    lambda t, p: {"text": t, "wrote_it": p["handle"]},
    lambda t, p: {"text": t, "name": p["own_name"]},
    lambda t, p: {"text": t, "from": p["handle"], "type": "post"},
    lambda t, p: {"text": t, "Author Handle": p["handle"], "Author Name": p["name"]},
    lambda t, p: {"text": t, "owner": {"username": p["handle"]}},
    lambda t, p: {"text": json.dumps({"text": t, "user": {"screen_name": p["handle"]}})},
]


def mixture(rng: random.Random) -> tuple[dict[str, str], dict[str, str], list[Any], list[str]]:
    """Draw two people, a shape or several for each, and a file of both in any order."""
    first, second = rng.sample(NAMES, 2)
    people = []
    for handle, other in ((first, second), (second, first)):
        name = rng.choice([handle, other, "Same Name", handle.title(), "A B"])
        # Where a display name is all there is, nobody can tell impostors.
        own_name = rng.choice([handle, handle.title(), f"{handle} B"])
        number = str(rng.randrange(10**6))
        people.append(
            {"handle": handle, "other": other, "name": name, "own_name": own_name, "id": number}
        )
    if people[0]["id"] == people[1]["id"]:
        people[1]["id"] += "1"
    shared = rng.sample(SHAPES, rng.choice([1, 1, 2, 3]))
    records: list[Any] = []
    for person in people:
        own = shared if rng.random() < 0.6 else rng.sample(SHAPES, rng.choice([1, 2]))
        for n in range(rng.randint(2, 7)):
            text = f"{person['handle']} says thing number {n} of {rng.randrange(10**6)}"
            record = rng.choice(own)(text, person)
            if (
                "id" not in record
                and "post" not in record
                and "value" not in record
                and rng.random() < 0.7
            ):
                record["id"] = str(10**17 + rng.randrange(10**9))
            records.append(record)
    rng.shuffle(records)
    return people[0], people[1], records, [person["handle"] for person in people]


def write(rng: random.Random, folder: Path, records: list[Any], handle: str) -> Path:
    """Write it in one of the forms of JSON, at times under the name of whom is asked for."""
    stem = handle if rng.random() < 0.2 else "posts"
    form = rng.choice(["lines", "list", "wrapped", "strings"])
    path = folder / f"{stem}.{'jsonl' if form in ('lines', 'strings') else 'json'}"
    if form == "list":
        path.write_text(json.dumps(records))
    elif form == "wrapped":
        path.write_text(json.dumps({rng.choice(["tweets", "statuses", "items"]): records}))
    else:
        lines = [json.dumps(json.dumps(one) if form == "strings" else one) for one in records]
        path.write_text("\n".join(lines) + "\n")
    return path


def flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A record as a row of a table, as pandas' json_normalize has it."""
    row: dict[str, Any] = {}
    for key, value in record.items():
        row |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return row


def write_table(rng: random.Random, folder: Path, records: list[Any], handle: str) -> Path:
    rows = [flat(one) for one in records]
    names = list(dict.fromkeys(key for row in rows for key in row))
    stem = handle if rng.random() < 0.2 else "posts"
    if rng.random() < 0.3:
        table = pa.table({name: [str(row.get(name, "")) for row in rows] for name in names})
        pq.write_table(table, folder / f"{stem}.parquet")
        return folder / f"{stem}.parquet"
    with (folder / f"{stem}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=rng.choice(",;\t"))
        writer.writeheader()
        writer.writerows(rows)
    return folder / f"{stem}.csv"


NUM_SEEDS = 20


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_no_record_of_another_is_taken(tmp_path: Path, seed: int) -> None:
    """2,000 mixtures, each asked for one of the two: a hundred a seed."""
    taken = refused = 0
    for index in range(2000 // NUM_SEEDS):
        rng = random.Random(f"{seed}/{index}")
        person, other, records, _ = mixture(rng)
        is_table = index % 4 == 0 and not any("data" in one or "post" in one for one in records)
        writing = write_table if is_table else write
        path = writing(rng, tmp_path, records, person["handle"].lower())
        kind = SourceKind(path.suffix[1:]) if is_table else SourceKind.jsonl
        source = SourceConfig(kind=kind, path=str(path))
        try:
            timeline = load_timeline(source, person["handle"].lower())
        except SourceError:
            refused += 1
        else:
            strays = [
                t.text for t in timeline.posts if not t.text.startswith(f"{person['handle']} ")
            ]
            assert strays == [], (index, person, other, records)
            taken += len(timeline.posts)
        path.unlink()
    assert taken > 100  # most files give something
    assert refused < 60


def test_numbers_of_many_other_people_are_told_in_linear_time() -> None:
    """Half of a file names its authors, the other half has their numbers alone."""
    num = 4000  # 9 s, when each number was held against all names

    def rows() -> Iterator[Row]:
        for n in range(num):
            user = {"id": str(10**6 + n), "screen_name": f"user_{n}"}
            yield Row({"text": "a", "id": str(10**11 + n), "user": user})
        yield Row({"text": "mine", "user": {"id": "5", "screen_name": "ann"}})
        for n in range(num):
            yield Row({"text": "b", "id": str(10**12 + n), "user": {"id": str(10**7 + n)}})

    start = time.process_time()
    asked = Asked("f", "ann", SourceConfig(kind=SourceKind.jsonl, path="f"))
    assert [post.text for post in gather(asked, rows()).posts] == ["mine"]
    assert time.process_time() - start < 4
