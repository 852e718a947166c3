"""The C++ compiler of this machine."""

import os
import shutil


def find_compiler() -> str | None:
    """Return its path: what `CXX` names, else the first of the usual ones; None: there is none."""
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)
