"""Whatever lies in a file: a timeline or one `SourceError`, soon, and nothing written."""

import contextlib
import csv
import io
import json
import random
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import HuggingtweetsError, SourceError
from huggingtweets.posts.records import Timeline, read_timelines, write_timelines
from huggingtweets.posts.sources.load import load_timeline

FEW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

KEY_NAMES = (
    "id id_str text full_text user created_at data includes users tweets errors meta tweet "
    "author_id referenced_tweets note_tweet edit_history_tweet_ids retweeted_status edit_info "
    "initial edit editControlInitial editTweetIds screen_name username name type noteTweet core "
    "noteTweetId createdAt result_count is_retweet account email dataTypes files fileName "
    "legacy rest_id user_results result actor preferredUsername verb object to cc orderedItems "
    "attributedTo uri value record facets index byteStart byteEnd features reason columns messages "
    "from_id guild channel content reblog visibility acct retweet_id tweet_type statuses feed post "
    "retweet who source url body handle displayName tweet_results $type published "
    "edges node owner media title creation_timestamp role _json brand nasa esa_x 1 2"
)
KEYS = st.sampled_from(KEY_NAMES.split())
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["NASA", "esa_x", "b'x'", "'x'", "['x']", "&#55357;", "â€™", "<p>x</p>"]),
    st.sampled_from(['{"text": "x"}', "{'text': 'x'}", "\\ud83d", "<U+D83D>", "at://did:a/b/c"]),
    st.sampled_from(["Create", "Announce", "retweet", "x.com/nasa/status/1", "https://x.com/esa"]),
    st.sampled_from(["nasa", "RT @a: b", "1", "2", "retweeted", "<|endoftext|>", "\ud83d", "\0"]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=6)
    ),
    max_leaves=20,
)
JSON_BYTES = VALUES.map(lambda value: json.dumps(value).encode())
PIECES = [
    b"",
    b"[",
    b"]",
    b"{",
    b'{"text": "',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"NaN",
    b"\r",
    b'"',
    b",",
]
LINES = st.one_of(
    JSON_BYTES,
    st.binary(max_size=60),
    st.builds(lambda data, cut: data[:cut], JSON_BYTES, st.integers(0, 40)),
    st.sampled_from(PIECES),
)
FILES = st.builds(b"\n".join, st.lists(LINES, max_size=8))
PREFIXES = st.sampled_from(
    [
        b"",
        b"window.YTD.tweets.part0 = ",
        b"\xef\xbb\xbfwindow.YTD.x = ",
        b"var tweet_index =  ",
        b"==",
    ]
)
MEMBER_NAMES = (
    "tweets.js tweet.js tweets-part1.js note-tweet.js community-tweet.js account.js manifest.js "
    "js/tweets/2012_08.js js/user_details.js like.js direct-messages.js ../tweets.csv"
)
MEMBERS = st.sampled_from(MEMBER_NAMES.split())


def read(kind: str, path: Path, handle: str = "nasa", **config: Any) -> Timeline | None:
    """Load; only a sentence may come instead of a timeline, and a timeline survives its file."""
    try:
        source = SourceConfig(kind=SourceKind(kind), path=str(path), **config)
        timeline = load_timeline(source, handle)
    except HuggingtweetsError as err:
        message = str(err)
    else:
        message = ""
    assert message.isprintable()
    assert len(message) < 1500
    if message:
        return None
    out = path.parent / "out" / "tweets.jsonl.gz"
    write_timelines(out, [timeline])
    assert read_timelines(out) == (timeline,)
    assert len({post.id for post in timeline.posts}) == len(timeline.posts)
    return timeline


def fuzz_files(kind: str, suffix: str) -> Callable[..., None]:
    def check(tmp_path: Path, data: bytes) -> None:
        for name in (f"NASA{suffix}", f"many{suffix}"):
            (tmp_path / name).write_bytes(data)
            read(kind, tmp_path / name)

    return check


@given(data=FILES)
@FEW
def test_json_files(tmp_path: Path, data: bytes) -> None:
    fuzz_files("jsonl", ".jsonl")(tmp_path, data)


@given(data=st.one_of(FILES, st.text(alphabet='text,id"\n\r;1é\0', max_size=80).map(str.encode)))
@FEW
def test_csv_and_text_files(tmp_path: Path, data: bytes) -> None:
    fuzz_files("csv", ".csv")(tmp_path, b"text,user,id,created_at\n" + data)
    fuzz_files("csv", ".csv")(tmp_path, data)
    fuzz_files("text", ".txt")(tmp_path, data)


CSV_CHARS = "text,id\"\n\r;1é\0b'[]<>{}\t\\u"
CSV_HEADS = ("text,user,id,created_at\n", "id;username;text\n", "sep=;\n", "tweets\n", "")


def fuzz_tables(tmp_path: Path, head: str, body: bytes) -> None:
    fuzz_files("csv", ".csv")(tmp_path, head.encode() + body)
    fuzz_files("text", ".txt")(tmp_path, body)


def fuzz_outbox(tmp_path: Path, outbox: bytes, actor: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.writestr("outbox.json", outbox)
        archive.writestr("actor.json", actor)
    read("mastodon_archive", tmp_path / "own.zip")


OUTBOXES = st.one_of(
    FILES, st.lists(VALUES, max_size=5).map(lambda v: json.dumps({"orderedItems": v}).encode())
)


@given(outbox=OUTBOXES, actor=st.one_of(JSON_BYTES, FILES))
@FEW
def test_outboxes(tmp_path: Path, outbox: bytes, actor: bytes) -> None:
    fuzz_outbox(tmp_path, outbox, actor)


CID = b"\x01\x71\x12\x20"
"""Of an entry, with a digest of one repeated byte: links may lead anywhere, also in circles."""
CBOR = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 1 << 40),
        st.binary(max_size=9),
        st.sampled_from([CID + bytes([n]) * 32 for n in range(4)]),
        st.text(st.characters(codec="utf-8"), max_size=9),
        st.sampled_from(["app.bsky.feed.post", "did:plc:" + "a" * 24]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                [
                    "l",
                    "e",
                    "p",
                    "k",
                    "v",
                    "t",
                    "did",
                    "data",
                    "text",
                    "facets",
                    "createdAt",
                    "index",
                ]
            ),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=12,
)


def fuzz_car(tmp_path: Path, commit: Any, blocks: list[Any], cut: int) -> None:
    import libipld

    def section(data: bytes) -> bytes:
        size, prefix = len(data), b""
        while size > 127:
            prefix, size = prefix + bytes([size & 127 | 128]), size >> 7
        return prefix + bytes([size]) + data

    root = CID + b"\x00" * 32
    parts = [section(bytes(libipld.encode_dag_cbor({"roots": [root], "version": 1})))]
    values = [
        {"did": "did:plc:" + "a" * 24, "data": CID + b"\x01" * 32} if commit is None else commit
    ]
    for number, value in enumerate([*values, *blocks]):
        block = bytes(libipld.encode_dag_cbor(value))
        parts.append(section(CID + bytes([number]) * 32 + block))
    data = b"".join(parts)
    (tmp_path / "repo.car").write_bytes(data[: len(data) - cut])
    read("bluesky_archive", tmp_path / "repo.car")


CARS = {
    "commit": st.one_of(st.none(), st.none(), CBOR),
    "blocks": st.lists(CBOR, max_size=3),
    "cut": st.sampled_from([0, 0, 0, 1, 30]),
}


@given(**CARS)
@FEW
def test_repositories(tmp_path: Path, commit: Any, blocks: list[Any], cut: int) -> None:
    fuzz_car(tmp_path, commit, blocks, cut)


def tree(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    return {str(path): path.lstat().st_mtime_ns for path in files if path.parent.name != "out"}


@contextlib.contextmanager
def writes_nothing(folder: Path) -> Iterator[None]:
    """Compare the names and dates under a folder, but for `out`, where the test itself writes."""
    before = tree(folder)
    yield
    assert tree(folder) == before


def fuzz_archive(tmp_path: Path, members: dict[str, bytes], base: str) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(base + name, data)
    with writes_nothing(tmp_path):
        read("x_archive", path)


ARCHIVES = st.dictionaries(MEMBERS, st.builds(bytes.__add__, PREFIXES, FILES), max_size=5)
BASES = st.sampled_from(["", "data/", "top/data/", "../", "/", "a/../b/", "./"])


@given(members=ARCHIVES, base=BASES)
@FEW
def test_archives(tmp_path: Path, members: dict[str, bytes], base: str) -> None:
    fuzz_archive(tmp_path, members, base)


NAMES = st.text(
    alphabet=st.sampled_from("./\\:ab\0\n\ud800é\u202e$~*%"), min_size=1, max_size=20
).filter(lambda name: name.encode("utf-8", "replace").decode() == name)


@given(names=st.lists(NAMES, max_size=5, unique=True))
@FEW
def test_member_names_write_nothing_anywhere(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "in" / "side"
    inner.mkdir(parents=True, exist_ok=True)
    path = inner / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in [
            "data/tweets.js",
            *dict.fromkeys(name.split("\0")[0] or "x" for name in names),
        ]:
            archive.writestr(name, b"window.YTD.tweets.part0 = [ ]")
    monkeypatch.chdir(inner)
    with writes_nothing(tmp_path / "in"):
        read("x_archive", path)


def good_archive() -> bytes:
    posts = [
        {"tweet": {"id_str": str(n), "full_text": f"post {n * 7919}", "created_at": "x"}}
        for n in range(1, 40)
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/tweets.js", "window.YTD.tweets.part0 = " + json.dumps(posts))
        archive.writestr("data/account.js", 'window.x = [{"account": {"username": "NASA"}}]')
    return buffer.getvalue()


GOOD = good_archive()
FLIPS = st.lists(
    st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6
)


def fuzz_flips(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD)
    for position, value in flips:
        data[position] = value
    (tmp_path / "a.zip").write_bytes(data[: len(data) - cut])
    start = time.monotonic()
    read("x_archive", tmp_path / "a.zip")
    assert time.monotonic() - start < 10


@given(flips=FLIPS, cut=st.sampled_from([0, 0, 0, 1, 10, 100]))
@FEW
def test_damaged_zips(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    fuzz_flips(tmp_path, flips, cut)


@pytest.mark.slow
def test_damaged_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "nasa.parquet"
    pq.write_table(pa.table({"text": [f"post {n}" for n in range(500)], "id": range(500)}), path)
    good = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(SourceError):
            load_timeline(SourceConfig(kind=SourceKind.parquet, path=str(path)), "nasa")


def _hostile(folder: Path) -> dict[str, Path]:
    """Large files in few bytes or with much in them, one per kind of trouble."""
    files = {
        name: folder / f"{name}.jsonl" for name in ("deep", "objects", "keys", "quotes", "pretty")
    }
    files["deep"].write_bytes((b'{"text":' + b"[" * 1_000_000 + b"\n") * 20)
    files["objects"].write_bytes(b"[" + b"{}," * 3_000_000)
    keys = ",".join(f'"{number}":{{}}' for number in range(300_000))
    files["keys"].write_text("{" + keys + "}\n" + '{"text": "x"}\n')
    files["quotes"].write_bytes(b'"' * 20_000_000)
    files["pretty"].write_bytes(b'{\n "data": [\n' + b' {"id": "1"},\n' * 1_000_000)
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/tweets.js", b"window.YTD.tweets.part0 = [" + b"{}," * 10_000_000)
    files["bomb"] = folder / "bomb.zip"
    return files


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep", "objects", "keys", "quotes", "pretty", "bomb"])
def test_hostile_files_in_little_memory_and_time(tmp_path: Path, name: str) -> None:
    path = _hostile(tmp_path)[name]
    kind = "x_archive" if path.suffix == ".zip" else "jsonl"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from huggingtweets.config.posts_schema import SourceConfig, SourceKind\n"
        "from huggingtweets.errors import SourceError\n"
        "from huggingtweets.posts.sources.load import load_timeline\n"
        "try: load_timeline(SourceConfig(kind=SourceKind(sys.argv[2]), path=sys.argv[3]), 'nasa')\n"
        "except SourceError: pass\n"
    )
    one_gib = 1 << 30

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (one_gib, one_gib))

    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run(
        [sys.executable, "-c", code, ".", kind, str(path)],
        check=True,
        preexec_fn=limit,
        timeout=600,
    )
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 60  # CPU seconds


@given(rows=st.lists(st.lists(TEXTS, min_size=2, max_size=2), max_size=5))
@FEW
def test_csv_texts_come_back(tmp_path: Path, rows: list[list[str]]) -> None:
    """What Python's writer quotes is read back, but for NULs and lone surrogates."""
    rows = [[str(number), text] for number, (_, text) in enumerate(rows)]
    rows = [row for row in rows if row[1].isprintable()]
    with (tmp_path / "nasa.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *rows])
    timeline = read("csv", tmp_path / "nasa.csv", decode="none")
    assert timeline is not None
    assert [post.text for post in timeline.posts] == [text for _, text in reversed(rows)]


@given(texts=st.lists(st.text(max_size=50), min_size=1, max_size=5))
@FEW
def test_json_texts_come_back(tmp_path: Path, texts: list[str]) -> None:
    lines: list[Any] = [{"id": number, "text": text} for number, text in enumerate(texts)]
    (tmp_path / "nasa.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    timeline = read("jsonl", tmp_path / "nasa.jsonl", decode="none")
    assert timeline is not None
    assert [post.text for post in timeline.posts] == texts[::-1]


# --- Ten thousand inputs for each reader, by a seeded generator: Hypothesis takes longer to draw
# such values (4 to 14 ms each) than the readers to read them (1 to 4 ms).

WORDS = [
    "NASA", "esa_x", "nasa", "b'x'", "'x'", "['x']", "&#55357;", "â€™", "<p>x</p>", '{"text": "x"}',
    "{'text': 'x'}", "\\ud83d", "<U+D83D>", "at://did:a/b/c", "Create", "Announce", "retweet", "\0",
    "x.com/nasa/status/1", "https://x.com/esa", "RT @a: b", "1", "retweeted", "<|endoftext|>", "",
    "\ud83d", "é☕", "[[",
    "caf=C3=A9", "caf+AOk-", "bm9ib2R5IGtub3dzIHRoZQ==", "6e6f626f6479206b6e6f7773", "nasa: hi",
    "public", "direct", "@esa", "2020-01-01T00:00:00Z", "[{\"text\": \"x\"}]",
]  # fmt: skip


def make_value(rng: random.Random, depth: int = 4) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.35:
        plain = [None, True, False, rng.randint(-9, 1 << 60), 1.5, float("nan"), float("inf")]
        return rng.choice(WORDS) if rng.random() < 0.7 else rng.choice(plain)
    if kind < 0.5:
        return [make_value(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    keys = rng.choices([*KEY_NAMES.split(), *WORDS], k=rng.randint(0, 6))
    return {key: make_value(rng, depth - 1) for key in keys}


def make_file(rng: random.Random) -> bytes:
    """Return lines of JSON, some cut, some no JSON at all, at times with bytes changed."""
    lines = []
    for _ in range(rng.randint(0, 8)):
        line = json.dumps(make_value(rng)).encode()
        kind = rng.random()
        if kind < 0.15:
            line = line[: rng.randint(0, 40)]
        elif kind < 0.3:
            line = rng.choice(PIECES)
        elif kind < 0.35:
            line = rng.randbytes(rng.randint(0, 60))
        lines.append(line)
    if rng.random() < 0.1 and lines:
        lines[0] = rng.choice([b"var x = ", b"window.x=", b"f(", b"// x\n"]) + lines[0]
    return change(rng, b"\n".join(lines)) if rng.random() < 0.2 else b"\n".join(lines)


def change(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randint(1, 6) if found else 0):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def some_table(rng: random.Random, folder: Path) -> None:
    body = "".join(rng.choices([*CSV_CHARS, *WORDS], k=rng.randint(0, 120))).encode(
        "utf-8", "replace"
    )
    body = rng.choice([body, make_file(rng), rng.randbytes(rng.randint(0, 60))])
    fuzz_tables(folder, rng.choice(CSV_HEADS), body)


def some_outbox(rng: random.Random, folder: Path) -> None:
    items = [make_value(rng) for _ in range(rng.randint(0, 5))]
    outbox = rng.choice([make_file(rng), json.dumps({"orderedItems": items}).encode()])
    fuzz_outbox(folder, outbox, make_file(rng))


def some_archive(rng: random.Random, folder: Path) -> None:
    prefixes = [b"", b"window.YTD.tweets.part0 = ", b"var tweet_index =  ", b"=="]
    names = rng.choices(MEMBER_NAMES.split(), k=rng.randint(0, 5))
    members = {name: rng.choice(prefixes) + make_file(rng) for name in names}
    fuzz_archive(folder, members, rng.choice(["", "data/", "top/data/", "../", "/", "a/../b/"]))


def make_block(rng: random.Random, depth: int = 3) -> Any:
    if depth == 0 or rng.random() < 0.4:
        cid = CID + bytes([rng.randrange(4)]) * 32
        plain = [
            None,
            True,
            rng.randint(-9, 1 << 40),
            rng.randbytes(3),
            cid,
            cid,
            "app.bsky.feed.post",
        ]
        return rng.choice([*plain, "did:plc:" + "a" * 24, "x"])
    if rng.random() < 0.4:
        return [make_block(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    names = ["l", "e", "p", "k", "v", "t", "did", "data", "text", "facets", "createdAt", "index"]
    return {name: make_block(rng, depth - 1) for name in rng.sample(names, rng.randint(0, 6))}


def some_repository(rng: random.Random, folder: Path) -> None:
    commit = rng.choice([None, None, make_block(rng)])
    blocks = [make_block(rng) for _ in range(rng.randint(0, 3))]
    fuzz_car(folder, commit, blocks, rng.choice([0, 0, 0, 1, 30]))


def some_damage(rng: random.Random, folder: Path) -> None:
    flips = [(rng.randrange(len(GOOD)), rng.randrange(256)) for _ in range(rng.randint(1, 6))]
    fuzz_flips(folder, flips, rng.choice([0, 0, 0, 1, 10, 100]))


READERS: dict[str, Callable[[random.Random, Path], None]] = {
    "json": lambda rng, folder: fuzz_files("jsonl", ".jsonl")(folder, make_file(rng)),
    "tables": some_table,
    "outboxes": some_outbox,
    "archives": some_archive,
    "repositories": some_repository,
    "damaged zips": some_damage,
}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_ten_thousand_inputs(reader: str, tmp_path: Path) -> None:
    for seed in range(10_000):
        start = time.process_time()
        try:
            READERS[reader](random.Random(seed), tmp_path)
            assert time.process_time() - start < 5
        except BaseException as err:
            err.add_note(f"by random.Random({seed})")
            raise
