"""The reference of all keys, rendered from the schema: `python -m huggingtweets.config.reference`.

Writes docs/reference.md; a test holds the page to the code.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from huggingtweets.config import schema
from huggingtweets.config.compose import compose_config, option_names, register, to_config

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"

_HEAD = """\
# Reference

Every key of `train.py`, as `key=value` on the command line. Defaults are those of the default
options; another option of a group (`recipe=huggingtweets`, `model=tiny`) brings its own, and
`huggingtweets train --help` prints what is in effect.

| exit code | meaning |
| --- | --- |
| 0 | every job is done, now or before |
| 1 | some job failed, the rest are done; the ledger says which and why |
| 2 | usage or configuration: one message, nothing was started |
| 75 | stopped on request, everything is saved; the same command goes on |

A launcher of several processes (`accelerate launch`, `torchrun`) turns every code but 0 into 1.

| environment variable | meaning |
| --- | --- |
| `HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN` | cache, offline mode and token of the Hugging Face Hub |
| `WANDB_API_KEY`, `WANDB_BASE_URL` | as W&B documents them; without a key it stays offline |
| `HUGGINGTWEETS_CACHE` | tiny models, unfinished fetches (default: `~/.cache/huggingtweets`) |
| `HUGGINGTWEETS_OPTOUT` | a further list of people who want no model |
| `HUGGINGTWEETS_CONFIG` | `optout.txt`, own `conf/` (default: `~/.config/huggingtweets`) |
| `X_BEARER_TOKEN`, `MASTODON_TOKEN` | your own tokens for `source=x_api` and `source=mastodon` |
| `HUGGINGTWEETS_SHARED` | test data; tests that need it say when they skip |
| `OMP_NUM_THREADS`, `OMP_WAIT_POLICY` | `PASSIVE` where several processes share cores |
"""


def render() -> str:
    """Return the page as Markdown."""
    parts = [_HEAD, "## Groups\n", "| group | options |", "| --- | --- |"]
    for group in schema.group_names():
        options = option_names(group)
        parts.append(f"| `{group}=` | {', '.join(f'`{option}`' for option in options)} |")
    register()
    config = to_config(compose_config([]))
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
    kinds = [kind, *getattr(kind, "__args__", ())]
    for each in kinds:
        if isinstance(each, type) and issubclass(each, StrEnum):
            return "One of " + ", ".join(f"`{member.value}`" for member in each) + "."
    return ""


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "value", value))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
