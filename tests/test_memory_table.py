"""The memory table of the documentation is what its program computes."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "memory_table.py"))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_parameters_are_those_of_the_published_models(name: str, published: int) -> None:
    assert PROGRAM["num_parameters"](name)[0] == published


@pytest.mark.slow
def test_the_documentation_shows_the_table() -> None:
    assert PROGRAM["table"]() in (ROOT / "docs" / "distributed.md").read_text()


def test_sharing_out_more_needs_less() -> None:
    need = PROGRAM["need"]
    for name in PROGRAM["SHAPES"]:
        stages = [need(name, stage, 4).total for stage in ("multi_gpu", "zero1", "zero2", "zero3")]
        assert stages == sorted(stages, reverse=True)
        assert need(name, "zero3", 8).total < need(name, "zero3", 2).total
