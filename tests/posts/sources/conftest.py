"""Fixtures for the sources: archives as X writes them, from a mapping of names to texts."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.load import load_timeline

ZipMaker = Callable[..., Path]


@pytest.fixture
def make_zip(tmp_path: Path) -> ZipMaker:
    """Write a zip with these members under `tmp_path`."""

    def make(members: dict[str, str | bytes], name: str = "archive.zip") -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        return path

    return make


@pytest.fixture
def load() -> Callable[..., Timeline]:
    """Load as train.py does: `load("jsonl", path, "nasa", id_column="key")`."""

    def load_kind(kind: str, path: Path | str | None, handle: str, **config: Any) -> Timeline:
        text = None if path is None else str(path)
        return load_timeline(SourceConfig(kind=SourceKind(kind), path=text, **config), handle)

    return load_kind


@pytest.fixture
def tweets_js() -> Callable[..., str]:
    """A `tweets.js` with an entry for each (id, text)."""

    def make(*posts: tuple[int, str], name: str = "tweets", **extra: Any) -> str:
        entries = [
            {
                "tweet": {
                    "id_str": str(number),
                    "id": str(number),
                    "full_text": text,
                    "created_at": "Fri Sep 08 04:00:00 +0000 2023",
                    "retweeted": False,
                    **extra,
                }
            }
            for number, text in posts
        ]
        return f"window.YTD.{name}.part0 = " + json.dumps(entries, indent=2)

    return make
