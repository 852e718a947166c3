import json
from pathlib import Path

import pytest

from huggingtweets.cli import main as cli
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.people.check import Check, check_job, describe

register()


def check(user: str, *overrides: str) -> Check:
    config = to_config(compose_config([f"user={user}", *overrides]))
    return check_job(config, Job.of([user]))


def test_the_funnel_adds_up_and_examples_stand_beside_their_originals() -> None:
    found = check("demo")
    report = found.reports[0]
    assert report.downloaded == report.retweets + report.short + report.repeats + report.kept
    assert (found.languages, found.problem, len(found.examples)) == (("en",), "", 10)
    assert all(example.original != example.cleaned for example in found.examples)
    assert all(example.cleaned[:20] in example.original for example in found.examples)


def test_too_few_posts_are_told_with_the_counts(tmp_path: Path) -> None:
    path = tmp_path / "ann.jsonl"
    path.write_text("".join(json.dumps({"text": f"only a few words {n}"}) + "\n" for n in range(9)))
    found = check("ann", "source=jsonl", f"source.path={path}")
    assert "expected at least 6,000 characters" in found.problem
    assert found.reports[0].kept == 9
    assert any("consent=unstated" in warning for warning in found.warnings)


def test_posts_in_another_language_want_another_base_and_their_own_prompts(tmp_path: Path) -> None:
    path = tmp_path / "ann.jsonl"
    text = "Heute Morgen haben wir im Garten Kirschen gepflückt und danach Kuchen gebacken, Tag"
    path.write_text("".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n in range(99)))
    source = ("source=jsonl", f"source.path={path}", "cleaning.drop_repeats=false")
    base, prompts = "gpt2 was trained on English", "sampling.prompts=[...]"
    for overrides, expected in {
        (): [base, prompts],
        ("sampling.prompts=[Heute]",): [base],
        ("model=gemma3-270m",): [prompts],
    }.items():
        warnings = " ".join(check("ann", *source, *overrides).warnings)
        assert [each for each in (base, prompts) if each in warnings] == expected
    assert not any("English" in warning for warning in check("demo").warnings)


def test_nothing_from_outside_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ann.jsonl"
    rows = [
        {"text": f"\x1b[2J\x07 {n} \u202e some words \r here http://x.y\x9b"} for n in range(20)
    ]
    for row in rows:
        row["user"] = {"screen_name": "ann", "name": "\x1b]0;evil\x07Ann\n"}  # type: ignore[assignment]
    path.write_text("\n".join(map(json.dumps, rows)))
    lines = describe(check("ann", "source=jsonl", f"source.path={path}"))
    assert all(line.isprintable() for line in lines)
    assert len(lines) > 20


def test_looking_twice_at_posts_that_cost_is_refused() -> None:
    with pytest.raises(ConfigError, match="huggingtweets import x_api ann --to posts/"):
        check("ann", "source=x_api", "source.terms=accepted")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "user=[demo,gran_turbo]", "model=tiny", "recipe.block_size=64"]) == 0
    shown = capsys.readouterr().out
    for part in ("@demo", "@gran_turbo", "posts received", "language   en", "steps      about"):
        assert part in shown
    assert cli.main(["check", "user=nobody_we_know"]) == 1
    assert cli.main(["check", "user=demo", "recip.lr=1"]) == 2


def test_many_people_are_a_table_and_one_is_told_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users.txt").write_text("demo\ngran_turbo\nnobody_we_know\n")
    words = ["check", f"user=file:{tmp_path / 'users.txt'}", "model=tiny", "recipe.block_size=64"]
    assert cli.main(words) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "job",
        "demo",
        "gran_turbo",
        "nobody_we_know",
        "3",
        "links:",
        "time:",
    ]
    assert "refused: source=demo: got user=nobody_we_know" in lines[3]
    counts = [[int(word.replace(",", "")) for word in line.split()[1:8]] for line in lines[1:3]]
    summed = [int(word.replace(",", "")) for word in lines[4].split()[2:9]]
    assert summed == [sum(pair) for pair in zip(*counts, strict=True)]
    assert lines[4].endswith("1 refused")
    assert "original" not in "".join(lines)
    assert cli.main([*words, "--show"]) == 1
    assert capsys.readouterr().out.count("  original   ") == 20


def test_a_table_says_what_the_posts_were_taken_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"ann": "id,username,text,is_retweet\n", "bob": "id,text\n"}
    for who, head in rows.items():
        more = f",{who}," if who == "ann" else ","
        lines = [f"{n}{more}a post by {who}, number {n} t.co/aB3dE0{n:04}" for n in range(9)]
        lines = [f"{line},0" if who == "ann" else line.replace(" t.co", "") for line in lines]
        (tmp_path / f"{who}.csv").write_text(head + "\n".join(lines).replace(", n", " n"))
    (tmp_path / "users.txt").write_text("ann\nbob\n")
    cli.main(
        ["check", f"user=file:{tmp_path / 'users.txt'}", "source=csv", f"source.path={tmp_path}"]
    )
    said = capsys.readouterr().out
    assert "author: column username (1); the file's name (1)\n" in said
    assert "retweets: is_retweet (1); texts that begin with RT @ (1)\n" in said
    assert "text: text, utf-8 (2)\n" in said
    assert "links: t.co without https:// (1); none (1)\n" in said


def test_what_a_file_was_taken_for_is_told(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    rows = [f"{n},ann,b'post number {n} pic.twitter.com/x{n}',{n % 2}" for n in range(20)]
    rows += [f"{99 + n},bob,b'no number {n}',0" for n in range(5)]
    path.write_text("\n".join(["id,username,text,is_retweet", *rows]), encoding="cp1252")
    lines = describe(check("ann", "source=csv", f"source.path={path}"))
    told = {line.split()[0]: line for line in lines if line.startswith("  ") and line[2] != " "}
    assert "column username; 5 records of 1 other left out" in told["author"]
    assert "is_retweet (10 marked)" in told["retweets"]
    assert "text, utf-8, 20 posts were bytes printed as text" in told["text"]
    assert "pic.twitter.com in 20" in told["links"]
