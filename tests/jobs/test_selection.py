import logging
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import SelectionError
from huggingtweets.handles import Job
from huggingtweets.jobs.selection import quote_user, select_jobs

PARSER = OverridesParser.create()


def slugs(jobs: list[Job]) -> list[str]:
    return [job.slug for job in jobs]


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(SelectionError) as caught:
        select_jobs(*args, **kwargs)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users.txt"
    path.write_text("# people\nkarpathy\n@L2K  # spaces and case\n\nalice bob\ncarol, dave,erin\n")
    return path


# --- the table of user= ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "user", ["karpathy", "@Karpathy", "KARPATHY", ["karpathy"], ("@karpathy",)]
)
def test_select_one_handle_is_one_job(user: object) -> None:
    assert select_jobs(user) == [Job(("karpathy",))]


def test_select_a_list_is_one_combined_job() -> None:
    assert slugs(select_jobs(["l2k", "karpathy"])) == ["karpathy-l2k"]


def test_select_a_list_merges_repeats_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert select_jobs(["b", "@A", "a"]) == [Job(("a", "b"))]
    assert "named twice" in caplog.text


def test_select_a_file_is_one_job_a_line(users: Path) -> None:
    assert slugs(select_jobs(f"file:{users}")) == [
        "karpathy",
        "l2k",
        "alice-bob",
        "carol-dave-erin",
    ]


def test_select_reads_a_file_relative_to_the_working_folder(
    users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(users.parent)
    assert len(select_jobs("file:users.txt")) == 4


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfalice\r\nbob\r\n",
        b"alice\rbob",
        "alice\nbob\n".encode("utf-16"),
        b"alice\nbob # caf\xe9\n",
        b"\n\n  alice\t\n,bob,\n#\n",
        b"alice\nbob\n@ALICE\nBob # again\n",
    ],
    ids=["bom-crlf", "cr", "utf-16", "latin-1-comment", "blanks", "repeats"],
)
def test_select_reads_users_files_as_editors_write_them(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "users.txt"
    path.write_bytes(data)
    assert slugs(select_jobs(f"file:{path}")) == ["alice", "bob"]


def test_select_merges_repeated_lines_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "users.txt"
    path.write_text("a\nb c\n\nA\nc @B\n")
    with caplog.at_level(logging.WARNING):
        assert slugs(select_jobs(f"file:{path}")) == ["a", "b-c"]
    assert "2 line(s)" in caplog.text
    assert "line 4 repeats line 1, line 5 repeats line 2" in caplog.text


def test_select_shards_are_disjoint_and_complete(users: Path) -> None:
    parts = [slugs(select_jobs(f"file:{users}", shard=f"{index}/3")) for index in range(3)]
    assert sorted(slug for part in parts for slug in part) == sorted(
        slugs(select_jobs(f"file:{users}"))
    )
    assert all(parts)


def test_select_more_shards_than_jobs_leaves_some_empty(users: Path) -> None:
    assert [len(select_jobs(f"file:{users}", f"{index}/6")) for index in range(6)] == [
        1,
        1,
        1,
        1,
        0,
        0,
    ]


def test_select_shards_stay_disjoint_and_complete_while_posts_change(tmp_path: Path) -> None:
    """Tasks of an array start hours apart: posts are imported, and a disk fails for a moment."""
    path, posts = tmp_path / "users.txt", tmp_path / "posts"
    names = [f"u{number:02}" for number in range(40)]
    path.write_text("\n".join(names))
    posts.mkdir()
    for number, handle in enumerate(names):
        (posts / f"{handle}.jsonl").write_bytes(b"x" * (1_000 + 99 * number))
    source = SourceConfig(kind=SourceKind.jsonl, path=str(posts))

    def shard(index: int) -> list[str]:
        return slugs(select_jobs(f"file:{path}", f"{index}/4", source=source))

    found = shard(0) + shard(1)
    (posts / "u03.jsonl").write_bytes(b"x" * 60_000)
    found += shard(2)
    posts.rename(tmp_path / "gone")
    found += shard(3)
    assert sorted(found) == names


def test_select_job_index_counts_entries_from_zero(users: Path) -> None:
    assert slugs(select_jobs(f"file:{users}", None, 0)) == ["karpathy"]
    assert slugs(select_jobs(f"file:{users}", None, 2)) == ["alice-bob"]


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, ""])
def test_select_nothing_says_what_to_add(user: object) -> None:
    assert refusal(user).startswith("user: got nothing; expected whose posts")


@pytest.mark.parametrize(
    ("user", "quoted"),
    [
        (100000.0, "user=\"'100000.0'\""),
        (1000, "user=\"'1000'\""),
        (True, "user=\"'true'\""),
        (["a", None], "user=\"['null',...]\""),
        (["a", False], "user=\"['false',...]\""),
        (["a", 7], "user=\"['7',...]\""),
    ],
    ids=str,
)
def test_select_refuses_what_is_not_text_with_the_quoting(user: object, quoted: str) -> None:
    message = refusal(user)
    assert "in place of text" in message
    assert quoted in message


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"a": 1}, "got a dict"),
        (["a", ["b"]], "got a list"),
        (b"abc", "got a bytes"),
        ([], "got no handle"),
        (["a", "file:x.txt"], "inside a list"),
        ("a b", "expected a handle"),
        ("a,b", "expected a handle"),
        ("../../etc", "expected a handle"),
        ("karpathy\n", "'karpathy\\n'"),
        ("kаrpathy", "'k\\u0430rpathy'"),
    ],
    ids=ascii,
)
def test_select_refuses_what_is_no_handle(user: object, expected: str) -> None:
    assert expected in refusal(user)


def test_select_names_the_bad_line_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    path.write_text("alice\n\nbob c$d\nerin\nrm -rf /\n")
    message = refusal(f"file:{path}")
    assert f"{path} line 3: got 'c$d'; expected a handle" in message
    assert "(also 1 more: line 5)" in message


def test_select_refuses_a_file_without_users(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    path.write_text("# nobody yet\n")
    assert "got no handle" in refusal(f"file:{path}")


def test_select_names_the_nearest_file(users: Path) -> None:
    assert f"did you mean {users}?" in refusal(f"file:{users.parent / 'user.txt'}")
    assert "check the path" in refusal(f"file:{users.parent / 'zzzzqqqq'}")
    wrong_folder = users.parent.with_name(users.parent.name + "x") / "users.txt"
    assert f"did you mean {users.parent}?" in refusal(f"file:{wrong_folder}")


def test_select_refuses_a_folder(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in refusal(f"file:{tmp_path}")


@pytest.mark.parametrize("shard", ["4/4", "1/0", "x", "1", "-1/4", "1/2/3", " 1/2", "١/٢"])
def test_select_refuses_a_bad_shard(shard: str) -> None:
    assert refusal("a", shard).startswith("shard: got ")


@pytest.mark.parametrize("index", [-1, 4, 99])
def test_select_refuses_an_index_outside_the_file(users: Path, index: int) -> None:
    assert f"job_index: got {index}; expected 0 to 3" in refusal(f"file:{users}", None, index)


def test_select_refuses_shard_and_index_together(users: Path) -> None:
    assert "drop one" in refusal(f"file:{users}", "0/2", 1)


# --- quoting for Hydra ----------------------------------------------------------------------


def parsed(argument: str) -> object:
    """The value Hydra makes of an override, sweeps as tuples and quoted strings as text."""

    def plain(value: object) -> object:
        if isinstance(value, QuotedString):
            return value.text
        if isinstance(value, ChoiceSweep):
            return tuple(plain(element) for element in value.list)
        return [plain(element) for element in value] if isinstance(value, list) else value

    return plain(PARSER.parse_override(argument)._value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("user=1e5", "1e5"),
        ("user=true", "true"),
        ("user=null", "null"),
        ("user=1_000", "1_000"),
        ("user=0123", "0123"),
        ("user=[a,1e5]", ["a", "1e5"]),
        ("user=[ a , 1e5 ]", ["a", "1e5"]),
        ("user=@Foo", "@Foo"),
        ("user=a,1e5,null", ("a", "1e5", "null")),
        ("user=[1,2],[nan,inf]", (["1", "2"], ["nan", "inf"])),
        ("++user=on", "on"),
        ("user=o'brien", "o'brien"),
        ("user='1e5'", "1e5"),
        ('user=["1e5",2]', ["1e5", "2"]),
        ("user=alice@mastodon.social", "alice@mastodon.social"),
        ("user=müller", "müller"),
        ("user=a=b", "a=b"),
        ("user=file:users.txt", "file:users.txt"),
        ("user=file:~/users.txt", "file:~/users.txt"),
        ("user=file:a.txt,file:b.txt", ("file:a.txt", "file:b.txt")),
        ("user=", ""),
        ("user=[]", []),
    ],
)
def test_quote_user_keeps_handles_as_text(argument: str, value: object) -> None:
    [quoted] = quote_user([argument])
    assert parsed(quoted) == value


@pytest.mark.parametrize(
    "argument",
    [
        "user='1e5'",
        'user="1_000"',
        "user=file:conf/users/demo.txt",
        "user=['a',\"b\"]",
        "user=range(1,3)",
        "user=${oc.env:USER}",
        "user={a:1}",
        "seed=1e5",
        "recipe.lr=1e-4",
        "-m",
        "--help",
        "source.user_column=null",
        "users=null",
    ],
)
def test_quote_user_leaves_the_rest_alone(argument: str) -> None:
    assert quote_user([argument]) == [argument]


LIKE_HANDLES = st.from_regex(r"@?[A-Za-z0-9_]{1,30}", fullmatch=True) | st.sampled_from(
    ["1e5", "1_000", "true", "False", "null", "NULL", "nan", "-inf", "0x1", "1.5", "on", "a.b.c"]
)


@given(handle=LIKE_HANDLES)
def test_quote_user_one_handle_arrives_as_typed(handle: str) -> None:
    [quoted] = quote_user([f"user={handle}"])
    assert parsed(quoted) == handle


@given(handles=st.lists(LIKE_HANDLES, min_size=1), space=st.sampled_from(["", " "]))
def test_quote_user_a_list_arrives_as_typed(handles: list[str], space: str) -> None:
    [quoted] = quote_user([f"user=[{f',{space}'.join(handles)}]"])
    assert parsed(quoted) == handles


@given(lists=st.lists(st.lists(LIKE_HANDLES, min_size=1), min_size=2, max_size=4))
def test_quote_user_a_sweep_arrives_as_typed(lists: list[list[str]]) -> None:
    words = ",".join(f"[{','.join(handles)}]" for handles in lists)
    [quoted] = quote_user([f"user={words}"])
    assert parsed(quoted) == tuple(lists)


ANY_TEXT = st.text(alphabet="ab1e_5.@,[]'\"\\(){}$:=- \tünl~#", max_size=24) | st.text(max_size=12)


@given(text=ANY_TEXT)
@example("'a'b")
@example("a'b'")
@example('["a')
def test_quote_user_twice_is_once(text: str) -> None:
    once = quote_user([f"user={text}"])
    assert quote_user(once) == once


WORDS = st.text(alphabet="ab1e5_.@:-/nul %+*", min_size=1, max_size=8)
QUOTED = st.text(alphabet="ab1,[]:= é", max_size=6).flatmap(
    lambda text: st.sampled_from([f"'{text}'", f'"{text}"'])
)
ELEMENTS = st.recursive(
    WORDS | QUOTED, lambda inner: st.lists(inner, max_size=3).map(lambda xs: f"[{','.join(xs)}]")
)


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(text=st.lists(ELEMENTS, min_size=1, max_size=3).map(",".join))
def test_quote_user_never_changes_a_text_that_hydra_reads(text: str) -> None:
    def is_same(before: object, after: object) -> bool:
        if isinstance(before, list | tuple):
            return (
                type(before) is type(after)
                and len(before) == len(after)
                and all(map(is_same, before, after))
            )
        if isinstance(before, str):
            return before.strip(" \t") == str(after).strip(" \t")
        return isinstance(after, str)

    try:
        before = parsed(f"user={text}")
    except HydraException:
        assume(False)
    assert is_same(before, parsed(quote_user([f"user={text}"])[0]))
