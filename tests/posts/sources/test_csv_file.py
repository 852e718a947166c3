"""CSV and TSV."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import Said
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.csv_file import csv_rows

Load = Callable[..., Timeline]


@pytest.fixture
def read(tmp_path: Path, load: Load) -> Callable[..., Timeline]:
    def read_bytes(data: str | bytes, handle: str = "anyone", name: str = "f.csv") -> Timeline:
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return load("csv", tmp_path / name, handle)

    return read_bytes


def texts(timeline: Timeline) -> list[str]:
    return [post.text for post in timeline.posts]


def test_the_csv_of_an_old_archive(shared: Path, load: Load) -> None:
    path = shared / "tweets/formats/archive-2018-monthly/tweets.csv"
    timeline = load("csv", path, "geoinquiets")
    assert len(timeline.posts) == 29
    assert sum(bool(post.is_retweet) for post in timeline.posts) == 10
    assert timeline.posts[0].created_at == "2018-12-06T05:30:02Z"
    assert any("\n" in post.text for post in timeline.posts)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(read: Callable[..., Timeline], separator: str) -> None:
    rows = [["id", "text"], ["1", '"a, b; c | d"'], ["2", "plain"]]
    timeline = read("\r\n".join(separator.join(row) for row in rows))
    assert texts(timeline) == ["plain", "a, b; c | d"]


def test_line_breaks_and_quotes_inside_of_texts(read: Callable[..., Timeline]) -> None:
    timeline = read('id,text\n1,"he said ""hi""\r\nand left"\n')
    assert texts(timeline) == ['he said "hi"\r\nand left']


def test_one_user_of_many(read: Callable[..., Timeline]) -> None:
    data = "user,text\nNASA,a\nesa,b\nnasa,c\n"
    assert texts(read(data, "nasa")) == ["a", "c"]
    with pytest.raises(SourceError, match="nearest: 'nasa'"):
        read(data, "nasaa")
    assert texts(read(data, "nasa", "nasa.csv")) == ["a", "c"]  # the rows say more than the name


def test_bad_rows_are_counted(read: Callable[..., Timeline]) -> None:
    timeline = read(b"id,text\n1,fine\n2\n3,one,too many\n\n4,caf\xe9\n5,last\n")
    assert texts(timeline) == ["last", "fine"]
    assert timeline.notes == (
        "f.csv: 1 skipped: no text in the column 'text' (first: line 3)",
        "f.csv: 1 skipped: more fields than the header has; quote the texts (first: line 4)",
        "f.csv: 1 skipped: not UTF-8 (first: line 6)",
    )


def test_an_open_quote_costs_a_part_not_the_file(read: Callable[..., Timeline]) -> None:
    rows = "".join(f"{number},post {number}\n" for number in range(30_000))
    timeline = read(f'id,text\n99999,"open\n{rows}')
    assert len(timeline.posts) > 15_000
    assert "not CSV" in timeline.notes[0]


def test_excel_writes_a_bom_or_utf_16(read: Callable[..., Timeline]) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        assert texts(read("text\r\ncafé\r\n".encode(encoding))) == ["café"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n1,2\n", r"columns 'a', 'b'; .*source.text_column="),
        ("x" * 200_000 + "\n", "not a header"),
        ("," * 5000 + "\n", "5001 columns"),
        ("1,ann,hello\n2,ann,text\n3,ann,bye\n", "columns '1', 'ann', 'hello'"),
        ("user,text,text\nann,mine,theirs\n", "got 'text' as the name of 2 columns"),
        ("<html><table><tr><td>text</td></tr></table>", "a page of the web"),
        ("text\n", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_files_without_posts(read: Callable[..., Timeline], data: str, message: str | None) -> None:
    if message is None:
        assert read(data).posts == ()
        return
    with pytest.raises(SourceError, match=message):
        read(data)


def test_ids_that_a_spreadsheet_rounded_are_not_taken_for_equal(
    read: Callable[..., Timeline],
) -> None:
    timeline = read("id,text\n1.58809E+18,a\n1.58809E+18,b\n")
    assert texts(timeline) == ["a", "b"]


@pytest.mark.parametrize(
    "title", ["Posts of 2023 and before\r\n\r\n", "Report:,Tweets,,\nDate:,2023-01-01,,\n"]
)
def test_titles_above_the_names_of_columns_are_no_posts(
    title: str, read: Callable[..., Timeline]
) -> None:
    timeline = read(title + "user,text,likes,x\nann,the pond,1,2\nann,is grey,1,2\n", "ann")
    assert texts(timeline) == ["the pond", "is grey"]
    assert timeline.notes == (
        "f.csv: the names of the columns are in line 3; those above left out",
    )


def test_quotation_marks_with_backslashes(read: Callable[..., Timeline]) -> None:
    rows = "".join(f'{n},"she said \\"hi {n}\\" to me, {{}}",3\n' for n in range(2))
    timeline = read("id,text,likes\n" + rows.format("today", "C:\\\\"))
    assert texts(timeline) == ['she said "hi 1" to me, C:\\', 'she said "hi 0" to me, today']
    doubled = 'id,text\n1,"a ""b"" c:\\"\n2,"the \\"" d, \\"" e"\n'
    assert texts(read(doubled)) == ['the \\" d, \\" e', 'a "b" c:\\']


def test_quotation_marks_of_the_text_between_tabs(read: Callable[..., Timeline]) -> None:
    timeline = read('user\ttext\nann\t"Why" she asked\nann\t"quoted ""twice"""\n', "ann")
    assert texts(timeline) == ['"Why" she asked', 'quoted "twice"']


def test_linkedin_puts_ends_of_lines_into_quotation_marks(read: Callable[..., Timeline]) -> None:
    rows = '1,"the ""pond""\r\n""\r\n""\r\nis grey"\n2,"one""\r\n""two"\n'
    shared = texts(read("Date,ShareCommentary\n" + rows))
    assert [" ".join(one.split()) for one in shared] == ['the "pond" is grey', "one two"]


@pytest.mark.parametrize(
    "content", ["sep=;\nid;text\n1;my own words\n", "hello world this is me\nsecond of my posts\n"]
)
def test_nothing_is_said_of_lines_that_are_no_title(content: str) -> None:
    said = Said()
    with suppress(SourceError):
        list(csv_rows(enumerate(content.splitlines(keepends=True), 1), "f.csv", said))
    assert not any("names of the columns" in note for note in said.notes)
