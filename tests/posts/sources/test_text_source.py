"""Plain text, one post per line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from huggingtweets.errors import SourceError
from huggingtweets.posts.records import Post, Timeline

Load = Callable[..., Timeline]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_are_posts(tmp_path: Path, load: Load, newline: str, encoding: str) -> None:
    text = newline.join(["first é", "", "  ", "a\u2028b", "last"])
    (tmp_path / "Ann.txt").write_bytes(text.encode(encoding))
    timeline = load("text", tmp_path, "ann")
    assert timeline.posts == (
        Post("row-1", "first é"),
        Post("row-2", "a\u2028b"),
        Post("row-3", "last"),
    )
    assert timeline.notes == ()


def test_lines_that_are_no_text_are_counted(tmp_path: Path, load: Load) -> None:
    (tmp_path / "f").write_bytes(b"fine\ncaf\xe9\n" + b"x" * (2 << 20) + b"\nlast\n")
    timeline = load("text", tmp_path / "f", "ann")
    assert [post.text for post in timeline.posts] == ["fine", "last"]
    assert len(timeline.notes) == 2
    (tmp_path / "f").write_bytes(b"caf\xe9\n")
    with pytest.raises(SourceError, match=r"1 skipped: not UTF-8 \(first: line 1\)"):
        load("text", tmp_path / "f", "ann")


def test_utf_16_without_its_mark_is_found_or_refused(tmp_path: Path, load: Load) -> None:
    path = tmp_path / "f.txt"
    for encoding in ("utf-16-be", "utf-32-le"):
        path.write_bytes("the pond\nis grey\n".encode(encoding))
        timeline = load("text", path, "ann", encoding=encoding[:6])
        assert [post.text for post in timeline.posts] == ["the pond", "is grey"]
    path.write_text("the pond\nis grey\n")
    for kind in ("text", "csv", "jsonl"):
        with pytest.raises(SourceError, match=r"no mark of it.*source.encoding=utf-16-le or"):
            load(kind, path.rename(tmp_path / "f"), "ann", encoding="UTF16")
        path = tmp_path / "f"
