"""What a person at the terminal sees when a job is done."""

import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from huggingtweets.publishing.facts import ModelFacts, Sample
from huggingtweets.publishing.names import display_name, joined_names, plain_text
from huggingtweets.publishing.pages import build_table
from huggingtweets.storage.paths import JobPaths

MAX_SAMPLES = 10


def show_summary(facts: ModelFacts, paths: JobPaths, console: Console) -> None:
    """Print samples, counts, held-out figures and where each file lies."""
    if facts.is_noise:
        console.print(
            "\n[bold yellow]The samples are noise:[/] the base knows too little language for these "
            "posts. Train again with a base that has read much text, such as model=gpt2."
        )
    elif facts.is_worse:
        console.print(
            "\n[bold yellow]The model is worse than its base[/] on posts that it has not seen. "
            "Train again at a lower recipe.lr, or for fewer recipe.epochs."
        )
    if samples := _some(facts.samples):
        console.print(f"\n[bold]What {escape(joined_names(facts.people))} might say[/]")
        for sample in samples:
            text = Text(plain_text(sample.input + sample.continuation))
            text.stylize("cyan", 0, len(plain_text(sample.input)))
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
    keys = ("downloaded", "retweets", "short", "repeats", "kept")
    rows = [(key, *(f"{getattr(person, key):,}" for person in facts.people)) for key in keys]
    return build_table("Posts", ("", *map(display_name, facts.people)), rows)


def _figures(facts: ModelFacts) -> Table:
    rows: list[tuple[str, ...]] = [("nothing was held out",)]
    if held := facts.heldout:
        tuned = (f"{held.bits_per_byte:.3f}", f"{held.loss:.3f}", f"{held.perplexity:.1f}")
        rows = [("base", f"{held.base_bits_per_byte:.3f}"), ("fine-tuned", *tuned)]
    return build_table("Held-out posts", ("", "bits per byte", "loss", "perplexity"), rows)


def _files(paths: JobPaths) -> Table:
    listed = {
        paths.model: "the model: transformers.pipeline('text-generation', model=...) loads it",
        paths.card: "model card",
        paths.preview: "preview picture",
        paths.report: "report, for a browser",
        paths.predictions: "samples",
        paths.metrics: "metrics, one line per logged step",
        paths.result: "counts, figures, versions",
    }
    rows = (
        (f"{path.relative_to(paths.root)}{'/' if path.is_dir() else ''}", meaning)
        for path, meaning in listed.items()
        if path.exists()  # publish=none leaves neither card, picture nor report
    )
    return build_table(f"Files in {paths.root}", ("", ""), rows, has_head=False)
