import os
from pathlib import Path

import pytest

from huggingtweets.storage.files import (
    add_fence,
    check_fences,
    make_folder,
    read_jsonl,
    remove_drafts,
    remove_fence,
    replacing_file,
    replacing_folder,
    write_bytes,
    write_json,
    write_jsonl,
    write_text,
)


def test_write_bytes_leaves_old_content_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_text_takes_lone_surrogates(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "a\ud800b")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a?b"


def test_write_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"loss": float("nan")})
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_jsonl_round_trips_any_text(tmp_path: Path, name: str) -> None:
    rows = [{"text": "naïve 😀\u2028\n"}, {"text": "\ud83d"}]
    write_jsonl(tmp_path / name, rows)
    assert read_jsonl(tmp_path / name) == rows


def test_jsonl_gz_is_reproducible(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_jsonl(tmp_path / name, [1, 2])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_read_jsonl_drops_a_line_cut_short(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": 2')
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}]


def test_replacing_folder_keeps_the_old_one_when_the_block_fails(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replacing_folder(folder) as draft:
        (draft / "weights").write_text("old")
    with pytest.raises(RuntimeError):
        fail_while_replacing(folder)
    assert (folder / "weights").read_text() == "old"
    with replacing_folder(folder) as draft:
        (draft / "other").write_text("new")
    assert [entry.name for entry in folder.iterdir()] == ["other"]


def fail_while_replacing(folder: Path) -> None:
    with replacing_folder(folder) as draft:
        (draft / "weights").write_text("new")
        raise RuntimeError


def test_nothing_is_renamed_in_a_folder_whose_fence_is_down(tmp_path: Path) -> None:
    inside, outside = tmp_path / "job" / "tracking", tmp_path / "other"
    write_text(inside / "file", "old")
    with replacing_folder(tmp_path / "job" / "model") as draft:
        (draft / "weights").write_text("old")

    def raise_taken() -> None:
        raise RuntimeError("taken over")

    add_fence(tmp_path / "job", raise_taken)
    try:
        write_text(outside / "file", "new")
        with pytest.raises(RuntimeError, match="taken over"):
            write_text(inside / "file", "new")
        with pytest.raises(RuntimeError, match="taken over"):
            write_text(inside / "another", "new")
        with (
            pytest.raises(RuntimeError, match="taken over"),
            replacing_folder(tmp_path / "job" / "model") as draft,
        ):
            (draft / "weights").write_text("new")
        with pytest.raises(RuntimeError, match="taken over"):
            remove_drafts(tmp_path / "job")
    finally:
        remove_fence(tmp_path / "job")
    check_fences(inside / "file")
    assert (inside / "file").read_text() == "old"
    assert (tmp_path / "job" / "model" / "weights").read_text() == "old"
    assert [path.name for path in inside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "new"
    remove_drafts(tmp_path / "job")
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["model", "tracking"]


def test_only_names_of_ours_are_drafts(tmp_path: Path) -> None:
    (tmp_path / ".notes.tmp").mkdir()
    (tmp_path / ".draft.old.tmp").touch()
    with replacing_file(tmp_path / "a.json") as draft:
        draft.touch()
    draft.touch()
    remove_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.json",
        ".notes.tmp",
        ".draft.old.tmp",
    }


@pytest.mark.parametrize("kind", ["file", "pipe", "device", "dangling"])
def test_what_lies_in_the_place_of_a_folder_is_set_aside(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "ledger"
    make = {
        "file": place.touch,
        "pipe": lambda: os.mkfifo(place),
        "device": lambda: place.symlink_to("/dev/null"),
        "dangling": lambda: place.symlink_to("nowhere"),
    }[kind]
    make()
    for _ in range(2):
        make_folder(place)
        assert place.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"ledger", ".damaged-ledger"}
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    make_folder(link)
    assert link.is_symlink(), "a folder on another disk is one"
