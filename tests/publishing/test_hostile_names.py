"""Handles, names, posts and archive paths that mean harm: thousands of them, and no harm done."""

import functools
import html
import os
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from huggingtweets.errors import HuggingtweetsError, SelectionError
from huggingtweets.handles import Job
from huggingtweets.posts.cleaning import CleaningReport
from huggingtweets.posts.sources.x_archive import read_x_archive
from huggingtweets.publishing.card import render_card
from huggingtweets.publishing.facts import ModelFacts, Sample
from huggingtweets.publishing.report import render_report
from huggingtweets.storage.files import write_text
from huggingtweets.storage.paths import JobPaths

FEW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=10_000)

PIECES = st.sampled_from(
    [
        *("../", "..", "/", "\\", "~", "$(touch x)", "`id`", ";", "|", "&&", "\n", "\r", "\0"),
        *("%2e%2e/", "@", ".", "-", "--", "\u202e", "\u2028", "\x85", "\ufeff", "C:", "con", "a"),
        *("B", "1e5", "\uff41", "\u0430", "<script>alert(1)</script>", "</title>", "<!--", "-->"),
        *("<img src=x onerror=alert(1)>", "]]>", "<", ">", '"', "'", "&lt;", "&#60;", "---\n"),
        *("\n---\n", "...\n", "license: mit\n", "\nkey: 1", "{{ 7*7 }}", "{% raw %}", "{#", "*"),
        *("_", "[x](javascript:alert(1))", "![x](http://x/y.png)", "# ", "```", "<|endoftext|>"),
        *("!!python/object:os.system", "&a", "*a", "${oc.env:HOME}", "https://evil.example/"),
        *("<https://evil.example>", "\ud83d", "🍵", "\x1b[2J", "style=", "url("),
    ]
)
HOSTILE = st.lists(st.one_of(PIECES, st.text(max_size=8)), min_size=1, max_size=8).map("".join)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- Handles


def check_handles(folder: Path, texts: list[str]) -> None:
    """Either a sentence, or a folder of its own right below the output folder."""
    out = folder / "out"
    try:
        job = Job.of(texts)
    except SelectionError as err:
        assert str(err).isprintable()  # noqa: PT017
        return
    paths = JobPaths(out / job.slug)
    write_text(paths.config, "x")
    assert paths.root.resolve().parent == out.resolve()
    assert job.slug == os.path.basename(job.slug) != ""  # noqa: PTH119
    assert not job.slug.startswith(("-", "."))
    assert yaml.safe_load(yaml.safe_dump({"slug": job.slug})) == {"slug": job.slug}
    paths.config.unlink()
    paths.root.rmdir()
    assert tree(folder) <= {"out"}


HANDLES = st.lists(
    st.one_of(HOSTILE, st.from_regex(r"@?[A-Za-z0-9_.-]{1,40}(@[a-z.-]{1,20})?", fullmatch=True)),
    min_size=1,
    max_size=4,
)


@FEW
@given(texts=HANDLES)
def test_handles_stay_in_the_output_folder(tmp_path: Path, texts: list[str]) -> None:
    check_handles(tmp_path, texts)


@pytest.mark.slow
@MANY
@given(texts=HANDLES)
def test_many_handles_stay_in_the_output_folder(tmp_path: Path, texts: list[str]) -> None:
    check_handles(tmp_path, texts)


# --- Names and posts


class _Tags(HTMLParser):
    """Collects every tag with the names of its attributes; links with where they lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))
        self.found += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self.found.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.found.append(f"!{decl}")


def tags(page: str) -> list[Any]:
    parser = _Tags()
    parser.feed(page)
    parser.close()
    return parser.found


def front_matter(card: str) -> Any:
    head, _, _ = card.removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(head)


def keys_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: keys_of(one) for key, one in value.items()}
    return [keys_of(one) for one in value] if isinstance(value, list) else None


def facts_with(make_facts: Callable[..., ModelFacts], name: str, post: str) -> ModelFacts:
    person = CleaningReport("ada_l", name, 10, 1, 1, 1, 7, 700)
    samples = (Sample("My dream is", f"My dream is {post}"), Sample(post, post + post))
    return make_facts(("ada_l", "Ada"), people=(person,), samples=samples)


@functools.cache
def plain_card(make_facts: Callable[..., ModelFacts]) -> tuple[Any, list[Any]]:
    """Keys and tags of the card of somebody harmless."""
    card = render_card(facts_with(make_facts, "Ada", "to"))
    return keys_of(front_matter(card)), tags(card)


@functools.cache
def plain_tags(make_facts: Callable[..., ModelFacts]) -> frozenset[str]:
    """Tags of the report of somebody harmless."""
    found = tags(render_report(facts_with(make_facts, "Ada", "to")))
    return frozenset({*map(str, found), "('mark', [])", "/mark"})


def check_card(make_facts: Callable[..., ModelFacts], name: str, post: str) -> None:
    card = render_card(facts_with(make_facts, name, post))
    assert (keys_of(front_matter(card)), tags(card)) == plain_card(make_facts)


def check_report(make_facts: Callable[..., ModelFacts], name: str, post: str) -> None:
    report = render_report(facts_with(make_facts, name, post))
    assert {*map(str, tags(report))} <= plain_tags(make_facts)


@FEW
@given(name=HOSTILE, post=HOSTILE)
def test_names_and_posts_add_no_tag_and_no_key_to_the_card(
    make_facts: Callable[..., ModelFacts], name: str, post: str
) -> None:
    check_card(make_facts, name, post)


@pytest.mark.slow
@MANY
@given(name=HOSTILE, post=HOSTILE)
def test_many_names_and_posts_add_no_tag_and_no_key_to_the_card(
    make_facts: Callable[..., ModelFacts], name: str, post: str
) -> None:
    check_card(make_facts, name, post)


@settings(FEW, max_examples=10)
@given(name=HOSTILE, post=HOSTILE)
def test_names_and_posts_add_no_tag_to_the_report(
    make_facts: Callable[..., ModelFacts], name: str, post: str
) -> None:
    check_report(make_facts, name, post)


@pytest.mark.slow
@MANY
@given(name=HOSTILE, post=HOSTILE)
def test_many_names_and_posts_add_no_tag_to_the_report(
    make_facts: Callable[..., ModelFacts], name: str, post: str
) -> None:
    check_report(make_facts, name, post)


def test_the_oracle_sees_tags_and_keys() -> None:
    assert tags("a <b onclick='x'>c</b><!-- d -->") == [("b", ["onclick"]), "/b", "comment"]
    assert tags(html.escape("<b>")) == []
    assert keys_of(front_matter("---\na: 1\nb: [2]\n---\nc: 3")) == {"a": None, "b": [None]}


# --- Paths in archives


def check_archive(folder: Path, names: list[str], kinds: list[str]) -> None:
    """Read an archive whose members are called anything: nothing is written anywhere."""
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in zip(names, kinds, strict=False):
            info = zipfile.ZipInfo("x")
            info.filename = f"{name}{kind}".encode("utf-8", "replace").decode()
            if kind == "link":
                info.external_attr = 0o120777 << 16
            archive.writestr(info, b'window.YTD.tweets.part0 = [{"tweet": {"full_text": "hi"}}]')
    before = tree(folder)
    try:
        read_x_archive(path, "nasa")
    except HuggingtweetsError as err:
        sentence = str(err)
        assert sentence.isprintable() and len(sentence) < 1500  # noqa: PT018
    assert tree(folder) == before


KINDS = st.lists(
    st.sampled_from(["", "data/tweets.js", "tweets.js", "/data/tweets.js", "link", "tweet.js"]),
    min_size=4,
    max_size=4,
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@FEW
@given(names=st.lists(HOSTILE, min_size=1, max_size=4), kinds=KINDS)
def test_paths_in_archives_lead_nowhere(tmp_path: Path, names: list[str], kinds: list[str]) -> None:
    check_archive(tmp_path, names, kinds)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
@MANY
@given(names=st.lists(HOSTILE, min_size=1, max_size=4), kinds=KINDS)
def test_many_paths_in_archives_lead_nowhere(
    tmp_path: Path, names: list[str], kinds: list[str]
) -> None:
    check_archive(tmp_path, names, kinds)
