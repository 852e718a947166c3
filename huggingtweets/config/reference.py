"""The reference of all keys, rendered from the schema: `python -m huggingtweets.config.reference`.

Writes docs/reference.md; a test holds the page to the code.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from huggingtweets.config import schema
from huggingtweets.config.compose import read_config
from huggingtweets.config.overrides import choices_of, option_names

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
_FIRST = "## Groups\n"
"""The first heading of what is made of the schema."""


def render() -> str:
    """Return the page as Markdown; what stands above the tables is written by hand and stays."""
    head, _, _ = PAGE.read_text(encoding="utf-8").partition(_FIRST)
    parts = [head + _FIRST, "| group | options |", "| --- | --- |"]
    for group in schema.group_names():
        options = option_names(group)
        parts.append(f"| `{group}=` | {', '.join(f'`{option}`' for option in options)} |")
    config = read_config([])
    parts += ["", *_table("Top level", config, "")]
    for field in fields(config):
        group = getattr(config, field.name)
        if is_dataclass(group):
            parts += _table(field.name, group, f"{field.name}.")
    return "\n".join(parts) + "\n"


def _table(title: str, config: Any, prefix: str) -> Iterator[str]:
    owner = type(config)
    yield f"## {title}\n"
    if prefix:
        yield f"{inspect.getdoc(owner)}\n"
    yield "| key | default | meaning |"
    yield "| --- | --- | --- |"
    notes = _notes(owner)
    hints = get_type_hints(owner)
    for field in fields(config):
        if not is_dataclass(hints[field.name]):
            note = " ".join(filter(None, [notes.get(field.name), _choices(hints[field.name])]))
            yield f"| `{prefix}{field.name}` | `{_value(getattr(config, field.name))}` | {note} |"
    yield ""


def _notes(owner: type) -> dict[str, str]:
    """Return the text below each field."""
    body = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
    return {
        node.target.id: " ".join(note.value.value.split()).replace("|", "\\|")
        for node, note in pairwise(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(note, ast.Expr)
        and isinstance(note.value, ast.Constant)
        and isinstance(note.value.value, str)
    }


def _choices(kind: Any) -> str:
    allowed = choices_of(kind)
    return f"One of {', '.join(f'`{value}`' for value in allowed)}." if allowed else ""


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "value", value))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
