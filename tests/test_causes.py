"""What may be tried again: by cause, whatever library raised it, and as our own words say."""

import ast
import errno
import importlib
import inspect
import pickle
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


def errors_that_say_again() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if not is_call or "command again" not in sentences(node):
                continue
            assert isinstance(node, ast.Call)
            assert isinstance(node.func, ast.Name)
            if node.func.id.endswith("Error"):
                yield name, node.func.id


def test_no_message_asks_for_what_the_next_start_refuses() -> None:
    found = set(errors_that_say_again())
    assert len(found) > 5
    for module, name in found:
        place = importlib.import_module(module)
        kind = getattr(place, name)
        assert inspect.isclass(kind)
        assert issubclass(kind, HuggingtweetsError)
        # An error about the disk may be of another class: its cause is set where it is made.
        has_cause = (
            "cause" in Path(inspect.getsourcefile(importlib.import_module(module))).read_text()
        )
        assert kind.retryable or has_cause, (module, name)
