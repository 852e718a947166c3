"""What may be tried again: by cause, whatever library raised it, and as our own words say."""

import ast
import errno
import importlib
import pickle
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models

from huggingtweets.causes import Cause, as_known, cause_of, is_curable
from huggingtweets.errors import (
    CheckpointError,
    ConfigError,
    HuggingtweetsError,
    OptedOutError,
    SourceError,
    StorageError,
    TooFewPostsError,
)

PACKAGE = Path(__file__).parents[1] / "huggingtweets"
FULL = Path("/dev/full")


def raised(action: object) -> Exception:
    assert callable(action)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library has a kind of its own
        action()
    return caught.value


def write_arrow() -> None:
    with pa.OSFile(str(FULL), "wb") as file:
        file.write(b"x" * 100_000)


def save_torch() -> None:
    torch.save({"a": torch.zeros(10**6)}, FULL)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "action",
    [
        write_arrow,
        save_torch,
        lambda: Tokenizer(models.BPE()).save(str(FULL)),
        lambda: FULL.write_text("x"),
    ],
    ids=["pyarrow", "torch", "tokenizers", "python"],
)
def test_a_full_disk_is_known_whoever_says_so(action: object) -> None:
    err = raised(action)
    assert is_curable(err), repr(err)
    assert cause_of(err) in (Cause.room, Cause.disk)
    known = as_known("out/ann", err)
    assert isinstance(known, StorageError)
    assert known.retryable
    assert "again" in str(known)


LIMITED = """
import resource, signal, sys
import torch
from safetensors.torch import save_file
from huggingtweets.causes import is_curable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_file({"a": torch.zeros(10**5)}, sys.argv[1])
except Exception as err:
    assert not isinstance(err, OSError), err
    assert is_curable(err), err
    print("known")
"""


def test_a_write_that_fails_is_known_by_safetensors(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "known\n", done.stderr


@pytest.mark.parametrize(
    "err",
    [
        zlib.error("Error -3 while decompressing"),
        ValueError("No space left on device"),  # a post that quotes it
        KeyError("errno 28"),
        OptedOutError("@ann: is on the list"),
        TooFewPostsError("ann: No space left on device, she wrote"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_what_comes_again_is_not_tried_again(err: Exception) -> None:
    assert not is_curable(err)


def test_a_path_that_cannot_be_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for action in (
        lambda: (tmp_path / ("x" * 300)).read_text(),
        lambda: (tmp_path / "file" / "x").read_text(),
        lambda: (tmp_path / "file").mkdir(),
    ):
        known = as_known("out", raised(action))
        assert isinstance(known, ConfigError)
        assert not known.retryable
        assert "choose another" in str(known)


def test_a_cause_goes_along_through_raise_from_and_through_a_process() -> None:
    try:
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError as err:
            raise SourceError("posts: cannot be read") from err
    except SourceError as err:
        known = as_known("x", err)
    assert known is not None
    there = pickle.loads(pickle.dumps(known))
    assert (there.retryable, there.cause, cause_of(there)) == (True, Cause.disk, Cause.disk)
    assert not CheckpointError.retryable, "the class stays as it was"


def sentences(node: ast.AST) -> str:
    return " ".join(
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    )


AGAIN = re.compile(r"command again|again later")


def errors_that_say_again(tree: ast.AST) -> Iterator[tuple[ast.Call, list[ast.AST]]]:
    """Yield each error that asks for another start, with what it stands in, the nearest last."""
    stack: list[tuple[ast.AST, list[ast.AST]]] = [(tree, [])]
    while stack:
        node, around = stack.pop()
        stack += [(child, [*around, node]) for child in ast.iter_child_nodes(node)]
        is_error = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error")
        if isinstance(node, ast.Call) and is_error and AGAIN.search(sentences(node)):
            yield node, around


def is_told_its_cause(around: list[ast.AST]) -> bool:
    """Whether an error is given its cause or is raised from one that has it."""
    parent = around[-1]
    if isinstance(parent, ast.Raise):
        caught = [ast.unparse(one.type) for one in around
                  if isinstance(one, ast.ExceptHandler) and one.type]  # fmt: skip
        return parent.cause is not None and bool(caught) and caught[-1] == "OSError"
    names = {ast.unparse(one) for one in getattr(parent, "targets", [])}
    function = next(one for one in reversed(around) if isinstance(one, ast.FunctionDef))
    given = {
        one.value.id
        for one in ast.walk(function)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and one.attr in ("cause", "retryable")
        and isinstance(one.value, ast.Name)
    }
    return bool(names & given)


def test_no_message_asks_for_what_the_next_start_refuses() -> None:
    """Each is of a class that is tried again, or has a cause by which it is: one by one."""
    num = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        for call, around in errors_that_say_again(ast.parse(path.read_text(encoding="utf-8"))):
            kind = getattr(importlib.import_module(name), ast.unparse(call.func))
            place = f"{path.name}:{call.lineno} {kind.__name__}"
            assert issubclass(kind, HuggingtweetsError), place
            assert kind.retryable or is_told_its_cause(around), place
            num += 1
    assert num > 12


KEPT = """
def f():
    err = SourceError('run the command again')
    {}.cause = 1
    return err
"""
RAISED = """
try:
    pass
except {} as err:
    raise SourceError('run it again later') from err
"""


@pytest.mark.parametrize(
    ("code", "is_told"),
    [
        ("def f():\n    raise SourceError('run the same command again')", False),
        (KEPT.format("err"), True),
        (KEPT.format("other"), False),
        (RAISED.format("OSError"), True),
        (RAISED.format("ValueError"), False),
    ],
)
def test_the_rule_sees_a_promise_that_is_not_kept(code: str, is_told: bool) -> None:
    [(_, around)] = errors_that_say_again(ast.parse(code))
    assert is_told_its_cause(around) is is_told
