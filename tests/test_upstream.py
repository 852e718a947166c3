"""Private parts of other projects: used in `upstream` alone, and there as long as it says."""

import argparse
import ast
import importlib
from pathlib import Path
from typing import Any

import pytest
from hydra._internal import utils

from huggingtweets import upstream
from huggingtweets.upstream import aten, hydra_args_parser

PACKAGE = Path(upstream.__file__).parent
OURS = {"_replace", "_asdict", "_fields", "_exit"}
"""Public in spite of their names: of named tuples and of `os`."""
PARTS = {
    "accelerate: one state": ("accelerate.state", "AcceleratorState._reset_state"),
    "argparse: what reads a help": ("argparse", "ArgumentParser.add_argument"),
    "hydra: builds its parser": ("hydra._internal.utils", "get_args_parser"),
    "hydra: where main finds it": ("hydra.main", "get_args_parser"),
    "torch: a failed capture": ("torch", "_C._cuda_endAllocateToPool"),
    "torch: its pool": ("torch", "_C._cuda_releasePool"),
    "torch: compiled shapes": ("torch._dynamo", "config.recompile_limit"),
    "torch: shapes alone": ("torch._subclasses", "FakeTensor"),
    "torch: many copies": ("torch", "_foreach_copy_"),
    "torch: function modes": ("torch.overrides", "_get_current_function_mode"),
    "torch: AdamW": ("torch", "_fused_adamw_"),
    "torch: local rows": (
        "torch.distributed.tensor._utils", "compute_local_shape_and_global_offset"
    ),
    "torch: the driver": ("torch", "_C"),
    "optuna: draws": ("optuna", "Trial._suggest"),
    "transformers: SDPA": ("transformers", "GPT2LMHeadModel._supports_sdpa"),
    "transformers: blocks": ("transformers", "GPT2LMHeadModel._no_split_modules"),
    "transformers: attention": ("transformers", "GPT2Config._attn_implementation"),
}  # fmt: skip


@pytest.mark.parametrize("what", PARTS)
def test_the_part_is_where_it_was_seen(what: str) -> None:
    module, name = PARTS[what]
    part: Any = importlib.import_module(module)
    for step in name.split("."):
        assert hasattr(part, step), f"{what}: {module}.{name} has moved: see huggingtweets/upstream"
        part = getattr(part, step)


def test_operators_called_by_name_are_there() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "aten":
                assert isinstance(node.args[0], ast.Constant)
                assert callable(aten(node.args[0].value))
    with pytest.raises(AttributeError):
        aten("_no_such_operator")


def test_no_other_module_reads_private_parts_of_other_projects() -> None:
    trees = {p: ast.parse(p.read_text()) for p in PACKAGE.rglob("*.py") if p.stem != "upstream"}
    own = {name for tree in trees.values() for node in ast.walk(tree) for name in _defined(node)}
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            names = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(one.name for one in node.names)]
            private = {name for name in names if name.startswith("_") and not name.endswith("__")}
            if private - own - OURS:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {private}")
    assert not found, "these belong into huggingtweets/upstream.py"


def _defined(node: ast.AST) -> list[str]:
    """Return what a piece of the package defines or sets, and so is the package's own."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr] if getattr(node.value, "id", "") in ("self", "cls") else []
    return []


@pytest.fixture
def _like_python_314(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_help(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        """As in CPython 3.14: `_expand_help` begins with a search for "%"."""
        help_text: Any = action.help
        if help_text:
            try:
                "%" in help_text  # noqa: B015
            except TypeError as err:
                raise ValueError("badly formed help string") from err

    original = argparse.ArgumentParser.add_argument

    def add_argument(parser: Any, *args: Any, **kwargs: Any) -> argparse.Action:
        action = original(parser, *args, **kwargs)
        parser._check_help(action)
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", check_help, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_argument)


@pytest.mark.usefixtures("_like_python_314")
def test_hydras_parser_fails_there_and_ours_does_not() -> None:
    with pytest.raises(ValueError, match="badly formed help"):
        utils.get_args_parser()
    args = hydra_args_parser().parse_args(["user=a", "--cfg", "job"])
    assert args.overrides == ["user=a"]
    assert "shell completion" in hydra_args_parser().format_help()


def test_elsewhere_it_is_hydras_own() -> None:
    assert hydra_args_parser().parse_args(["-m", "a=1,2"]).multirun
