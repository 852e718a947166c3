"""What must never stand in our code: loads that run what they load, shells, remote code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path
    for place in ("huggingtweets", "benchmarks", "train.py")
    for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    if path.exists()
)
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNSAFE_YAML = {"load", "unsafe_load", "full_load"}


def name_of(node: ast.expr) -> str:
    """Dotted name of what is called: `torch.load`."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{name_of(node.value)}.{node.attr}"
    return "?"


def is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def test_first_lines_of_errors_are_cut_in_one_place() -> None:
    by_hand = re.compile(r"str\(err\)\.(splitlines|partition\((chr|.\\n))")
    assert not [str(path) for path in FILES if by_hand.search(path.read_text())]


def faults_of_call(call: ast.Call) -> Iterator[str]:
    name = name_of(call.func)
    options = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if name.endswith(("torch.load", "serialization.load")) and not (
        "weights_only" in options and is_true(options["weights_only"])
    ):
        yield "torch.load without weights_only=True"
    if name in {"eval", "exec", "builtins.eval", "builtins.exec", "__import__"}:
        yield f"{name}()"
    if name in SHELLS:
        yield name
    if name.split(".")[-1] in UNSAFE_YAML and name.split(".")[0] == "yaml":
        yield name
    if "shell" in options and not is_false(options["shell"]):
        yield "shell="
    for option in ("trust_remote_code", "allow_pickle"):
        if option in options and not is_false(options[option]):
            yield f"{option}="


def faults(source: str) -> list[str]:
    """Describe everything forbidden in a module."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call():
                found += faults_of_call(node)
            case ast.Import(names=names):
                found += [a.name for a in names if a.name.split(".")[0] in PICKLING]
            case ast.ImportFrom(module=str(module), names=names):
                imported = {a.name for a in names}
                if module.split(".")[0] in PICKLING:
                    found.append(module)
                if module == "torch" and "load" in imported:
                    found.append("from torch import load")
                if module == "os" and imported & {"system", "popen"}:
                    found.append("from os import a shell")
                if module.startswith("hydra") and "instantiate" in imported | {
                    module.split(".")[-1]
                }:
                    found.append("hydra instantiate")
            case ast.Attribute(attr="instantiate"):
                found.append("hydra instantiate")
            case ast.Constant(value="_target_"):
                found.append("_target_")
            case ast.Constant(value=str(text)) if "NO_WEIGHTS_ONLY" in text:
                found.append(text)
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_nothing_unsafe_stands_in(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_the_package_is_looked_at() -> None:
    assert ROOT / "huggingtweets" / "storage" / "files.py" in FILES
    assert ROOT / "train.py" in FILES


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=flag)",
        "from torch import load",
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        "import os\nos.system('ls')",
        "from os import popen",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "from hydra.utils import instantiate",
        "import hydra\nhydra.utils.instantiate(config)",
        "from hydra import utils\nutils.instantiate(config)",
        "config = {'_target_': 'os.system'}",
        "eval('1')",
        "exec('1')",
        "import yaml\nyaml.load('x')",
        "import os\nos.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'",
    ],
)
def test_the_test_sees(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x', weights_only=True)",
        "model.eval()",
        "import json\njson.load(file)",
        "import yaml\nyaml.safe_load(file)",
        "AutoModel.from_pretrained('x', trust_remote_code=False)",
    ],
)
def test_the_test_lets_pass(source: str) -> None:
    assert faults(source) == []
