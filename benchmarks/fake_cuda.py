"""Fake CUDA tensors on a machine without CUDA: shapes, dtypes, devices and memory, no numbers.

`load` must be called before anything imports torch, in a process that does nothing else: PyTorch
believes from then on that there is a GPU.
"""

import ctypes
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")


class NoCompilerError(RuntimeError):
    """The stand-in for the device cannot be built here."""


def build(folder: Path, compiler: str = "c++") -> Path:
    """Build the device for the installed PyTorch, or find it built; returns the library.

    Raises:
        NoCompilerError: there is no compiler, or it does not compile it.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise NoCompilerError("torch is not installed")
    torch_dir = Path(spec.origin).parent
    key = f"{SOURCE.read_text()}{torch_dir}{(torch_dir / 'version.py').read_text()}"
    library = folder / f"fake-cuda-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    lib = torch_dir / "lib"
    draft = library.with_suffix(f".{id(key)}.tmp")
    command = [compiler, "-shared", "-fPIC", "-std=c++20", f"-I{torch_dir / 'include'}"]
    command += [str(SOURCE), "-o", str(draft), f"-L{lib}", "-lc10", "-ltorch_cpu"]
    command += [f"-Wl,-rpath,{lib}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise NoCompilerError(f"no C++ compiler ({compiler}): {err}") from err
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise NoCompilerError(f"{compiler} failed: {lines[0]}")
    draft.replace(library)
    return library


def load() -> None:
    """Have PyTorch, which is yet to be imported, believe in one GPU.

    Raises:
        NoCompilerError: see `build`.
    """
    assert "torch" not in sys.modules, "load the fake device before torch"
    ctypes.CDLL(str(build(Path(tempfile.gettempdir()) / "huggingtweets-fake-cuda")))
