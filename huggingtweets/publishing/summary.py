"""What a person at the terminal sees when a job is done."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from huggingtweets.paths import JobPaths
from huggingtweets.publishing.facts import ModelFacts, Sample
from huggingtweets.publishing.names import display_name, joined_names, plain_text

MAX_SAMPLES = 10


def show_summary(facts: ModelFacts, paths: JobPaths, console: Console) -> None:
    """Print samples, counts, held-out figures and where each file lies."""
    if facts.is_noise:
        console.print(
            "\n[bold yellow]The samples are noise:[/] the base knows too little language for these "
            "posts. Train again with a base that has read much text, such as model=gpt2."
        )
    samples = _some(facts.samples)
    if samples:
        console.print(f"\n[bold]What {escape(joined_names(facts.people))} might say[/]")
        for sample in samples:
            prompt, post = (
                escape(plain_text(text))
                for text in (sample.input, sample.input + sample.continuation)
            )
            text = f"[cyan]{prompt}[/]{post.removeprefix(prompt)}"
            console.print(Padding(text, (0, 0, 0, 2)))
    console.print()
    console.print(_counts(facts))
    console.print(_figures(facts))
    console.print(_files(paths))
    console.print(
        f"More posts: huggingtweets generate {escape(shlex.quote(str(paths.root)))}",
        soft_wrap=True,
        highlight=False,
    )


def _some(samples: Sequence[Sample]) -> list[Sample]:
    """Take at most MAX_SAMPLES, as many of each prompt as there is room for."""
    step = max(1, len(samples) // MAX_SAMPLES)
    return list(samples[::step][:MAX_SAMPLES])


def _counts(facts: ModelFacts) -> Table:
    table = Table(title="Posts", title_justify="left")
    table.add_column("")
    for person in facts.people:
        table.add_column(escape(display_name(person)), justify="right")
    for key in ("downloaded", "retweets", "short", "repeats", "kept"):
        table.add_row(key, *(f"{getattr(person, key):,}" for person in facts.people))
    return table


def _figures(facts: ModelFacts) -> Table:
    table = Table(title="Held-out posts", title_justify="left")
    for column in ("", "bits per byte", "loss", "perplexity"):
        table.add_column(column, justify="left" if not column else "right")
    heldout = facts.heldout
    if heldout:
        table.add_row("base", f"{heldout.base_bits_per_byte:.3f}", "", "")
        table.add_row(
            "fine-tuned",
            f"{heldout.bits_per_byte:.3f}",
            f"{heldout.loss:.3f}",
            f"{heldout.perplexity:.1f}",
        )
    else:
        table.add_row("nothing was held out", "", "", "")
    return table


def _files(paths: JobPaths) -> Table:
    table = Table(title=f"Files in {paths.root}", title_justify="left", show_header=False)
    listed = {
        paths.model: "the model: transformers.pipeline('text-generation', model=...) loads it",
        paths.card: "model card",
        paths.preview: "preview picture",
        paths.report: "report, for a browser",
        paths.predictions: "samples",
        paths.metrics: "metrics, one line per logged step",
        paths.result: "counts, figures, versions",
    }
    for path, meaning in listed.items():
        table.add_row(_short(path, paths.root), meaning)
    return table


def _short(path: Path, root: Path) -> str:
    return escape(str(path.relative_to(root)) + ("/" if path.is_dir() else ""))
