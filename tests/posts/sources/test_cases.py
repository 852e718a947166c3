"""Files as people have them: what each must give, with inputs of our own making.

A file holds `OWN` posts by ann_marsh and, where it is of two, `THEIRS` by news_desk.
"""

import base64
import csv
import json
import quopri
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.config.posts_schema import CleaningConfig, SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.optout import add_optout
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.load import load_timeline

ANN, DESK = "ann_marsh", "news_desk"
OWN = [f"The heron on pier {n} waits for nobody in particular" for n in range(40)]
THEIRS = [f"Bulletin {n}: the council meets again about the bridge" for n in range(25)]
Rows = list[dict[str, Any]]
Load = Callable[..., Timeline]


def rows(
    own: Callable[[str, int], dict[str, Any]], theirs: Callable[..., Any] | None = None
) -> Rows:
    """Records of both, ids rising; of one person where `theirs` is None."""
    found = [{"id": str(10**18 + n), **own(text, n)} for n, text in enumerate(OWN)]
    if theirs is not None:
        found += [{"id": str(2 * 10**18 + n), **theirs(text, n)} for n, text in enumerate(THEIRS)]
    return found


def by(shape: Callable[[str, str], dict[str, Any]]) -> Rows:
    """Records of two people whose author stands in one shape."""
    return rows(lambda text, n: shape(text, ANN), lambda text, n: shape(text, DESK))


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def write_csv(path: Path, records: Rows, **options: Any) -> Path:
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(key for row in records for key in row)), **options
        )
        writer.writeheader()
        writer.writerows(records)
    return path


def kept(timeline: Timeline) -> list[str]:
    config = CleaningConfig(min_chars=1)
    return sorted(post.text for post in clean_timeline(timeline, config)[0].posts)


# --- Who wrote it

SHAPES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "v1.1": lambda text, who: {"text": text, "user": {"screen_name": who, "name": "A. M."}},
    "v2 flattened": lambda text, who: {
        "text": text,
        "author_id": f"7{who}",
        "author": {"id": f"7{who}", "username": who, "name": who.title()},
    },
    "GNIP": lambda text, who: {
        "body": text,
        "verb": "post",
        "actor": {"preferredUsername": who, "displayName": "X Y"},
    },
    "snscrape": lambda text, who: {
        "rawContent": text,
        "user": {"username": who, "id": 5, "displayname": "X Y"},
        "retweetedTweet": None,
    },
    "web GraphQL": lambda text, who: {
        "rest_id": "1",
        "legacy": {"full_text": text},
        "core": {"user_results": {"result": {"legacy": {"screen_name": who}}}},
    },
    "nested handle": lambda text, who: {"text": text, "author": {"handle": who}},
    "Mastodon": lambda text, who: {
        "content": f"<p>{text}</p>",
        "reblog": None,
        "visibility": "public",
        "account": {"username": who, "acct": who, "display_name": "X Y"},
    },
    "flat": lambda text, who: {"tweet": text, "username": who, "name": "X Y"},
    "twitteR": lambda text, who: {"text": text, "screenName": who, "replyToSN": "NA"},
    "two that qualify": lambda text, who: {
        "text": text,
        "screen_name": who,
        "username": who.replace("_", " "),
    },
    "address of the post": lambda text, who: {
        "text": text,
        "id": "17",
        "url": f"https://x.com/{who}/status/17",
    },
    "address of the person": lambda text, who: {"text": text, "author_url": f"https://x.com/{who}"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_an_author_is_found_in_every_shape(tmp_path: Path, load: Load, name: str) -> None:
    path = write_lines(tmp_path / "posts.jsonl", by(SHAPES[name]))
    if name == "address of the post":  # each has its own id
        records = by(SHAPES["flat"])
        for row in records:
            row["url"] = f"https://x.com/{row.pop('username')}/status/{row['id']}"
            row.pop("name")
        write_lines(path, records)
    assert kept(load("jsonl", path, ANN)) == sorted(OWN)
    assert kept(load("jsonl", path, DESK)) == sorted(THEIRS)
    with pytest.raises(SourceError, match=rf"no post of user nobody_here; .*'{DESK}'"):
        load("jsonl", path, "nobody_here")


ADDRESSES = [
    "https://bsky.app/profile/{}.bsky.social/post/3k{}",
    "https://m.example/@{}/1000{}",
    "https://m.example/users/{}/statuses/1000{}",
    "https://www.threads.net/@{}/post/abc{}",
    "https://www.reddit.com/user/{}/comments/abc{}/",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_whose_a_post_is_stands_in_its_address(tmp_path: Path, load: Load, address: str) -> None:
    """Where the id is another one, nobody can tell that the address is the post's own."""
    pairs = [(ANN, text) for text in OWN] + [(DESK, text) for text in THEIRS]
    records: Rows = [{"url": address.format(who, n), "text": t} for n, (who, t) in enumerate(pairs)]
    assert kept(load("csv", write_csv(tmp_path / "a.csv", records), ANN)) == sorted(OWN)
    path = write_csv(tmp_path / "b.csv", [{"id": n + 500, **row} for n, row in enumerate(records)])
    with pytest.raises(SourceError, match="2 authors by the column 'url'"):
        load("csv", path, ANN)
    assert kept(load("csv", path, ANN, user_column="url")) == sorted(OWN)


def test_addresses_of_what_was_shared_tell_nobody(tmp_path: Path, load: Load) -> None:
    shared = ("https://m.example/@bob/1", f"https://m.example/@{ANN}/2", "https://a.example/b", "")
    path = write_csv(tmp_path / "a.csv", rows(lambda text, n: {"text": text, "url": shared[n % 4]}))
    assert kept(load("csv", path, ANN)) == sorted(OWN)


@pytest.mark.parametrize(
    ("names", "typed"),
    [
        (("Ann Mársh", "The News"), "ann_marsh"),
        (("did:plc:" + "a" * 24, "did:plc:" + "b" * 24), "did.plc." + "a" * 24),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_display_name_is_told_by_the_handle_in_the_message(
    tmp_path: Path, load: Load, names: tuple[str, str], typed: str, kind: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = rows(
        lambda t, n: {"text": t, "BY": names[0]}, lambda t, n: {"text": t, "BY": names[1]}
    )
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        write_csv(path, records)
    else:
        pq.write_table(pa.Table.from_pylist(records), path)
    with pytest.raises(SourceError, match=f"source.user_column=BY .*with user={typed} for "):
        load(kind, path, "someone_else")
    assert kept(load(kind, path, typed, user_column="BY")) == sorted(OWN)


def test_a_name_without_latin_letters_cannot_be_typed(tmp_path: Path, load: Load) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        [{"用户昵称": "张三李四"[n % 2 * 2 :][:2], "text": t} for n, t in enumerate(OWN)],
    )
    with pytest.raises(SourceError, match="user= takes no other letters than English"):
        load("jsonl", path, ANN)


def test_structs_of_parquet_and_dotted_columns_are_the_same(tmp_path: Path, load: Load) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = by(lambda text, who: {"text": text, "user": {"username": who}})
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "posts.parquet")
    assert kept(load("parquet", tmp_path / "posts.parquet", ANN)) == sorted(OWN)
    flat = [
        {"id": row["id"], "text": row["text"], "user.username": row["user"]["username"]}
        for row in records
    ]
    path = write_csv(tmp_path / "posts.csv", flat)
    assert kept(load("csv", path, DESK)) == sorted(THEIRS)
    for kind, file in (("parquet", "posts.parquet"), ("csv", "posts.csv")):
        timeline = load(kind, tmp_path / file, ANN, user_column="user.username")
        assert kept(timeline) == sorted(OWN)


@pytest.mark.parametrize(
    ("own", "theirs", "column"),
    [
        ({"user": {"id": 111}}, {"user": {"id": 222}}, "user.id"),
        ({"author_id": "111"}, {"author_id": "222"}, "author_id"),
        ({"author": "Ann Marsh"}, {"author": "The News"}, "author"),
        ({"name": "Ann Marsh"}, {"name": "The News"}, "name"),
        ({"wrote": ANN}, {"wrote": DESK}, "wrote"),
    ],
    ids=["ids", "author ids", "names", "display names", "an unknown column"],
)
def test_what_cannot_be_told_is_refused_with_column_and_key(
    tmp_path: Path, load: Load, own: dict[str, Any], theirs: dict[str, Any], column: str
) -> None:
    path = write_lines(
        tmp_path / "posts.jsonl",
        rows(lambda text, n: {"text": text, **own}, lambda text, n: {"text": text, **theirs}),
    )
    with pytest.raises(
        SourceError, match=rf"2 authors by the column '{column}'.*source.user_column={column}"
    ):
        load("jsonl", path, ANN)
    assert len(load("jsonl", path, ANN, user_column="").posts) == len(OWN) + len(THEIRS)


def test_an_unknown_column_without_the_handle_is_refused_too(tmp_path: Path, load: Load) -> None:
    path = write_lines(tmp_path / "posts.jsonl", by(lambda text, who: {"text": text, "wrote": who}))
    with pytest.raises(SourceError, match="2 authors by the column 'wrote'"):
        load("jsonl", path, "nobody_here")
    assert kept(load("jsonl", path, ANN, user_column="wrote")) == sorted(OWN)


def test_columns_of_few_words_are_no_authors(tmp_path: Path, load: Load) -> None:
    def row(text: str, n: int) -> dict[str, Any]:
        return {
            "text": text,
            "lang": "en_US" if n % 2 else "en_GB",
            "mood": "glad" if n % 3 else "sad",
            "label": f"class_{n % 4}",
            "emotion": ("joy", "anger", "fear")[n % 3],
            "Split": ("train", "test")[n % 2],
            "stance": ("for", "against")[n % 2],
            "device": ("iPhone", "Android")[n % 2],
            "seen": ("True", "False")[n % 2],
            "quarter": f"Q{n % 4}",
            "page_url": f"https://example.org/{n % 2}",
            "in_reply_to_screen_name": ANN if n % 2 else DESK,
        }

    path = write_csv(tmp_path / "posts.csv", rows(row))
    assert kept(load("csv", path, ANN)) == sorted(OWN)


ODD_COLUMNS = (
    "brand", "player", "team", "politician", "subject_handle", "post_source_handle", "label_user",
    "company", "club", "mp", "rep", "artist", "char", "network", "col3", "member_of_parliament",
    "target", "target_name", "party_account", "outlet",
)  # fmt: skip


@pytest.mark.parametrize("column", ODD_COLUMNS)
@pytest.mark.parametrize(
    ("own", "theirs"),
    [(ANN, DESK), ("@" + ANN, "@" + DESK), ("Ann Marsh", "The News Desk"), ("Nike", "Adidas")],
    ids=["handles", "with @", "display names", "single words"],
)
def test_columns_that_may_be_authors_are_refused(
    tmp_path: Path, load: Load, column: str, own: str, theirs: str
) -> None:
    records = rows(
        lambda text, n: {column: own, "text": text}, lambda text, n: {column: theirs, "text": text}
    )
    path = write_csv(tmp_path / "posts.csv", records)
    key = f"source.user_column={column}"
    with pytest.raises(SourceError, match=rf"2 authors by the column '{column}'.*{key}"):
        load("csv", path, "somebody")
    assert len(load("csv", path, ANN, user_column="").posts) == len(records)


@pytest.mark.parametrize("column", ["author_description", "user_bio", "user.avatar"])
def test_profiles_that_differ_are_of_several_people(
    tmp_path: Path, load: Load, column: str
) -> None:
    records = by(lambda text, who: {column: f"I am {who}, and this is my\nlife", "text": text})
    with pytest.raises(SourceError, match=f"2 authors by the column '{column}'"):
        load("csv", write_csv(tmp_path / "p.csv", records), "somebody")


def test_many_authors_in_an_unknown_column_are_refused_too(tmp_path: Path, load: Load) -> None:
    """A search has nearly as many people as posts."""
    records = rows(lambda text, n: {"found": f"@user_{n}", "text": text})
    with pytest.raises(SourceError, match="40 authors by the column 'found'"):
        load("csv", write_csv(tmp_path / "p.csv", records), ANN)


@pytest.mark.parametrize(
    "record",
    [
        {"authors": [{"username": "{who}"}]},
        {"author": ["{who}"]},
        {"creators": ["{who}"]},
        {"meta": {"author": "{who}"}},
        {"extra": {"blogger": "{who}"}},
        {"status_url": "https://twitter.com/{who}/status/1234567"},
        {"permalink": "/{who}/status/1234567"},
    ],
    ids=lambda record: next(iter(record)),
)
def test_authors_in_lists_deep_objects_and_addresses(
    tmp_path: Path, load: Load, record: dict[str, Any]
) -> None:
    form = json.dumps(record)
    records = by(lambda text, who: {"text": text, **json.loads(form.replace("{who}", who))})
    if "status/" in form:
        records = [{key: row[key] for key in row if key != "id"} for row in records]
    path = write_lines(tmp_path / "p.jsonl", records)
    if record.keys() & {"creators", "extra"}:
        with pytest.raises(SourceError, match="2 authors by the column"):
            load("jsonl", path, ANN)
    else:
        assert kept(load("jsonl", path, ANN)) == sorted(OWN)
    write_lines(path, records[len(OWN) :])
    with pytest.raises(SourceError, match=rf"{DESK}"):
        load("jsonl", path, ANN)


def test_numbers_that_differ_are_not_settled_by_one_that_does_not(
    tmp_path: Path, load: Load
) -> None:
    """A wall of VK has one owner and many who write on it."""
    records = by(lambda text, who: {"text": text, "owner_id": 1, "from_id": len(who) + ord(who[0])})
    with pytest.raises(SourceError, match="2 authors by the column 'from_id'"):
        load("jsonl", write_lines(tmp_path / "p.jsonl", records), ANN)


def test_the_only_author_is_named_where_it_is_another(tmp_path: Path, load: Load) -> None:
    path = write_lines(tmp_path / "p.jsonl", rows(lambda text, n: {"text": text, "username": ANN}))
    with pytest.raises(
        SourceError, match=f"no post of user {DESK}; there is 1 other user.*'{ANN}'.*user={ANN}"
    ):
        load("jsonl", path, DESK)
    # Of one person under a name that is not a handle nothing need be told.
    path = write_lines(
        tmp_path / "q.jsonl", rows(lambda text, n: {"text": text, "name": "Ann Marsh"})
    )
    timeline = load("jsonl", path, ANN)
    assert (kept(timeline), timeline.display_name) == (sorted(OWN), "Ann Marsh")


def test_a_display_name_that_is_the_handle_of_another_deceives_nobody(
    tmp_path: Path, load: Load
) -> None:
    def fake(text: str, n: int) -> dict[str, Any]:
        return {"text": text, "user": {"screen_name": DESK, "name": ANN}}

    def own(text: str, n: int) -> dict[str, Any]:
        return {"text": text, "user": {"screen_name": ANN, "name": "Ann"}}

    path = write_lines(tmp_path / "posts.jsonl", rows(own, fake))
    assert kept(load("jsonl", path, ANN)) == sorted(OWN)
    path = write_lines(tmp_path / "posts.jsonl", rows(own, fake)[len(OWN) :])
    with pytest.raises(SourceError, match="no post of user ann_marsh"):
        load("jsonl", path, ANN)


def test_numbers_are_understood_where_the_file_says_whose_they_are(
    tmp_path: Path, load: Load
) -> None:
    records = by(lambda text, who: {"text": text, "author_id": f"7{len(who)}"})
    records[0]["author"] = {"username": ANN, "id": f"7{len(ANN)}"}
    records[-1]["author"] = {"username": DESK, "id": f"7{len(DESK)}"}
    path = write_lines(tmp_path / "posts.jsonl", records)
    assert len({row["author_id"] for row in records}) == 1  # both names have nine letters
    timeline = load("jsonl", path, ANN)
    assert kept(timeline) == [OWN[0]]
    records = by(lambda text, who: {"text": text, "author_id": f"7{who}"})
    records[0]["author"] = {"username": ANN, "id": f"7{ANN}"}
    assert kept(load("jsonl", write_lines(path, records), ANN)) == sorted(OWN)


def test_people_who_opted_out_are_dropped_wherever_they_appear(tmp_path: Path) -> None:
    optout = str(tmp_path / "optout.txt")
    add_optout(DESK, optout)
    path = write_lines(tmp_path / "posts.jsonl", by(SHAPES["v2 flattened"]))
    source = SourceConfig(kind=SourceKind.jsonl, path=str(path), user_column="")
    timeline = load_timeline(source, ANN, optout)
    assert kept(timeline) == sorted(OWN)
    assert any("25 records of people who want no model" in note for note in timeline.notes)


# --- Is it text


def columns(path: Path, texts: list[str], **more: Any) -> Path:
    return write_csv(
        path, [{"id": 10**18 + n, "text": text, **more} for n, text in enumerate(texts)]
    )


SIGNS = [f"Tea ☕ number {n} at the café – it’s “fine” 😀" for n in range(30)]


def r_escaped(text: str) -> str:
    def one(char: str) -> str:
        code = ord(char)
        return char if code < 128 else f"<U+{code:04X}>" if code < 1 << 16 else f"<U+{code:08X}>"

    return "".join(map(one, text))


def r_bytes(text: str) -> str:
    """As R prints what its locale cannot hold."""
    escaped = ("".join(f"<{byte:02x}>" for byte in char.encode()) for char in text)
    return "".join(c if c.isascii() else e for c, e in zip(text, escaped, strict=True))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("bytes", lambda text: repr((text + "\nbye").encode())),
        ("double quotes", lambda text: 'b"' + repr(text.encode())[2:-1].replace('"', r"\"") + '"'),
        ("str", lambda text: ascii(text + "\nbye")),
        ("JSON", lambda text: json.dumps(text + "\nbye")),
        ("list", lambda text: repr([text])),
        ("pieces", lambda text: f'{{"text":{json.dumps(text)}}},{{"text":"\\n"}},{{"text":"bye"}}'),
        ("list of bytes", lambda text: repr([text.encode()])),
        ("escapes", lambda text: json.dumps(text)[1:-1].replace(r"\"", '"')),
        ("R", r_escaped),
        ("R's bytes", r_bytes),
        ("cp1252", lambda text: text.replace("”", "").encode().decode("cp1252", "ignore")),
        ("latin-1", lambda text: text.encode().decode("latin-1")),
        ("twice", lambda text: text.encode().decode("latin-1").encode().decode("latin-1")),
        ("HTML", lambda text: f"<p>{text}</p><p>bye</p>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_encoded_texts_are_decoded_and_told(
    tmp_path: Path, load: Load, name: str, spoil: Callable[[str], str]
) -> None:
    timeline = load("csv", columns(tmp_path / "p.csv", [spoil(text) for text in SIGNS]), ANN)
    wanted = [text.replace("”", "") if name == "cp1252" else text for text in SIGNS]
    got = [post.text.removesuffix("bye").strip() for post in reversed(timeline.posts)]
    assert [text.replace("”", "") if name == "cp1252" else text for text in got] == wanted
    assert any("were decoded" in note for note in timeline.notes)
    plain = load("csv", columns(tmp_path / "q.csv", SIGNS), ANN)
    assert plain.notes == ()
    assert [post.text for post in reversed(plain.posts)] == SIGNS


def wrapped64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.encode("utf-7").decode(), r"UTF-7 .*source.encoding=utf-7"),
        (lambda text: quopri.encodestring(text.encode()).decode(), "quoted-printable .*decode the"),
        (wrapped64, "base64 or hexadecimal digits.*decode the file before"),
        (lambda text: wrapped64(text).replace("+", "-").replace("/", "_").rstrip("="), "base64"),
        (lambda text: text.encode().hex(), "base64 or hexadecimal digits"),
    ],
    ids=["UTF-7", "quoted-printable", "base64", "base64 for addresses", "hex"],
)
def test_what_programs_of_mail_write_is_refused(
    tmp_path: Path, load: Load, spoil: Callable[[str], str], said: str
) -> None:
    path = columns(tmp_path / "p.csv", [spoil(text) for text in SIGNS])
    with pytest.raises(SourceError, match=rf"got 30 of 30 posts that look like {said}"):
        load("csv", path, ANN)
    assert len(load("csv", path, ANN, decode="none").posts) == 30


def test_utf7_is_read_by_its_key_and_japanese_mail_without(tmp_path: Path, load: Load) -> None:
    (tmp_path / "p.txt").write_bytes("\n".join(SIGNS).encode("utf-7"))
    assert kept(load("text", tmp_path / "p.txt", ANN, encoding="utf-7")) == sorted(SIGNS)
    texts = [f"今日も池は静かです。{n}日目" for n in range(20)]
    (tmp_path / "p.txt").write_bytes("\n".join(texts).encode("iso2022_jp"))
    assert kept(load("text", tmp_path / "p.txt", ANN)) == sorted(texts)


@pytest.mark.parametrize(
    "text",
    [
        "It’s day {} at the pond — don’t say “calm”… it’s not",
        "Señor {} canción mañana el niño soñó",
        "Für {} Äpfel müsste man schön groß sein",
        "Voilà, c’est l’été à Besançon, numéro {}",
    ],
    ids=["English", "Spanish", "German", "French"],
)
def test_files_of_old_macs_are_not_taken_for_windows(tmp_path: Path, load: Load, text: str) -> None:
    texts = [text.format(n) for n in range(30)]
    (tmp_path / "p.txt").write_bytes("\n".join(texts).encode("mac_roman"))
    with pytest.raises(SourceError, match=r"30 lines that are not UTF-8; .*mac_roman"):
        load("text", tmp_path / "p.txt", ANN)
    assert kept(load("text", tmp_path / "p.txt", ANN, encoding="mac_roman")) == sorted(texts)
    (tmp_path / "p.txt").write_bytes("\n".join(texts).encode("cp1252"))
    assert kept(load("text", tmp_path / "p.txt", ANN)) == sorted(texts)


def test_plus_signs_and_equations_are_no_encoding(tmp_path: Path, load: Load) -> None:
    texts = [f"C++ and Google+App, +Ben, x=42, 1+1=2, +100 to all {n}" for n in range(30)]
    assert kept(load("csv", columns(tmp_path / "p.csv", texts), ANN)) == sorted(texts)


def test_a_few_posts_that_look_encoded_are_left_and_many_are_asked_about(
    tmp_path: Path, load: Load
) -> None:
    texts = [*OWN, "b'who prints bytes'"]
    assert kept(load("csv", columns(tmp_path / "p.csv", texts), ANN)) == sorted(texts)
    texts = [*OWN, *(f"b'bytes number {n} of them'" for n in range(9))]
    path = columns(tmp_path / "q.csv", texts)
    with pytest.raises(
        SourceError, match=r"9 of 49 posts .*source.decode=bytes .*source.decode=none"
    ):
        load("csv", path, ANN)
    assert "bytes number 1 of them" in kept(load("csv", path, ANN, decode="bytes"))
    assert "b'bytes number 1 of them'" in kept(load("csv", path, ANN, decode="none"))


def test_retweets_are_known_behind_what_was_encoded(tmp_path: Path, load: Load) -> None:
    texts = [repr(text.encode()) for text in OWN] + [
        repr(f"RT @x: {text}".encode()) for text in THEIRS
    ]
    assert kept(load("csv", columns(tmp_path / "p.csv", texts), ANN)) == sorted(OWN)


def test_people_fond_of_quotations_are_left_alone(tmp_path: Path, load: Load) -> None:
    texts = [f'"{text}"' if n % 3 else text for n, text in enumerate(OWN)]
    assert kept(load("csv", columns(tmp_path / "p.csv", texts), ANN)) == sorted(texts)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_of_windows(tmp_path: Path, load: Load, encoding: str) -> None:
    text = "id;text\r\n" + "".join(f"{n};{text}\r\n" for n, text in enumerate(SIGNS))
    (tmp_path / "p.csv").write_bytes(text.encode(encoding))
    assert kept(load("csv", tmp_path / "p.csv", ANN)) == sorted(SIGNS)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "text"])
def test_western_windows_is_read_and_told_and_others_asked_about(
    tmp_path: Path, load: Load, kind: str
) -> None:
    western = [f"Le café n° {n} — où l’été s’en va, déjà" for n in range(20)]
    cyrillic = [f"Привет, это запись номер {n} о мосте" for n in range(20)]
    form: dict[str, Callable[[str], str]] = {
        "csv": str,
        "jsonl": lambda text: json.dumps({"text": text}, ensure_ascii=False),
        "text": str,
    }

    def write(texts: list[str], encoding: str, more: bytes = b"") -> Path:
        lines = (["text"] if kind == "csv" else []) + [form[kind](text) for text in texts]
        lines = [f'"{line}"' if kind == "csv" else line for line in lines]
        path = tmp_path / f"p.{ {'csv': 'csv', 'jsonl': 'jsonl', 'text': 'txt'}[kind] }"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding) + more)
        return path

    timeline = load(kind, write(western, "cp1252"), ANN)
    assert kept(timeline) == sorted(western)
    assert any("read as cp1252" in note for note in timeline.notes)
    with pytest.raises(SourceError, match=r"20 lines that are not UTF-8; .*source.encoding="):
        load(kind, write(cyrillic, "cp1251"), ANN)
    assert kept(load(kind, write(cyrillic, "cp1251"), ANN, encoding="cp1251")) == sorted(cyrillic)
    mixed = "".join(form[kind](f"déjà {n} fois ça") + "\n" for n in range(5)).encode()
    with pytest.raises(SourceError, match=r"beside 5 that are; .*source.encoding="):
        load(kind, write(western, "cp1252", mixed), ANN)


# --- CSV


def test_a_stray_quote_swallows_no_rows(tmp_path: Path, load: Load) -> None:
    lines = [f"{10**17 + n},2020-01-02 10:00:00,{text}" for n, text in enumerate(OWN)]
    for number in (7, 8, 30):
        lines[number] = lines[number].replace(",The", ',"The')
    lines[20] = (
        lines[20]
        .replace("The heron", '"The ""heron""')
        .replace("particular", 'particular\nand two lines"')
    )
    (tmp_path / "p.csv").write_text("\n".join(["id,created_at,text", *lines]) + "\n")
    timeline = load("csv", tmp_path / "p.csv", ANN)
    texts = {post.text for post in timeline.posts}
    assert len(timeline.posts) == len(OWN)
    assert texts >= set(OWN) - {OWN[20]}
    assert 'The "heron" on pier 20 waits for nobody in particular\nand two lines' in texts
    assert timeline.notes == (
        "p.csv: 3 rows are not CSV (a quote that does not close) and were read without quotes "
        "(first: line 9)",
    )


def test_texts_of_many_lines_with_separators_stay_whole(tmp_path: Path, load: Load) -> None:
    texts = [f'one, {n}\n2, two\n3, "three"\n{n},2020-01-01 is a date, too' for n in range(10)]
    assert sorted(
        t.text for t in load("csv", columns(tmp_path / "p.csv", texts), ANN).posts
    ) == sorted(texts)


@pytest.mark.parametrize("header", ["tweets", "Tweet text", "anything", None])
def test_one_column_alone_is_the_text(tmp_path: Path, load: Load, header: str | None) -> None:
    lines = ([header] if header else []) + [f'"{text}"' for text in OWN]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    assert kept(load("csv", tmp_path / "p.csv", ANN)) == sorted(OWN)
    (tmp_path / "p.csv").write_bytes("\r\r\n".join(lines).encode())
    assert kept(load("csv", tmp_path / "p.csv", ANN)) == sorted(OWN)


def test_excels_own_line_is_no_header(tmp_path: Path, load: Load) -> None:
    (tmp_path / "p.csv").write_text("sep=;\nid;username;text\n" + f"1;{ANN};a, b, c\n2;{DESK};no\n")
    assert kept(load("csv", tmp_path / "p.csv", ANN)) == ["a, b, c"]


# --- Wrapped and nested files

PLAIN = [{"id": str(10**17 + n), "text": text} for n, text in enumerate(OWN)]
WRAPPED = {
    **{
        key: {key: PLAIN} for key in ("tweets", "statuses", "data", "posts", "items", "my_own_list")
    },
    "with more": {
        "version": 2,
        "meta": {"count": 40},
        "tweets": PLAIN,
        "users": [{"id": "1", "name": "x"}],
    },
    "a value each": {
        "records": [
            {
                "uri": f"at://did:plc:x/app.bsky.feed.post/{row['id']}",
                "cid": "c",
                "value": {"$type": "app.bsky.feed.post", "text": row["text"]},
            }
            for row in PLAIN
        ]
    },
    "a feed": {
        "feed": [
            {
                "post": {
                    "uri": f"at://did:plc:x/app.bsky.feed.post/{row['id']}",
                    "author": {"handle": ANN, "did": "did:plc:x"},
                    "record": {"text": row["text"]},
                }
            }
            for row in PLAIN
        ]
    },
    "by id": {row["id"]: {"text": row["text"]} for row in PLAIN},
    "pandas by column": {
        key: {str(n): row[key] for n, row in enumerate(PLAIN)} for key in ("id", "text")
    },
    "pandas split": {
        "columns": ["id", "text"],
        "index": list(range(40)),
        "data": [[r["id"], r["text"]] for r in PLAIN],
    },
    "pandas table": {
        "schema": {"fields": []},
        "data": [{"index": n, **row} for n, row in enumerate(PLAIN)],
    },
    "a list of texts of JSON": [json.dumps(row) for row in PLAIN],
    "archive entries": {
        "tweets": [{"tweet": {"id_str": row["id"], "full_text": row["text"]}} for row in PLAIN]
    },
    "wrapped twice": {"response": {"tweets": PLAIN}, "ok": True},
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_under_one_key(tmp_path: Path, load: Load, name: str, indent: int | None) -> None:
    (tmp_path / "p.json").write_text(json.dumps(WRAPPED[name], indent=indent))
    timeline = load("jsonl", tmp_path / "p.json", ANN)
    assert kept(timeline) == sorted(OWN)
    assert [post.id for post in timeline.posts] == [row["id"] for row in reversed(PLAIN)]


def nodes(records: Rows) -> dict[str, Any]:
    return {"edges": [{"node": record} for record in records], "pageInfo": {}}


FLAT = by(lambda text, who: {"text": text, "user": who})
BY_TEXT: dict[str, Any] = {
    "edges": nodes(FLAT),
    "edges deep inside": {"data": {"user": {"edge_owner_to_timeline_media": nodes(FLAT)}}},
    "captions of Instagram": {
        "data": nodes(
            [
                {
                    "edge_media_to_caption": nodes([{"text": row["text"]}]),
                    "owner": {"username": row["user"]},
                }
                for row in FLAT
            ]
        )
    },
    "lists by handle": {ANN: OWN, DESK: THEIRS},
    "objects by handle": {"@Ann_Marsh": PLAIN, DESK: [{"text": text} for text in THEIRS]},
    "lists inside by handle": {ANN: {"tweets": OWN, "n": 3}, DESK: {"tweets": THEIRS, "n": 2}},
    "a post by handle": {ANN: {"text": OWN[0]}, DESK: {"text": THEIRS[0]}},
    "whose first, then the list": [
        {"username": ANN, "tweets": OWN},
        {"username": DESK, "tweets": THEIRS},
    ],
    "a series of pandas": {str(n): text for n, text in enumerate(OWN)},
    "Threads": {
        "text_post_app_text_posts": [
            {"media": [{"creation_timestamp": 1_660_000_000 + n, "title": text}]}
            for n, text in enumerate(OWN)
        ]
    },
    "Instagram's own": [
        {"media": [{"creation_timestamp": 1_660_000_000, "title": ""}], "title": text}
        for text in OWN
    ],
    "Facebook": [{"timestamp": 1_660_000_000, "data": [{"post": text}]} for text in OWN],
    "a list of a list": [FLAT],
    "tweets by id": {"tweets": {row["id"]: {**row, "id": None} for row in FLAT}},
    "JSON:API": {"data": [{"id": row["id"], "attributes": row} for row in FLAT]},
    "a list under each author": [{"user": ANN, "text": OWN}, {"user": DESK, "text": THEIRS}],
    "JSON Feed": {"version": "1.1", "items": [{"id": "a", "content_text": text} for text in OWN]},
    "Misskey": [
        {"text": text, "user": {"username": ANN}, "visibility": visibility}
        for texts, visibility in ((OWN, "public"), (THEIRS, "specified"))
        for text in texts
    ],
    "a printed author": [{**row, "user": repr({"username": row["user"], "id": 1})} for row in FLAT],
}


@pytest.mark.parametrize("name", BY_TEXT)
def test_shapes_that_people_have(tmp_path: Path, load: Load, name: str) -> None:
    path = write_json(tmp_path / "p.json", BY_TEXT[name])
    assert kept(load("jsonl", path, ANN)) == sorted(OWN[:1] if name == "a post by handle" else OWN)


@pytest.mark.parametrize("posts", [THEIRS, [{"text": text} for text in THEIRS]])
def test_a_list_under_another_key_is_refused_with_the_key(
    tmp_path: Path, load: Load, posts: list[Any]
) -> None:
    path = write_json(tmp_path / "p.json", {"bob_y": posts})
    with pytest.raises(SourceError, match="list under the key 'bob_y', and nothing says whose"):
        load("jsonl", path, ANN)
    assert len(load("jsonl", path, "bob_y").posts) == len(THEIRS)
    assert len(load("jsonl", path, ANN, user_column="").posts) == len(THEIRS)


@pytest.mark.parametrize("orient", ["values", "pairs"])
def test_rows_without_names_of_columns_are_refused(tmp_path: Path, load: Load, orient: str) -> None:
    keys = ("user", "text") if orient == "pairs" else ("id", "user", "text")
    path = write_json(tmp_path / "p.json", [[row[key] for key in keys] for row in FLAT])
    with pytest.raises(SourceError, match="a table without names of its columns"):
        load("jsonl", path, ANN)


@pytest.mark.parametrize("name", ["posts.js", "posts.json"])
def test_lists_assigned_in_javascript_are_read(tmp_path: Path, load: Load, name: str) -> None:
    (tmp_path / name).write_text(f"var posts = {json.dumps(FLAT)};\n")
    assert kept(load("jsonl", tmp_path / name, ANN)) == sorted(OWN)


def test_a_table_that_was_grouped_by_author(tmp_path: Path, load: Load) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = [{"user": ANN, "text": OWN}, {"user": DESK, "text": THEIRS}]
    pq.write_table(pa.Table.from_pylist(groups), tmp_path / "p.parquet")
    assert kept(load("parquet", tmp_path / "p.parquet", ANN)) == sorted(OWN)


def test_objects_printed_by_python_are_read(tmp_path: Path, load: Load) -> None:
    (tmp_path / "p.jsonl").write_text("\n".join(map(repr, FLAT)))
    assert kept(load("jsonl", tmp_path / "p.jsonl", ANN)) == sorted(OWN)


def test_other_files_of_an_archive_from_x_are_not_read_as_json(tmp_path: Path, load: Load) -> None:
    likes = [{"tweet": {"fullText": text}} for text in THEIRS]
    (tmp_path / "like.js").write_text(f"window.YTD.like.part0 = {json.dumps(likes)}")
    with pytest.raises(SourceError, match="expected source=x_archive"):
        load("jsonl", tmp_path / "like.js", ANN)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "text"])
@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("p.xlsx", b"PK\x03\x04" + b"x" * 50, "a zip archive or a file of Excel"),
        ("p.db", b"SQLite format 3\0" + b"text" * 50, "a database of SQLite"),
        ("p.pdf", b"%PDF-1.7\n" + b"text\n" * 50, "a PDF"),
        ("p.csv.xz", b"\xfd7zXZ\0" + b"text" * 50, "a file packed by xz"),
    ],
)
def test_files_that_are_no_text_are_named(
    tmp_path: Path, load: Load, kind: str, name: str, data: bytes, what: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=f"got {what}; expected text"):
        load(kind, tmp_path / name, ANN)


def test_json_in_json(tmp_path: Path, load: Load) -> None:
    records = by(SHAPES["v1.1"])
    path = write_csv(tmp_path / "p.csv", [{"_json": json.dumps(row)} for row in records])
    assert kept(load("csv", path, ANN)) == sorted(OWN)
    path = write_lines(tmp_path / "p.jsonl", [json.dumps(row) for row in records])
    assert kept(load("jsonl", path, ANN)) == sorted(OWN)
    for form in (json.dumps, repr):
        table = [{"n": n, "tweet": form(row)} for n, row in enumerate(records)]
        assert kept(load("csv", write_csv(tmp_path / "p.csv", table), DESK)) == sorted(THEIRS)


def test_two_lists_of_posts_are_asked_about(tmp_path: Path, load: Load) -> None:
    path = write_json(tmp_path / "p.json", {"mine": PLAIN, "yours": PLAIN})
    with pytest.raises(SourceError, match="several lists that may be posts"):
        load("jsonl", path, ANN)


@pytest.mark.parametrize("ids", [[7] * 40, [*range(20)] * 2, [10**17 + n // 2 for n in range(40)]])
def test_ids_that_are_not_the_posts_own_drop_nothing(
    ids: list[int], tmp_path: Path, load: Load
) -> None:
    records = [{"id": number, "text": text} for number, text in zip(ids, OWN, strict=True)]
    timeline = load("jsonl", write_lines(tmp_path / "p.jsonl", records), ANN)
    assert kept(timeline) == sorted(OWN)
    assert f"40 posts have {len({*ids})} ids, which are not theirs" in timeline.notes[0]


def test_a_post_that_came_whole_and_cut_off_counts_once(tmp_path: Path, load: Load) -> None:
    whole = "so many words on the pond that no old program showed all of them"
    both = [{"id": 10**17, "text": whole}, {"id": 10**17, "text": whole[:50] + "…"}]
    timeline = load("jsonl", write_lines(tmp_path / "p.jsonl", both), ANN)
    assert [post.text for post in timeline.posts] == [whole]


# --- Is it theirs


def test_hydrators_retweets_beside_the_originals_text(tmp_path: Path, load: Load) -> None:
    records = rows(
        lambda text, n: {
            "text": text,
            "user_screen_name": ANN,
            "user_name": "Ann",
            "retweet_id": "",
        },
        lambda text, n: {
            "text": text,
            "user_screen_name": ANN,
            "user_name": "Ann",
            "retweet_id": 10**18,
        },
    )
    timeline = load("csv", write_csv(tmp_path / "p.csv", records), ANN)
    assert kept(timeline) == sorted(OWN)


def test_own_words_of_quotes_and_replies_stay_and_theirs_do_not(tmp_path: Path, load: Load) -> None:
    records = rows(
        lambda text, n: {
            "text": text,
            "author": {"username": ANN},
            "referenced_tweets": [{"type": "quoted" if n % 2 else "replied_to", "id": "5"}],
            "quoted_tweet": {"text": "theirs", "author": {"username": DESK}},
            "in_reply_to_user": {"username": DESK},
        }
    )
    path = write_lines(tmp_path / "p.jsonl", records)
    assert kept(load("jsonl", path, ANN)) == sorted(OWN)
    with pytest.raises(SourceError, match="no post of user news_desk"):
        load("jsonl", path, DESK)


def test_marks_that_are_only_absent_leave_it_to_the_prefix(tmp_path: Path, load: Load) -> None:
    """A dump of v1.1 without `retweeted_status`: what begins with `RT @` is a retweet."""
    records = rows(
        (lambda text, n: {"text": text, "user": {"screen_name": ANN}}),
        lambda text, n: {"text": f"RT @x: {text}", "user": {"screen_name": ANN}},
    )
    path = write_lines(tmp_path / "p.jsonl", records)
    assert kept(load("jsonl", path, ANN)) == sorted(OWN)


# --- Chats

CHATS = {
    "WhatsApp, brackets": "\u200e[12/05/2022, 10:15:{n:02}] {who}: {text}",
    "WhatsApp, dash": "12/05/22, 10:15 - {who}: {text}",
    "WhatsApp, 12 hours": "5/12/22, 1:{n:02} PM - {who}: {text}",
    "WhatsApp, German": "12.05.22, 10:15 - {who}: {text}",
    "Signal": "[2022-05-12 10:15:{n:02}] {who}: {text}",
    "Telegram": "{who}, [12.05.2022 10:15]\n{text}",
    "Discord": "[12-May-22 10:15 AM] {who}#1234\n{text}\n",
    "IRC": "[10:15] <{who}> {text}",
}


@pytest.mark.parametrize("name", CHATS)
def test_chats_as_text_are_refused(tmp_path: Path, load: Load, name: str) -> None:
    lines = [
        CHATS[name].format(n=n, who=("Ann", "Bob B")[n % 2], text=t) for n, t in enumerate(OWN)
    ]
    (tmp_path / "chat.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(
        SourceError, match=r"got a chat.*other people's private words.*your own lines"
    ):
        load("text", tmp_path / "chat.txt", ANN)


JSON_CHATS: dict[str, Any] = {
    "Telegram": {
        "name": "Bob",
        "type": "personal_chat",
        "id": 1,
        "messages": [
            {"id": 1, "type": "message", "from": "Bob", "from_id": "user1", "text": "hi there you"}
        ],
    },
    "Discord": {
        "guild": {"id": "1"},
        "channel": {"id": "2"},
        "messages": [{"id": "1", "author": {"name": "bob"}, "content": "hi there you"}],
    },
    "Signal": {"conversationId": "x", "sent_at": 1, "type": "incoming", "body": "hi there you"},
    "Messenger": {
        "participants": [{"name": "Bob"}],
        "messages": [{"sender_name": "Bob", "content": "hi"}],
    },
    "X": [{"dmConversation": {"conversationId": "1-2", "messages": []}}],
}


@pytest.mark.parametrize("name", JSON_CHATS)
def test_chats_as_json_are_refused(tmp_path: Path, load: Load, name: str) -> None:
    path = write_json(tmp_path / "result.json", JSON_CHATS[name])
    with pytest.raises(SourceError, match=r"got a chat, as .* exports it"):
        load("jsonl", path, ANN)


def test_posts_with_times_in_them_are_no_chat(tmp_path: Path, load: Load) -> None:
    texts = [f"At 10:{n:02} the bus said: not in service, 12/05/2022" for n in range(40)]
    (tmp_path / "p.txt").write_text("\n".join(texts))
    assert kept(load("text", tmp_path / "p.txt", ANN)) == sorted(texts)


@pytest.mark.parametrize("form", ["{who}: {text}", "@{who}: {text}", "{who}\t{text}"])
def test_lines_that_begin_with_names_are_refused(tmp_path: Path, load: Load, form: str) -> None:
    lines = [
        form.format(who=who, text=text)
        for who, texts in ((ANN, OWN), (DESK, THEIRS))
        for text in texts
    ]
    (tmp_path / "p.txt").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=r"lines with names .*source.user_column= \(empty\)"):
        load("text", tmp_path / "p.txt", ANN)
    assert len(load("text", tmp_path / "p.txt", ANN, user_column="").posts) == len(lines)


def test_retweets_at_the_beginning_of_lines_are_no_names(tmp_path: Path, load: Load) -> None:
    lines = [f"RT @{(ANN, DESK)[n % 2]}: {text}" for n, text in enumerate(OWN)]
    (tmp_path / "p.txt").write_text("\n".join(lines))
    assert len(load("text", tmp_path / "p.txt", ANN).posts) == len(OWN)


def test_pages_of_the_web_and_talks_with_a_model_are_refused(tmp_path: Path, load: Load) -> None:
    (tmp_path / "messages.html").write_text("<!DOCTYPE html>\n<html><body>" + "x" * 9999)
    with pytest.raises(SourceError, match="got a page of the web"):
        load("text", tmp_path / "messages.html", ANN)
    talk = [{"role": "user", "content": "write a post"}, {"role": "assistant", "content": OWN[0]}]
    path = write_lines(tmp_path / "p.jsonl", [{"messages": talk}])
    with pytest.raises(SourceError, match="got a chat, as a language model exports it"):
        load("jsonl", path, ANN)


@pytest.mark.parametrize("form", ["list", "wrapped", "indented", "strings"])
def test_a_list_of_another_encoding_on_one_line_loses_no_letters(
    form: str, tmp_path: Path, load: Load
) -> None:
    def write(texts: list[str], encoding: str) -> Path:
        rows: Any = (
            texts if form == "strings" else [{"id": n, "text": t} for n, t in enumerate(texts)]
        )
        value = {"tweets": rows} if form == "wrapped" else rows
        text = json.dumps(value, ensure_ascii=False, indent=1 if form == "indented" else None)
        (tmp_path / "p.json").write_bytes(text.encode(encoding))
        return tmp_path / "p.json"

    western = [f"Zoë wrote “déjà vu” at the café, day {n}" for n in range(9)]
    assert kept(load("jsonl", write(western, "cp1252"), ANN)) == sorted(western)
    with pytest.raises(SourceError, match=r"9 lines that are not UTF-8; .*source.encoding="):
        load("jsonl", write([f"Сегодня пруд серый и широкий {n}" for n in range(9)], "cp1251"), ANN)


def test_damage_amid_a_document_is_left_out_and_told(tmp_path: Path, load: Load) -> None:
    rows = json.dumps([{"text": f"déjà vu, day {n}"} for n in range(300)], ensure_ascii=False)
    data = rows.encode().replace('déjà vu, day 7"'.encode(), "déj".encode() + b'\xe9 7"')
    (tmp_path / "p.json").write_bytes(data)
    timeline = load("jsonl", tmp_path / "p.json", ANN)
    assert len(timeline.posts) == 299
    assert any("1 skipped: not UTF-8" in note for note in timeline.notes)
