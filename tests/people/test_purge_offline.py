"""Nothing that can be reached holds a purged person: files of real trainings, W&B's own, links."""

import gzip
import html
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from job_processes import SMALL, run, write_posts
from small import ROOT

ANN, BOB, CAROL = "ann_example", "bob_example", "carol_example"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch tracked offline, a model of its first person's model, and what people add by hand."""
    folder = tmp_path_factory.mktemp("trained")
    posts = write_posts(folder / "posts", ANN, BOB, CAROL)
    (folder / "users.txt").write_text(f"{ANN}\n{BOB}\n")
    small = [word for word in SMALL if not word.startswith(("sampling", "publish", "tracking"))]
    common = [
        *small,
        "source=jsonl",
        f"source.path={posts}",
        "consent=permission",
        "recipe.max_steps=40",
        "recipe.lr=1e-2",
        "sampling.num=15",
        "sampling.prompts=[I like]",
        "publish=local",
    ]
    tracked = ["tracking=wandb", "tracking.mode=offline"]
    batch = [f"user=file:{folder / 'users.txt'}", f"output_dir={folder / 'out'}", *tracked]
    run([*common, *batch], log=folder / "log")
    grown = [word for word in common if not word.startswith("model")]
    here = Path.cwd()
    os.chdir(folder)
    try:
        more = [f"user={CAROL}", "output_dir=more", f"model.path=out/{ANN}/model", "tracking=none"]
        run([*grown, *more], log=folder / "log", prepare=_Inside(folder))
    finally:
        os.chdir(here)
    shutil.move(folder / "more", folder / "out" / "more")
    said = samples(folder / "out")
    (folder / "out" / BOB / "notes.md").write_text("mine alone\n")
    (folder / "out" / "gallery.html").write_text(f"<li>{html.escape(said[3])}</li>")
    (folder / "out" / "quotes.txt").write_text(f"{said[5]}\nsomething else\n".replace("\0", ""))
    return folder


class _Inside:
    """For `Start.prepare`: a relative path is typed in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> None:
        os.chdir(self.folder)


def samples(out: Path, handle: str = ANN) -> list[str]:
    lines = (out / handle / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line)["prediction"] for line in lines]


def needles(folder: Path) -> list[bytes]:
    """The handle, twenty posts and fifteen samples, in the forms that files have them in."""
    lines = (folder / "posts" / f"{ANN}.jsonl").read_text().splitlines()
    posts = sorted((json.loads(line)["text"] for line in lines), key=len)[-20:]
    said = set(samples(folder / "out"))
    assert len(said) == 15
    assert not said & set(samples(folder / "out", BOB)), "what both say is of nobody"
    assert min(map(len, said)) >= 20
    texts = [ANN, *posts, *said]
    forms = [(text, json.dumps(text)[1:-1], html.escape(text)) for text in texts]
    return list({form.encode("utf-8", "replace") for three in forms for form in three})


def everything(folder: Path, seen: set[Path]) -> Iterator[tuple[Path, bytes]]:
    """Every file that can be reached, links followed, with its name and its unpacked content."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [one for one in folders if (Path(place) / one).resolve() not in seen]
        seen.update((Path(place) / one).resolve() for one in folders)
        for path in (Path(place) / name for name in files):
            data = path.read_bytes() if path.is_file() else b""
            if path.suffix == ".gz":
                data = gzip.decompress(data)
            if path.suffix == ".parquet":
                data = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            yield path, data
        yield Path(place), b""


def held(folder: Path, wanted: list[bytes]) -> list[str]:
    return [
        str(path)
        for path, data in everything(folder, set())
        if any(one in data or one in os.fsencode(path.relative_to(folder)) for one in wanted)
    ]


@pytest.mark.parametrize("called_from", [".", "out", "/"])
def test_nothing_that_can_be_reached_holds_a_purged_person(
    trained: Path, tmp_path: Path, called_from: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained / "out", out, symlinks=True)
    other_disk = tmp_path / "other-disk"
    other_disk.mkdir()
    shutil.move(out / ANN, other_disk / ANN)
    (out / ANN).symlink_to(other_disk / ANN)
    wanted = needles(trained)
    before = held(tmp_path, wanted)
    assert any(name.endswith(".wandb") for name in before)
    assert any(f"{CAROL}/config.yaml" in name for name in before)
    command = [sys.executable, "-m", "huggingtweets.cli", "purge", ANN, "--outputs", str(out)]
    done = subprocess.run(
        [*command, "--yes"],
        cwd=tmp_path / called_from,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert held(tmp_path, wanted) == []
    assert (out / BOB / "model" / "model.safetensors").is_file()
    assert (out / BOB / "notes.md").read_text() == "mine alone\n"
    assert "something else" in (out / "quotes.txt").read_text()
    assert list((out / BOB).glob("wandb/offline-run-*/*.wandb")), "those of others stay"
