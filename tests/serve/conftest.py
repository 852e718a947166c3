"""Fixtures of the served folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Serving, serving, write_people


@pytest.fixture(scope="package")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_people(folder)
    return folder


@pytest.fixture(scope="package")
def server(output_dir: Path) -> Iterator[Serving]:
    yield from serving(output_dir)
