import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from huggingtweets.errors import ConfigError, OptedOutError
from huggingtweets.posts.optout import (
    SHIPPED,
    add_optout,
    check_opted_out,
    handle_hash,
    optout_path,
    read_optouts,
)


def test_a_person_on_the_list_is_refused_and_the_list_names_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "list.txt")
    assert add_optout("alice", path) == Path(path)
    with pytest.raises(OptedOutError, match=r"^@alice: is on the list"):
        check_opted_out(["bob", "alice"], path)
    check_opted_out(["bob", "alic", "alicee", "alice.bsky.social"], path)
    assert "alice" not in Path(path).read_text().removeprefix(path)


def test_adding_twice_changes_nothing_and_keeps_comments(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# ours")
    add_optout("alice", str(path))
    once = path.read_text()
    add_optout("alice", str(path))
    assert path.read_text() == once
    assert re.fullmatch(r"# ours\n[0-9a-f]{64}  # \d{4}-\d\d-\d\d\n", once)


def test_a_linked_list_is_written_where_it_lies(tmp_path: Path) -> None:
    shared, mine = tmp_path / "shared" / "optout.txt", tmp_path / "mine" / "optout.txt"
    mine.parent.mkdir()
    mine.symlink_to(Path("..") / "shared" / "optout.txt")
    assert add_optout("alice", str(mine)) == shared
    assert mine.is_symlink()
    with pytest.raises(OptedOutError):
        check_opted_out(["alice"], str(shared))


def test_of_many_who_add_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    path, handles = tmp_path / "optout.txt", [f"person_{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda handle: add_optout(handle, str(path)), handles))
    assert read_optouts(path) == {handle_hash(handle) for handle in handles}


def test_the_environment_names_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(tmp_path / "list.txt"))
    add_optout("alice")
    with pytest.raises(OptedOutError):
        check_opted_out(["alice"])
    other = tmp_path / "other.txt"
    other.write_text("")
    check_opted_out(["alice"], str(other))  # what is configured goes first


def test_a_list_that_cannot_be_read_lets_nobody_pass(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        check_opted_out(["bob"], str(tmp_path / "missing.txt"))
    broken = tmp_path / "broken.txt"
    broken.write_text("# fine\nalice\n")
    with pytest.raises(ConfigError, match="line 2: is no hash"):
        check_opted_out(["bob"], str(broken))


def test_a_list_that_grows_is_read_again(tmp_path: Path) -> None:
    path = str(tmp_path / "list.txt")
    add_optout("alice", path)
    check_opted_out(["bob"], path)
    add_optout("bob", path)
    with pytest.raises(OptedOutError):
        check_opted_out(["bob"], path)


def test_the_shipped_list_is_there_and_empty() -> None:
    assert SHIPPED.is_file()
    assert read_optouts(SHIPPED) == frozenset()


def test_the_users_own_list_holds_whatever_other_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUGGINGTWEETS_OPTOUT", raising=False)
    monkeypatch.setenv("HUGGINGTWEETS_CONFIG", str(tmp_path / "not" / "there"))
    check_opted_out(["alice"])
    assert add_optout("alice") == optout_path(None) == tmp_path / "not" / "there" / "optout.txt"
    named = tmp_path / "other.txt"
    named.write_text("")
    for configured in (None, str(named)):
        with pytest.raises(OptedOutError):
            check_opted_out(["alice"], configured)


def test_hashes_are_stable() -> None:
    """A list made by one version holds for all later ones."""
    assert handle_hash("alice") == (
        "5e55f3eb21685a84cddcaba8cbb881939243818e47432150a2647427b8782ce0"
    )
