"""Every command on the pages works, or says why it is not tested; every link leads somewhere."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from small import ROOT

from huggingtweets.cli.main import parse
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.overrides import schema_keys
from huggingtweets.config.plan import make_plan
from huggingtweets.config.posts_schema import SourceKind
from huggingtweets.config.schema import Consent, TrainConfig
from huggingtweets.handles import Job
from huggingtweets.storage.paths import template

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "cloud" / "hf-jobs.md"]
_BLOCK = re.compile(
    r"(?P<mark><!-- (?:not )?tested: [^>]+ -->\n\s*)?^ *```sh\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
SHELL = ("cd", "source", "export", "$EDITOR")
"""Lines that set the scene."""
NOT_CONFIGURED = ("doctor", "status", "optout", "purge", "init", "sweep", "generate", "serve",
                  "evaluate", "attribute", "compare", "export")  # fmt: skip
"""Commands that take no overrides, or whose own tests compose them."""
register()


def commands_of(page: Path) -> list[list[str]]:
    """The lines of all blocks that nobody marked."""
    found = []
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if not block["mark"]:
            lines = block["text"].replace("\\\n", " ").splitlines()
            found += [words for line in lines if (words := shlex.split(line, comments=True))]
    return found


CASES = [
    pytest.param(words, id=f"{page.stem}: {shlex.join(words)}"[:100])
    for page in PAGES
    for words in commands_of(page)
]


def overrides_of(words: list[str]) -> list[str] | None:
    """What Hydra is asked to compose; None: nothing."""
    if words[0] == "huggingtweets":
        args = parse(words[1:])
        if words[1] in NOT_CONFIGURED:
            return None
        if words[1] == "train":
            return list(args.words)
        given = [*vars(args).get("handles", []), *vars(args).get("overrides", [])]
        extra = [f"source={args.source}"] if words[1] == "import" else []
        return extra + [word for word in given if "=" in word]
    if "train.py" in words:
        assert words[0] in ("accelerate", "python", "torchrun"), words
        for file in (word for word in words if word.startswith("launch/")):
            assert (ROOT / file).is_file()
        return words[words.index("train.py") + 1 :]
    if any(word.endswith(".sbatch") for word in words):
        script = next(word for word in words if word.endswith(".sbatch"))
        assert (ROOT / script).is_file()
        rest = words[words.index(script) + 1 :]
        return None if script.endswith("sweep.sbatch") else rest
    if words[:2] == ["pip", "install"]:
        extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert {*",".join(extras).split(",")} <= {*project["optional-dependencies"], ""}
        return None
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return None
    assert words[0] in SHELL, (
        f"{words[0]}: test it, or mark the block with <!-- not tested: why -->"
    )
    return None


def test_there_are_commands_on_the_pages() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("words", CASES)
def test_every_command_is_understood(words: list[str]) -> None:
    overrides = overrides_of(words)
    if overrides is None or {"--help", "-m"} & {*overrides}:
        return
    make_plan(to_config(compose_config(overrides)), Job.of(["demo"]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:conf|launch|slurm|containers|cloud|benchmarks)/[\w./-]+)`", text):
        path = ROOT / name
        assert path.exists() or template(name).exists(), f"{page.name} names {name}"
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_source_and_ground_is_told_of() -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    for kind in SourceKind:
        assert f"`{kind}`" in page
    for ground in Consent:
        assert f"| `{ground}` |" in page


def test_the_navigation_holds_every_page() -> None:
    listed = set(re.findall(r'"([\w-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([A-Za-z][\w./]*[\w/])`", ARCHITECTURE)))
SOURCES = [*(ROOT / "huggingtweets").rglob("*.py"), ROOT / "tests/models/test_families.py"]


def defined() -> dict[str, set[str]]:
    """What stands in each module, by its last name, and in each class; under "" all of it."""
    found: dict[str, set[str]] = {"": set()}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = names_of(node)
            found.setdefault(path.stem, set()).update(names)
            found[""] |= names
            if isinstance(node, ast.ClassDef):
                inner = {name for one in node.body for name in names_of(one)}
                for one in ast.walk(node):
                    if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store):
                        inner.add(one.attr)
                found.setdefault(node.name, set()).update(inner)
                found[""] |= inner
    return found


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {one.id for one in targets if isinstance(one, ast.Name)}
    return set()


DEFINED = defined()
KEYS = {key for key, _ in schema_keys(TrainConfig)}
OTHERS = {"torch.cuda", "OmegaConf.to_object", "metrics.jsonl", "result.json", "results.csv"}
OTHERS |= {"results.parquet", "index.html", "config.yaml", "names.txt", "status"}
"""What is no name of ours, and files that are made."""


def is_there(name: str) -> bool:
    """Whether a file or folder, `module.name`, `Class.name`, a bare name or a key is as it says."""
    roots = [ROOT / "huggingtweets", ROOT]
    if any((root / name).exists() for root in roots) or name in KEYS:
        return True
    if name.endswith(".py"):
        return any(path.name == name for path in SOURCES)
    owner, _, inner = name.rpartition(".")
    if "/" in owner and not any((root / f"{owner}.py").is_file() for root in roots):
        return False
    return inner in DEFINED.get(Path(owner).name, ())


@pytest.mark.parametrize("name", [one for one in NAMED if one not in OTHERS and "NAME" not in one])
def test_what_the_page_on_architecture_names_is_there(name: str) -> None:
    assert is_there(name)


def test_a_name_that_is_nowhere_is_seen() -> None:
    assert is_there("stages.run_job")
    assert not is_there("stages.run_jobs")
    assert not is_there("training/course.py")
    assert not is_there("recipe.learning_rate")


def test_the_picture_of_the_house_has_every_folder() -> None:
    picture = (ROOT / "docs" / "house.svg").read_text(encoding="utf-8")
    rooms = {path.parent.relative_to(ROOT / "huggingtweets").parts[0] for path in SOURCES[:-1]
             if path.parent != ROOT / "huggingtweets"}  # fmt: skip
    assert all(f">{room}<" in picture for room in rooms), "make picture"
