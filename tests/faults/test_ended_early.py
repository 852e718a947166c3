"""Early stop by the real train.py: the same on one process and on two, and after a kill."""

import json
import os
import random
import signal
from pathlib import Path

import pytest
from job_processes import SMALL, history, run, weights_digest

from huggingtweets.jobs.ledger import read_ledger


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of words that are never used twice: there is nothing to learn but to memorise."""
    folder = tmp_path_factory.mktemp("posts")
    rng = random.Random(0)
    texts = [" ".join(word(rng) for _ in range(6)) for _ in range(80)]
    rows = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)]
    (folder / "ann.jsonl").write_text("\n".join(rows))
    return folder


def word(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnoprstuvw", k=6))


def arguments(posts: Path, output: Path, *overrides: str) -> list[str]:
    return [
        *SMALL,
        "user=ann",
        "source=jsonl",
        f"source.path={posts}",
        f"output_dir={output}",
        "recipe.epochs=12",
        "recipe.lr=2e-2",
        "recipe.dropout=0",
        "recipe.stop=memorisation",
        "recipe.max_gap=0.4",
        *overrides,
    ]


def die_at_the_end() -> None:
    """Save after every step, and die when training has ended."""
    from huggingtweets.training.checkpoints.saver import Saver
    from huggingtweets.training.progress import Training

    save = Saver.save

    def save_at_once(saver: Saver, *args: object) -> None:
        save(saver, *args)  # type: ignore[arg-type]
        saver._finish()

    Saver.is_due = lambda saver: True  # type: ignore[method-assign]
    Saver.save = save_at_once  # type: ignore[method-assign]
    Training.result = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]


@pytest.mark.slow
@pytest.mark.distributed
def test_a_job_that_ended_early_ends_there_again_after_a_kill(posts: Path, tmp_path: Path) -> None:
    run(arguments(posts, tmp_path / "calm"), log=tmp_path / "log")
    calm = tmp_path / "calm" / "ann"
    result = json.loads((calm / "result.json").read_text())
    evals = [line for line in history(calm) if "eval_loss" in line]
    assert result["train"]["ended_by"] in ("memorisation", "heldout")
    assert 0 < result["train"]["steps"] == evals[-1]["step"]
    assert result["train"]["epochs"] < 12
    assert all(line["eval_train_bits_per_byte"] > 0 for line in evals)
    with pytest.raises(AssertionError):
        run(arguments(posts, tmp_path / "killed"), prepare=die_at_the_end, log=tmp_path / "log")
    killed = tmp_path / "killed" / "ann"
    assert not (killed / "result.json").exists()
    assert list((killed / "checkpoints").glob(f"step-*{result['train']['steps']}"))
    run(arguments(posts, tmp_path / "killed"), log=tmp_path / "log")
    assert weights_digest(killed) == weights_digest(calm)
    assert history(killed) == history(calm)
    run(arguments(posts, tmp_path / "two"), 2, log=tmp_path / "log")
    two = json.loads((tmp_path / "two" / "ann" / "result.json").read_text())
    for key in ("steps", "ended_by", "kept_step"):
        assert two["train"][key] == result["train"][key]


def test_the_ledger_says_why_a_job_ended_early(posts: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("ann\n")
    run(arguments(posts, tmp_path / "out", f"user=file:{users}"), log=tmp_path / "log")
    assert read_ledger(tmp_path / "out")["ann"].reason.startswith("ended early: ")
