"""Fixtures every room uses: the shared real data, and small models made on the spot."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real posts, the real GPT-2 tokenizer and model cards; skips where there is none."""
    folder = Path(os.environ.get("HUGGINGTWEETS_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "tweets").is_dir():
        pytest.skip(f"no shared test data at {folder} (set HUGGINGTWEETS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer_dir(shared: Path) -> Path:
    """Folder of the real GPT-2 tokenizer (50,257 ids)."""
    return shared / "gpt2-tokenizer"
