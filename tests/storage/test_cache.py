"""What lies in the cache is looked at before use, and costs time only where it cannot be kept."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from job_processes import SMALL, run, write_posts

from huggingtweets.kernels import compiled
from huggingtweets.storage.cache import cached_folder
from huggingtweets.storage.files import remove


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def replace(path: Path, make: Callable[[Path], object]) -> None:
    remove(path)
    make(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, 3),
    "empty": lambda path: os.truncate(path, 0),
    "flipped": lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
    "folder": lambda path: replace(path, Path.mkdir),
    "link": lambda path: replace(path, lambda to: to.symlink_to("/dev/null")),
    "gone": remove,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", ["thing/a", "thing/.seal.json", "thing"])
def test_a_damaged_folder_is_made_anew(cache: Path, place: str, damage: str) -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        (path / "a").write_bytes(b"content")

    folder = cached_folder("thing", make)
    if place == "thing" and damage in ("cut", "empty", "flipped"):
        replace(folder, lambda path: path.write_bytes(b"content"))
    else:
        DAMAGES[damage](cache / place)
    assert (cached_folder("thing", make) / "a").read_bytes() == b"content"
    assert (cached_folder("thing", make) / "a").read_bytes() == b"content"
    assert len(made) == 2
    assert sorted(path.name for path in (cache / "thing").iterdir()) == [".seal.json", "a"]


BUILD = """
import shutil, subprocess, sys
from huggingtweets.kernels import compiled

def compiler(command, **_):  # in no time
    shutil.copy(sys.argv[1], command[-1])
    return subprocess.CompletedProcess(command, 0)

compiled.subprocess.run = compiler
assert compiled.compiled_ops()
"""


def test_a_cut_library_is_thrown_away_and_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mapped beyond its end kills the process, at this start and at every other."""
    if compiled.compiled_ops() is None:
        pytest.skip("needs a C++ compiler")
    library, cache = compiled._build(), tmp_path / "cache"
    copy = shutil.copytree(library.parent, cache / library.parent.name) / library.name
    os.truncate(copy, 4096)
    monkeypatch.setenv("HUGGINGTWEETS_CACHE", str(cache))
    assert subprocess.run([sys.executable, "-c", BUILD, str(library)]).returncode == 0
    assert copy.read_bytes() == library.read_bytes()


def test_a_home_that_cannot_be_written_costs_speed_only(tmp_path: Path) -> None:
    posts = write_posts(tmp_path / "posts", "ann")
    arguments = [*SMALL, "user=ann", "source=jsonl", f"source.path={posts}", "recipe.max_steps=2"]
    nowhere = "/proc/1/nowhere"  # for root too
    places = ("HUGGINGTWEETS_CACHE", "HOME", "XDG_CACHE_HOME")
    done = run(
        [*arguments, f"output_dir={tmp_path / 'out'}", "consent=permission"],
        environment={**dict.fromkeys(places, nowhere), "CXX": "/bin/false"},
        log=tmp_path / "log",
    )
    assert "HUGGINGTWEETS_CACHE" in done.words()
    assert "Traceback" not in done.words()
    assert (tmp_path / "out" / "ann" / "model" / "model.safetensors").is_file()
