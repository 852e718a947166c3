"""The model card: README.md of the model folder, front matter and all.

Whatever the template inserts is escaped for Markdown, table cells and HTML alike, in one pass.
"""

import math
import re
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from huggingtweets.config.schema import Consent
from huggingtweets.logs import redact
from huggingtweets.publishing.facts import Metric, ModelFacts
from huggingtweets.publishing.names import (
    avatar_colour,
    display_name,
    duration,
    initials,
    joined_handles,
    joined_names,
    plain_text,
    visible,
)

CONSENT_SENTENCES = {
    Consent.unstated: (
        "Nobody has stated on what ground these posts were used. Ask the people concerned before "
        "you share this model."
    ),
    Consent("own-archive"): "The posts are the trainer's own.",
    Consent.permission: "The people concerned gave their permission.",
    Consent("public-figure-research"): (
        "The posts are public statements of public figures, used for research."
    ),
    Consent("public-donation"): "The people concerned donated their posts to the public.",
}

_RISKY = re.compile(
    r"""[][{}<>"#$&*:;@\\^`|~]|(?<!\d)\.(?=\S)|\.(?=[^\s\d])|(?<![^\W_])_|_(?![^\W_])"""
)
"""Punctuation that can mean structure; not so a dot in a number or at the end of a sentence, or `_`
between letters."""
_HERE = '"FOLDER")  # the folder this card lies in'
"""Where to load the model from, as long as it is in no repository."""
_URL = re.compile(r"https?://[A-Za-z0-9./?=&%_~:@+,;#-]+")


class _Raw(str):
    """Text that goes into the card as it is."""


def escape(text: str) -> str:
    """Return one line that shows as `text` in Markdown, in a table cell and in HTML.

    Risky punctuation becomes character references, which CommonMark never takes for structure.
    For use within a line: at its start, `-` and the like would still begin a list.
    """
    return _RISKY.sub(lambda match: f"&#{ord(match[0])};", plain_text(text))


def render_card(facts: ModelFacts) -> str:
    """Return the text of README.md."""
    return card_template().render(
        facts=facts,
        front_matter=_Raw(_dump_yaml(front_matter(facts))),
        names=joined_names(facts.people),
        handles=joined_handles(facts.people),
        consent=CONSENT_SENTENCES[facts.consent],
        command=_code_block(redact(facts.command), "bash"),
        usage=_code_block(_usage(facts), "python"),
        duration=duration(facts.train.seconds),
        versions=", ".join(f"{name} {version}" for name, version in facts.versions.items()),
    )


def for_hub(card: str, address: str, consent: Consent) -> str:
    """Return a card as it reads in a repository of the Hub.

    Args:
        card: as it lies in the model folder.
        address: of the repository, `https://huggingface.co/org/name`.
        consent: on what ground, where the card does not say; unstated: nobody has said since.
    """
    repo_id = "/".join(address.split("/")[-2:])
    changes = {
        "\nthumbnail: preview.png\n": f"\nthumbnail: {address}/resolve/main/preview.png\n",
        _HERE: f'"{repo_id}")',
        escape(CONSENT_SENTENCES[Consent.unstated]): escape(CONSENT_SENTENCES[consent]),
    }
    for old, new in changes.items():
        card = card.replace(old, new, 1)
    return card


@cache
def card_template() -> Template:
    """Return the card's template: to compile it takes longer than to fill it in."""
    environment = Environment(
        loader=PackageLoader("huggingtweets.publishing"),
        finalize=lambda value: value if isinstance(value, _Raw) else escape(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(
        avatar_colour=lambda handle: _Raw(avatar_colour(handle)),
        count=lambda number: _Raw(f"{number:,}"),
        figure=lambda number: _Raw(f"{number:.4g}"),
        initials=initials,
        name=display_name,
        url=_url,
    )
    return environment.get_template("card.md.jinja")


def front_matter(facts: ModelFacts) -> dict[str, Any]:
    """Return the card's metadata, in the form the Hub documents."""
    languages = list(facts.languages)
    matter: dict[str, Any] = {
        "language": languages[0] if len(languages) == 1 else languages,
        "license": facts.base.license or "unknown",
        "library_name": "transformers" if facts.base.is_kept else "peft",
        "pipeline_tag": "text-generation",
        "thumbnail": "preview.png",
        "tags": ["huggingtweets", "synthetic-text"],
        "widget": [{"text": "My dream is"}],
    }
    if facts.base.hub_id:
        relation = "finetune" if facts.base.is_kept else "adapter"
        matter |= {"base_model": facts.base.hub_id, "base_model_relation": relation}
    if metrics := _metrics(facts):
        matter["model-index"] = [
            {
                "name": facts.slug,
                "results": [
                    {
                        "task": {"type": "text-generation", "name": "Text generation"},
                        "dataset": {
                            "type": f"posts-{facts.slug}",
                            "name": f"Held-out posts of {joined_handles(facts.people)}",
                        },
                        "metrics": metrics,
                    }
                ],
            }
        ]
    return matter


def _metrics(facts: ModelFacts) -> list[dict[str, Any]]:
    """Return the held-out figures as `model-index` takes them, without infinite ones."""
    metrics = facts.metrics
    if held := facts.heldout:
        metrics = (
            Metric("bits_per_byte", "Bits per byte, held-out posts", held.bits_per_byte),
            Metric("perplexity", "Perplexity per token, held-out posts", held.perplexity),
            Metric("loss", "Loss per token (nats), held-out posts", held.loss),
            *metrics,
        )
    return [
        {"type": one.type, "name": one.name, "value": round(one.value, 4)}
        for one in metrics
        if math.isfinite(one.value)
    ]


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # The Hub reads YAML 1.2, in which `1e5` and more are numbers that PyYAML would leave bare.
    style = None if text[:1].isalpha() and text.isascii() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _dump_yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _code_block(code: str, language: str) -> _Raw:
    """Return code fenced so that nothing in it can end the fence."""
    lines = map(visible, code.splitlines())
    longest = max((len(ticks) for ticks in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Raw("\n".join([f"{fence}{language}", *lines, fence]))


def _usage(facts: ModelFacts) -> str:
    needs = "" if facts.base.is_kept else "  # needs: pip install peft"
    return (
        f"from transformers import pipeline{needs}\n\n"
        f'generator = pipeline("text-generation", model={_HERE}\n'
        'generator("My dream is", do_sample=True, max_new_tokens=160, num_return_sequences=5)'
    )


def _url(text: str) -> _Raw:
    """Return a link's target, or `#` for what is not a plain web address."""
    return _Raw(text if _URL.fullmatch(text) else "#")
