"""A reader follows one job from the command to the optimizer step in eight calls."""

import sys
from pathlib import Path
from typing import Any

import pytest
from small import ROOT, SMALL_MODEL

from huggingtweets import train
from huggingtweets.training.parallel import loop

WALK = ["main", "run", "run_jobs", "_run_in_turn", "run_job", "train_single", "fit", "train_step"]


def test_from_the_command_to_the_optimizer_step_are_eight_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    plain = loop.train_step

    def noted(*args: Any, **kwargs: Any) -> Any:
        if not taken:
            frame: Any = sys._getframe(1)
            taken.append("train_step")
            while frame is not None:
                if Path(frame.f_code.co_filename).is_relative_to(ROOT / "huggingtweets"):
                    taken.insert(0, frame.f_code.co_name)
                frame = frame.f_back
        return plain(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", noted)
    words = ["user=demo", *SMALL_MODEL, "recipe.block_size=64", "recipe.max_steps=1"]
    words += ["engine.precision=fp32"]  # as all that this process trains: Accelerate asks for it
    words += ["publish=none", "sampling.num=0", "engine=single", f"output_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    assert train.main() == 0
    assert taken == WALK
