import pytest

from huggingtweets.errors import SelectionError
from huggingtweets.handles import MAX_SLUG_CHARS, Job, parse_handle
from huggingtweets.jobs.ledger import LEDGER_DIR


@pytest.mark.parametrize(
    ("text", "handle"),
    [
        ("karpathy", "karpathy"),
        ("@Karpathy", "karpathy"),
        ("1_000", "1_000"),
        ("true", "true"),
        ("a" * 30, "a" * 30),
        ("alice.bsky.social", "alice.bsky.social"),
        ("@Alice@mastodon.social", "alice.mastodon.social"),
        ("my-name.example.com", "my-name.example.com"),
    ],
)
def test_parse_handle_canonical_form(text: str, handle: str) -> None:
    assert parse_handle(text) == handle


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "a b", "a\n", "../x", "$(rm -rf)", "a/b", "a" * 31, "аlice", "ａ", "<b>", "a:b",
        "a..b", ".a", "a.", "-a.b", "a.-b", "x" * 91 + ".com", "a@b@c", "a;b", "a'b", "a\x00",
    ],
)  # fmt: skip
def test_parse_handle_refuses(text: str) -> None:
    with pytest.raises(SelectionError, match="expected a handle"):
        parse_handle(text)


def test_job_sorts_and_drops_duplicates() -> None:
    job = Job.of(["@Bob", "alice", "bob"])
    assert job.handles == ("alice", "bob")
    assert job.slug == "alice-bob"
    assert job.is_cyborg


def test_slug_of_many_is_short_and_distinct() -> None:
    one = Job.of([f"user_number_{i}" for i in range(30)])
    other = Job.of([f"user_number_{i}" for i in range(31)])
    assert len(one.slug) <= MAX_SLUG_CHARS
    assert one.slug != other.slug


def test_no_slug_is_the_folder_of_a_batch() -> None:
    assert Job.of(["ledger"]).slug.startswith(f"{LEDGER_DIR}-")
    assert Job.of(["ledger", "bob"]).slug == "bob-ledger"


def test_slug_is_unambiguous_when_a_handle_holds_the_joiner() -> None:
    assert Job.of(["a-b.com"]).slug != Job.of(["a", "b.com"]).slug
    assert "--" not in Job.of(["xn--bcher-kva.example"]).slug


def test_a_job_keeps_its_handles_as_they_were_typed() -> None:
    job = Job.of(["@TheOnion", "Alice.bsky.social", "Bob@Mastodon.social"])
    assert job.handles == ("alice.bsky.social", "bob.mastodon.social", "theonion")
    assert job.written == ("Alice.bsky.social", "Bob.Mastodon.social", "TheOnion")
    assert job == Job.of(["theonion", "alice.bsky.social", "bob.mastodon.social"])
    assert job.slug == job.slug.lower()
