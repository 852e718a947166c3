"""Every knob does something: its name is read somewhere below the schema."""

import re
from dataclasses import fields, is_dataclass
from typing import get_type_hints

from small import ROOT

from huggingtweets.config.schema import TrainConfig


def keys(schema: type, prefix: str = "") -> list[str]:
    hints = get_type_hints(schema)
    found = []
    for field in fields(schema):
        kind = hints[field.name]
        if is_dataclass(kind):
            found += keys(kind, f"{prefix}{field.name}.")
        else:
            found.append(f"{prefix}{field.name}")
    return found


def test_every_key_is_used() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for path in [*(ROOT / "huggingtweets").rglob("*.py"), ROOT / "train.py"]
        if not path.name.endswith("schema.py")
    ]
    text = "\n".join(sources)
    unused = [
        key for key in keys(TrainConfig) if not re.search(rf"\.{key.rpartition('.')[2]}\b", text)
    ]
    assert not unused
