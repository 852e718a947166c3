"""Rows with named columns, and keys of JSON, read one by one."""

from pathlib import Path
from typing import Any

import pytest

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.flat import get_path
from huggingtweets.posts.reading.gather import Row, gather
from huggingtweets.posts.reading.names import Mark, Who, mark_role, who_role
from huggingtweets.posts.reading.record import Draft, Reader, read_mark
from huggingtweets.posts.reading.timeline import Skip
from huggingtweets.posts.reading.who import Asked
from huggingtweets.posts.sources.load import load_timeline

HERE = Path(__file__).parent


def table(name: str) -> list[list[str]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


AUTHORS = table("author_names.tsv")
MARKS = table("retweet_marks.tsv")


def config_of(**config: Any) -> SourceConfig:
    return SourceConfig(kind=SourceKind.csv, path="f", **config)


def take(names: list[str], **config: Any) -> dict[str, str | None]:
    """Read a row in which every column has its own name for a value; return what was taken."""
    values: dict[str, Any] = {name: f"{name} text" for name in names}
    values |= {name: "2020-01-01" for name in names if name in ("created_at", "timestamp", "date")}
    reader = Reader(config_of(**config))
    draft = reader.read(values)
    assert isinstance(draft, Draft)
    users = [field.path for field in draft.fields if field.who < Who.id]
    first = {use: next(iter(paths), None) for use, paths in reader.taken.items()}
    return {"text": first["text"], "user": users[0] if users else None} | {
        use: first[use] for use in ("id", "date", "mark")
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["id", "created_at", "text"], ("text", None, "id", "created_at", None)),
        (
            ["id", "id_str", "full_text", "text", "is_retweet"],
            ("full_text", None, "id_str", None, "is_retweet"),
        ),
        (
            ["tweet_id", "timestamp", "text", "retweeted_status_id"],
            ("text", None, "tweet_id", "timestamp", "retweeted_status_id"),
        ),
        (
            ["id", "text", "isRetweet", "retweets", "date"],
            ("text", None, "id", "date", "isRetweet"),
        ),
        (["Username", "Tweet"], ("Tweet", "Username", None, None, None)),
        (["author", "content", "retweeted"], ("content", "author", None, None, None)),
    ],
)
def test_usual_columns_are_found(names: list[str], expected: tuple[str | None, ...]) -> None:
    assert tuple(take(names).values()) == expected


@pytest.mark.parametrize(("name", "who", "tool"), AUTHORS, ids=[row[0] for row in AUTHORS])
def test_names_of_authors(name: str, who: str, tool: str) -> None:
    role = who_role(name)
    assert (role.name if role is not None else "none") == who, tool


def test_there_are_200_names_of_authors_and_60_marks() -> None:
    assert len({row[0] for row in AUTHORS if row[1] != "none"}) >= 200
    assert len({row[0] for row in MARKS}) >= 60


@pytest.mark.parametrize(
    ("name", "kind", "yes", "no", "tool"), MARKS, ids=[f"{row[0]}={row[2]}" for row in MARKS]
)
def test_marks_of_retweets(name: str, kind: str, yes: str, no: str, tool: str) -> None:
    """Two posts of one file: what the tool writes for somebody else's, and for one's own."""
    role = mark_role(name)
    assert (role.name if role is not None else "none") == kind, tool
    rows = [Row({"text": "theirs", name: yes}), Row({"text": "mine", name: no})]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    marked = [post.text for post in timeline.posts if post.is_retweet]
    is_used = kind not in ("none", "unsure")
    assert marked == (["theirs"] if is_used else [])
    assert any("looks like a mark of retweets" in note for note in timeline.notes) == (
        kind == "unsure"
    )


def test_a_column_of_kinds_by_another_name_is_told(tmp_path: Path) -> None:
    rows = [Row({"text": "mine", "sort": "tweet"}), Row({"text": "theirs", "sort": "Retweet"})]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert timeline.notes == (
        "f.csv: the column 'sort' looks like a mark of retweets and is not used; if it is one, set "
        "source.retweet_column=sort",
    )
    timeline = gather(Asked("f.csv", "ann", config_of(retweet_column="sort")), rows)
    assert [post.is_retweet for post in timeline.posts] == [False, True]


def test_kinds_among_other_words_are_told() -> None:
    """A column whose other values are none of our words is a mark all the same."""
    rows = [Row({"text": "mine", "sort": "organic!"}), Row({"text": "theirs", "sort": "Retweet"})]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert "the column 'sort' looks like a mark of retweets" in timeline.notes[0]


NAMES_OF_PEOPLE = [
    "source_user", "source_user_name", "celebrity", "politician", "Candidate", "streamer",
    "respondent", "tw_handle", "contributor_name", "nombre_usuario", "nom_utilisateur",
    "tweet_author_2", "page", "Page_Name", "channel_username", "authors", "felhasználó",
    "автор_поста", "имя_пользователя",
]  # fmt: skip


@pytest.mark.parametrize("who", [("ann_x", "bob_y"), ("annx", "boby"), ("Ann Xu", "Bob Young")])
@pytest.mark.parametrize("column", NAMES_OF_PEOPLE)
def test_a_column_called_as_if_it_held_people_is_never_passed_over(
    column: str, who: tuple[str, str]
) -> None:
    """By handles or by names: the posts of one alone come, or the column is named."""
    rows = [Row({"text": f"{n % 2}", column: who[n % 2]}) for n in range(12)]
    asked = Asked("f.csv", who[0].lower().replace(" ", "_"), config_of())
    try:
        timeline = gather(asked, rows)
    except SourceError as err:
        message = str(err)
        assert "source.user_column=" in message and ascii(column) in message  # noqa: PT018
    else:
        assert {post.text for post in timeline.posts} == {"0"}


@pytest.mark.parametrize("column", ["lang", "mood", "city", "user_location", "topic"])
def test_columns_of_no_people_do_not_stop_a_file(column: str) -> None:
    values = ("Twitter Web App", "New York", "Very Happy")
    rows = [Row({"text": f"post {n}", column: values[n % 3]}) for n in range(12)]
    assert len(gather(Asked("f.csv", "ann", config_of()), rows).posts) == 12


@pytest.mark.parametrize(
    ("column", "values", "is_asked"),
    [
        ("source", ("Twitter for iPhone", "Twitter for iPhone", "Erased88"), False),
        ("source", ("TweetDeck", '<a href="http://sk.ed">Sked</a>', "Paper.li"), False),
        ("source", ("True Anthem", "True Anthem", "True Anthem", "Twitter Media Studio"), False),
        ("media", ("photo", "video", "animated_gif"), False),
        ("source", ("Evening Post", "Daily Herald", "Morning Star"), True),
        ("source_name", ("Evening Post", "Daily Herald", "Daily Herald"), True),
        ("media", ("Evening Post", "Daily Herald", "Daily Herald"), True),
        ("avatar", ("https://a.example/1.png", "https://a.example/2.png"), True),
        ("profile_image_url", ("https://a.example/1.png", "https://a.example/2.png"), True),
        ("bio", ("Pond keeper.", "I sail."), True),
    ],
)
def test_who_a_record_is_by_is_asked_where_values_may_tell(
    column: str, values: tuple[str, ...], is_asked: bool
) -> None:
    """Programs that post and kinds of media tell nobody apart, newspapers and pictures do."""
    rows = [Row({"text": f"post {n}", column: values[n % len(values)]}) for n in range(12)]
    asked = Asked("f.csv", "ann", config_of())
    if is_asked:
        with pytest.raises(SourceError, match=f"set source.user_column={column}"):
            gather(asked, rows)
    else:
        assert len(gather(asked, rows).posts) == 12


def test_what_is_shared_on_linkedin_is_ones_own() -> None:
    row = {"ShareLink": "https://x", "ShareCommentary": "mine", "SharedUrl": "https://y"}
    [post] = gather(Asked("f.csv", "ann", config_of()), [Row(row)]).posts
    assert (post.text, post.is_retweet) == ("mine", None)


def test_a_picture_may_change_where_one_number_is_in_all_records() -> None:
    rows = [Row({"text": f"{n}", "author_id": "12", "avatar": f"{n}.png"}) for n in range(4)]
    assert len(gather(Asked("f.csv", "ann", config_of()), rows).posts) == 4


@pytest.mark.parametrize(
    "mark",
    [
        {"retweeted_status": {"id": None, "text": None}},
        {"retweeted_status": {"id": None, "user": {"screen_name": None}}},
        {"retweeted_status": {}},
        {"repost": {"id": None, "by": None}},
        {"reblog": {"comment": "<p>mine</p>", "tree_html": ""}, "reblog_key": "aBc"},
        {"retweet_link": "https://x.com/intent/retweet?tweet_id=1"},
        {"retweeted_by": ["carl"]},
        {"reposted_by": ["carl", "dora"]},
    ],
)
def test_what_stands_in_every_record_of_a_tool_is_no_mark(mark: dict[str, Any]) -> None:
    """Arrow's empty structs, what Tumblr says of every post, and who shared one's own."""
    rows = [Row({"text": f"post {n}", **mark}) for n in range(4)]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert not any(post.is_retweet for post in timeline.posts)


def test_a_mark_in_every_record_is_told_and_can_be_put_aside() -> None:
    rows = [Row({"text": f"post {n}", "retweet_id": "5"}) for n in range(4)]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert all(post.is_retweet for post in timeline.posts)
    assert "all 4 posts are retweets by 'retweet_id'; if it says something" in timeline.notes[0]
    timeline = gather(Asked("f.csv", "ann", config_of(retweet_column="")), rows)
    assert [post.is_retweet for post in timeline.posts] == [None] * 4


def test_reposts_of_threads_are_marked() -> None:
    kinds = ("TEXT_POST", "REPOST_FACADE")
    rows = [Row({"text": kind, "media_type": kind}) for kind in kinds]
    posts = gather(Asked("f.csv", "ann", config_of()), rows).posts
    assert [post.text for post in posts if post.is_retweet] == ["REPOST_FACADE"]


TEXTS = [
    "Текст", "Tekst", "Testo", "Inhalt", "Nachricht", "conteúdo", "Mensagem", "Treść", "metin",
    "publicación", "selftext", "comment_text", "commentText", "message_text", "description",
]  # fmt: skip


@pytest.mark.parametrize("column", TEXTS)
def test_texts_are_known_in_several_languages(tmp_path: Path, column: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"date,user,{column}\n2023-01-01,ann,mine\n2023-01-02,bob,his\n")
    source = SourceConfig(kind=SourceKind.csv, path=str(path))
    assert [post.text for post in load_timeline(source, "ann").posts] == ["mine"]


def test_a_description_counts_only_where_nothing_else_is_a_text() -> None:
    rows = [
        Row({"text": "mine", "description": "who I am", "user": "ann"}),
        Row({"username": "ann", "displayName": "Ann", "description": "who I am", "date": "2020"}),
    ]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert [post.text for post in timeline.posts] == ["mine"]


def test_dates_that_cannot_be_read_are_told() -> None:
    dates = ("01/03/2006 20:50", "02/03/2006 20:50", "21/03/2006 20:50")
    rows = [Row({"text": date, "date": date}) for date in dates]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert timeline.notes == (
        "f.csv: 2 dates in 'date' cannot be read, such as '01/03/2006 20:50'; the order of the "
        "file counts",
    )


def test_a_count_of_retweets_is_no_mark() -> None:
    rows = [Row({"text": f"post {n}", "retweet": str(n)}) for n in range(9)]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert not any(post.is_retweet for post in timeline.posts)


def test_configured_columns_go_first() -> None:
    names = ["text", "body", "id", "key"]
    taken = take(names, text_column="body")
    assert taken["text"] == "body"
    reader = Reader(config_of(id_column="key"))
    draft = reader.read({"text": "x", "id": 1, "key": 2})
    assert isinstance(draft, Draft)
    assert draft.post.id == "2"


@pytest.mark.parametrize("key", ["text", "user", "id", "date", "retweet"])
def test_a_misspelt_column_gets_its_nearest(key: str) -> None:
    config = config_of(**{f"{key}_column": "bodi"})
    with pytest.raises(SourceError, match=rf"source.{key}_column=bodi; .*nearest: 'body'"):
        gather(Asked("f.csv", "ann", config), [Row({"body": "x", "id": 1})])


def test_dotted_paths_go_into_objects_and_into_names_with_dots() -> None:
    row = {"a": {"b": {"c": 1}, "b.d": 2}, "a.x": 3}
    assert [get_path(row, path) for path in ("a.b.c", "a.b.d", "a.x", "a.y", "z")] == [
        1, 2, 3, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        (True, "is_retweet", True),
        (False, "is_retweet", False),
        ("True", "is_retweet", True),
        ("t", "isRetweet", True),
        ("f", "isRetweet", False),
        ("0", "is_retweet", False),
        (1, "is_retweet", True),
        (0, "is_retweet", False),
        (None, "is_retweet", None),
        ("", "is_retweet", None),
        ("", "retweeted_status_id", False),
        (None, "retweeted_status_id", False),
        ("1070423072140873728", "retweeted_status_id", True),
    ],
)
def test_retweet_flags_in_any_spelling(value: object, column: str, expected: bool | None) -> None:
    role = mark_role(column)
    assert role in (Mark.flag, Mark.presence)
    assert read_mark(role, value, column) is expected


@pytest.mark.parametrize("text", [None, 3, float("nan"), [], {}, True])
def test_a_row_whose_text_is_none_is_skipped(text: object) -> None:
    assert isinstance(Reader(config_of()).read({"text": text}), Skip)
    assert isinstance(Reader(config_of()).read({}), Skip)


@pytest.mark.parametrize("user", [None, "", " ", float("nan"), True])
def test_a_row_without_a_user_belongs_to_nobody(user: object) -> None:
    rows = [Row({"text": "a", "user": "ann"}), Row({"text": "x", "user": user})]
    timeline = gather(Asked("f.csv", "ann", config_of()), rows)
    assert [post.text for post in timeline.posts] == ["a"]
    assert timeline.notes == ("f.csv: 1 skipped: no user in the column 'user'",)
