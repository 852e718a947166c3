"""With real trainings: what a purge leaves of a person, and going on with new posts."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small import ROOT, SMALL_MODEL

from huggingtweets.cli import main as cli
from huggingtweets.posts.sources.demo import demo_timeline
from huggingtweets.storage.files import read_json, read_jsonl

QUICK = (
    *SMALL_MODEL,
    "engine.precision=fp32",
    "recipe.block_size=64",
    "recipe.max_steps=4",
    "sampling.num=1",
    "sampling.max_new_tokens=12",
    "consent=permission",
    "source=jsonl",
)


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def write_posts(path: Path, voice: str, num: int = 1500) -> list[str]:
    """Give the oldest posts of an invented person to somebody else."""
    posts = demo_timeline(voice).posts[-num:]
    path.parent.mkdir(exist_ok=True)
    rows = [{"id": post.id, "text": post.text, "created_at": post.created_at} for post in posts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [post.text for post in posts]


@pytest.mark.slow
def test_after_a_purge_no_byte_tells_of_the_person(tmp_path: Path) -> None:
    mine = write_posts(tmp_path / "posts" / "ann_example.jsonl", "demo")
    write_posts(tmp_path / "posts" / "bob_example.jsonl", "gran_turbo")
    users = tmp_path / "users.txt"
    users.write_text("ann_example\nbob_example\nann_example bob_example\n")
    done = train("user=file:users.txt", *QUICK, "source.path=posts", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    needles = [b"ann_example", *(text.encode() for text in sorted(mine, key=len)[-20:])]
    needles += [json.dumps(needle.decode())[1:-1].encode() for needle in needles[1:]]

    def found() -> set[bytes]:
        hits = set()
        for path in (tmp_path / "out").rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            if path.suffix == ".parquet":
                data = json.dumps(pq.read_table(path).to_pylist()).encode()
            text = str(path.relative_to(tmp_path)).encode() + b"\n" + data
            hits |= {needle for needle in needles if needle in text}
        return hits

    assert len(found()) > 20
    assert cli.main(["purge", "ann_example", "--outputs", str(tmp_path / "out"), "--yes"]) == 0
    assert found() == set()
    assert read_json(tmp_path / "out" / "bob_example" / "result.json")["status"] == "done"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bob_example",
        "index.html",
        "ledger",
        "purged.jsonl",
        "results.parquet",
    ]
    assert "bob_example" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_going_on_learns_new_posts_and_a_share_of_the_old(tmp_path: Path) -> None:
    posts = tmp_path / "posts" / "ann.jsonl"
    old = write_posts(posts, "demo", 1000)
    first = train("user=ann", *QUICK, "source.path=posts", "output_dir=out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    learnt = {
        row["text"]
        for row in read_jsonl(tmp_path / "out" / "ann" / "dataset.jsonl.gz")
        if row["side"] == "train"
    }
    write_posts(posts, "demo", 1500)
    go_on = ("model.path=out/ann/model", "recipe.replay=0.2", "output_dir=out2")
    second = train("user=ann", *QUICK, "source.path=posts", *go_on, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    rows = read_jsonl(tmp_path / "out2" / "ann" / "dataset.jsonl.gz")
    sides = {side: {r["text"] for r in rows if r["side"] == side} for side in ("train", "heldout")}
    assert len(sides["train"] & learnt) == round(0.2 * len(learnt))
    assert not sides["heldout"] & learnt
    assert 300 < len(sides["train"] - learnt) < 500
    assert len(old) == 1000
    again = train("user=ann", *QUICK, "source.path=posts", "model.path=out2/ann/model",
                  "output_dir=out3", cwd=tmp_path)  # fmt: skip
    assert again.returncode == 1
    assert "got no post that the model in model.path has not had" in again.stderr
