import json
from pathlib import Path

import pytest

from huggingtweets.cli import main as cli
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job
from huggingtweets.jobs.check import Check, check_job, describe

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
    assert "expected at least 6000 characters" in found.problem
    assert found.reports[0].kept == 9
    assert any("consent=unstated" in warning for warning in found.warnings)


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
