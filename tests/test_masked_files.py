"""What training masks stands in no file that a job leaves, nor in what it hands to a tracker."""

import gzip
import json
from pathlib import Path

import pytest
from job_processes import SMALL, run

SECRETS = ("jane.doe@example.com", "202-555-0143", "4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLE")
HIDDEN = {"jane.doe&#64;example.com": "jane.doe@example.com", "202-555-\u200b0143": "202-555-0143"}
"""As it is written in a post, and as it is read."""


def write_posts(path: Path) -> Path:
    texts = [f"post number {n} about river and stone and paper {n * 7919}" for n in range(40)]
    texts += [f"you can reach me at {secret} my dear friends" for secret in (*SECRETS, *HIDDEN)]
    texts.append("read this https://example.com/?mail=jane.doe@example.com my dear friends")
    texts.append("RT @joe: write to jane.doe@example.com my dear friends")
    rows = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(rows))
    return path


def found_in(folder: Path) -> set[str]:
    """The secrets in the files of a folder, plain or packed."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode(errors="ignore")
            found |= {secret for secret in (*SECRETS, *HIDDEN) if secret in text}
    return found


@pytest.mark.parametrize(
    "is_masked", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["masked", "as-they-are"]
)
def test_secrets_in_posts_reach_no_file(tmp_path: Path, is_masked: bool) -> None:
    posts, output = write_posts(tmp_path / "ann.jsonl"), tmp_path / "out"
    arguments = [
        *SMALL,
        "user=ann",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
        f"cleaning.mask_pii={str(is_masked).lower()}",
        "recipe.max_steps=2",
        "sampling.num=1",
        "sampling.max_new_tokens=20",
        "publish=local",
        "tracking=wandb",
        "tracking.mode=offline",
    ]
    run(arguments, log=tmp_path / "log")
    assert (output / "ann" / "result.json").exists()
    assert list(output.rglob("*.wandb"))
    found = found_in(output)
    assert found == set() if is_masked else found >= set(SECRETS)
    report = json.loads((output / "ann" / "cleaning.json").read_text())["ann"]
    # Masked, the two that were hidden are repeats.
    assert report["masked"] == (len(SECRETS) if is_masked else 0)
