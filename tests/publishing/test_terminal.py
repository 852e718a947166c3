from pathlib import Path
from typing import Any

from rich.console import Console

from huggingtweets.publishing.facts import ModelFacts, Sample
from huggingtweets.publishing.terminal import show_summary
from huggingtweets.storage.paths import JobPaths


def shown(facts: ModelFacts, root: Path) -> str:
    console = Console(width=200, record=True, file=(root / "terminal").open("w"))
    show_summary(facts, JobPaths(root), console)
    return console.export_text()


def test_summary_keeps_the_space_between_prompt_and_continuation(
    make_facts: Any, tmp_path: Path
) -> None:
    samples = (Sample("My dream is", "My dream is [red]a[/red] map"), Sample("I", "want cake"))
    text = shown(make_facts(samples=samples), tmp_path)
    assert "My dream is [red]a[/red] map" in text
    assert "I want cake" in text


def test_a_prompt_that_looks_like_markup_is_shown_once(make_facts: Any, tmp_path: Path) -> None:
    text = shown(make_facts(samples=(Sample("see [b", "see [b] and [/b] here"),)), tmp_path)
    assert "  see [b] and [/b] here" in text
    assert text.count("see [b") == 1


def test_summary_lists_the_files_that_are_there(make_facts: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = shown(make_facts(), tmp_path)
    assert "model/ " in text
    assert "report.html" not in text


def test_summary_shows_counts_figures_and_files(make_facts: Any, tmp_path: Path) -> None:
    (tmp_path / "result.json").touch()
    text = shown(make_facts(), tmp_path)
    for part in ("downloaded", "kept", "bits per byte", "base", "fine-tuned", "result.json"):
        assert part in text
    assert f"huggingtweets generate {tmp_path}" in text
    assert "nothing was held out" in shown(make_facts(heldout=None), tmp_path)
