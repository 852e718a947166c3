"""Training posts are scored beside held-out ones where somebody reads what that tells."""

import json
import random
from pathlib import Path

import pytest
from job_processes import SMALL, history, run


@pytest.mark.parametrize(
    ("engine", "words", "is_known"),
    [
        ("single", ("publish=none",), False),
        ("single", ("publish=local", "publish.known=false"), False),
        ("fused", ("publish=none", "publish.known=true"), True),
        ("fused", ("publish=none", "recipe.stop=memorisation"), True),
    ],
)
def test_known_posts_are_scored_where_asked_for(
    tmp_path: Path, engine: str, words: tuple[str, ...], is_known: bool
) -> None:
    rng = random.Random(0)
    texts = [" ".join("".join(rng.choices("abcdefgh", k=5)) for _ in range(6)) for _ in range(80)]
    rows = [json.dumps({"id": str(number), "text": text}) for number, text in enumerate(texts)]
    (tmp_path / "ann.jsonl").write_text("\n".join(rows))
    small = [word for word in SMALL if word != "publish=none"]
    run([
        *small,
        "user=ann",
        "source=jsonl",
        f"source.path={tmp_path}",
        f"output_dir={tmp_path / 'out'}",
        f"engine={engine}",
        "recipe.epochs=1",
        "recipe.heldout_frac=0.2",
        *words,
    ])  # fmt: skip
    evals = [line for line in history(tmp_path / "out" / "ann") if "eval_bits_per_byte" in line]
    assert len(evals) >= 2
    assert all(("eval_train_bits_per_byte" in line) == is_known for line in evals)
    if "publish=local" in words:
        # Judged after training where nothing was found in it.
        found = json.loads((tmp_path / "out" / "ann" / "result.json").read_text())
        assert found["quality"]["model"]["train_bits_per_byte"] > 0
