"""Who may import whom, from the syntax trees, and that light modules import nothing heavy."""

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "huggingtweets"

# From the ground up; a line may import from the lines above it and from itself only where it is
# one package, or of the ground floor. train.py stands above them all.
FLOORS: list[set[str]] = [
    {"errors", "handles", "logs", "process", "attempt", "causes", "storage"}
    | {"online", "gauges", "web", "upstream"},
    {"config"},
    {"standing"},
    {"posts", "tracking"},
    {"runtime"},
    {"data", "ops"},
    {"kernels"},
    {"models"},
    {"bases"},
    {"training"},
    {"generation", "evaluation"},
    {"publishing"},
    {"preview"},
    {"export"},
    {"model_folder"},
    {"pipeline"},
    {"crowd"},
    {"jobs"},
    {"people", "sweep"},
    {"compare"},
    {"doctor", "train", "serve"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}

HEAVY = ("torch", "transformers", "datasets", "wandb", "accelerate", "deepspeed")
LIGHT_PLACES = (
    "config",
    "posts",
    "tracking",
    "jobs",
    "people",
    "sweep",
    "cli",
    "compare",
    "data.corpus",
    "data.split",
    "bases.prefetch",
)
LIGHT_PLACES += (
    "standing",
    "publishing.card",
    "training.stopping",
    "training.watchdog",
    *FLOORS[0],
)
NOT_LIGHT = {
    "compare.grid",
    "compare.scores",
    "jobs.runner",
    "jobs.fused",
    "sweep.run",
    "sweep.fused",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {
    name: path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    if (name := module_name(path)) and "templates" not in path.parts
}
LIGHT = [
    name
    for name in MODULES
    if name not in NOT_LIGHT and any(f"{name}.".startswith(f"{p}.") for p in LIGHT_PLACES)
]


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, without the package's name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix(f"{PACKAGE}.") for name in found if name.startswith(f"{PACKAGE}.")}
    return {name for name in ours if name in MODULES}


def is_allowed(importer: str, imported: str) -> bool:
    mine, theirs = importer.split(".")[0], imported.split(".")[0]
    if mine == theirs or (mine in FLOORS[0] and theirs in FLOORS[0]):
        return True
    return LEVEL.get(theirs, 99) < LEVEL.get(mine, 0)


def test_every_module_has_a_floor() -> None:
    unknown = {name.split(".")[0] for name in MODULES} - set(LEVEL)
    assert not unknown, f"add {unknown} to FLOORS, at the lowest place that holds"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    wrong = {other for other in imports(MODULES[name]) if not is_allowed(name, other)}
    assert not wrong


def test_modules_do_not_import_in_circles() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    # A package and its modules: importing a module runs the package's (empty) __init__ only.
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        pytest.fail(f"circle: {err.args[1]}")


def folder_of(name: str) -> str:
    return MODULES[name].parent.relative_to(ROOT / PACKAGE).as_posix()


def mutual(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Folders of which each imports the other; the package's own folder holds many floors."""
    return {(a, b) for a, b in edges if a < b and (b, a) in edges and "." not in (a, b)}


def test_no_two_folders_import_each_other() -> None:
    edges = {
        (folder_of(name), folder_of(other))
        for name, path in MODULES.items()
        for other in imports(path)
    }
    assert ("training/stacked", "training") in edges, "folders within folders count too"
    assert not mutual(edges)


def test_two_folders_that_import_each_other_are_seen() -> None:
    edges = {("training", "training/stacked"), ("training/stacked", "training"), ("data", "posts")}
    assert mutual(edges) == {("training", "training/stacked")}


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    for path in (ROOT / PACKAGE).rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert ast.get_docstring(ast.Module(body, [])), path


def test_the_rules_see_a_wrong_import() -> None:
    assert not is_allowed("data.corpus", "training.parallel.loop")
    assert not is_allowed("tracking.base", "posts.records")
    assert not is_allowed("generation.sample", "evaluation.heldout")
    assert not is_allowed("errors", "config.schema")
    assert is_allowed("evaluation.heldout", "bases.model")
    assert not is_allowed("ops.linear", "data.blocks")
    assert is_allowed("storage.files", "errors")
    assert is_allowed("cli", "jobs.ledger")


def test_light_modules_import_nothing_heavy() -> None:
    code = f"""
import importlib, json, sys
seen, found = set(), {{}}
for name in json.loads(sys.argv[1]):
    importlib.import_module("{PACKAGE}." + name)
    new = [heavy for heavy in {HEAVY!r} if heavy in sys.modules and heavy not in seen]
    seen.update(new)
    if new:
        found[name] = new
print(json.dumps(found))
"""
    result = subprocess.run(
        [sys.executable, "-c", code, json.dumps(LIGHT)], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {}
    assert "storage.lock" in LIGHT
    assert "training.stopping" in LIGHT


def test_train_py_is_light_until_the_configuration_stands() -> None:
    code = f"""
import json, runpy, sys
runpy.run_path("train.py", run_name="not main")
print(json.dumps([heavy for heavy in {HEAVY!r} if heavy in sys.modules]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == []
