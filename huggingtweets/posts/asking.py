"""Questions to somebody at the terminal; nobody is asked who cannot answer."""

import sys

from huggingtweets.logs import shown, world_size


def is_somebody_there() -> bool:
    """Whether a question can be answered: a terminal at both ends, and one process."""
    return sys.stdin.isatty() and sys.stderr.isatty() and world_size() == 1


def ask(question: str) -> str:
    """Show a question and return the answer, stripped; empty at the end of input."""
    sys.stderr.write(f"{shown(question)} ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def ask_yes(question: str) -> bool:
    """Ask for a yes; anything else is a no."""
    return ask(f"{question} [y/N]").lower() in ("y", "yes")
