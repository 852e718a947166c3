import contextlib
import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rich.console import Console

from huggingtweets.cli.base import show
from huggingtweets.errors import SourceError
from huggingtweets.logs import exit_code_of, make_console, say, setup_logging, shown
from huggingtweets.posts.asking import ask
from huggingtweets.tracking.console import TrainingProgress


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logger = logging.getLogger("huggingtweets")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def said(monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    setup_logging()
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        logging.getLogger("huggingtweets.x").warning("hello")
    return stderr.getvalue()


def test_one_process_has_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert said(monkeypatch).endswith(" WARNING hello\n")


def test_each_of_several_processes_names_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, WORLD_SIZE="2", RANK="1").endswith(" WARNING rank=1 hello\n")


def test_a_log_line_does_not_stick_to_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(
        "huggingtweets.tracking.console.Console",
        lambda stderr: Console(stderr=stderr, force_terminal=True, width=100),
    )
    setup_logging()
    progress = TrainingProgress("alice", 10)
    progress.update(1, "loss=3")
    logging.getLogger("huggingtweets.x").warning("hello")
    progress.close()
    # rich moves the cursor to the bar's line, clears it, writes the line, and draws the bar below.
    lines = terminal.getvalue().replace("\r", "\n").split("\n")
    [line] = [line for line in lines if "hello" in line]
    assert "steps" not in line


@pytest.mark.parametrize(
    "hostile",
    ["\x1b[31m", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066", "\x00", "\x08", "\r"],
    ids=ascii,
)
def test_what_a_terminal_would_obey_is_shown_by_its_number(
    monkeypatch: pytest.MonkeyPatch, hostile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging()
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        logging.getLogger("huggingtweets.x").warning("ann%s.jsonl of %s", hostile, [hostile])
        exit_code_of(SourceError(f"user: got @{hostile}"))
    assert hostile not in stderr.getvalue()
    assert stderr.getvalue().count("\n") == 2
    assert "ann\\" in stderr.getvalue()
    show(f"| {hostile} |")
    say(f"{hostile}/ann.gguf: 1 MiB")
    make_console(force_terminal=True).print(f"Files in {hostile}", style="bold")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    ask(f"{hostile}?")
    words = "".join(capsys.readouterr()).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert hostile not in words.replace("\n", "")


def test_a_terminal_of_another_encoding_ends_nothing() -> None:
    script = (
        "from huggingtweets.logs import make_console, say\n"
        "say('… ゆき')\nmake_console(force_terminal=True).print('… ゆき')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONIOENCODING": "latin-1", "TERM": "dumb"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "\\u2026 \\u3086\\u304d\n" * 2, done.stderr


def test_what_people_write_stays() -> None:
    for text in ("مرحبا", "نمی‌خواهم", "👩‍👩‍👧", "ゆき", "a\tb"):  # joiners among it
        assert shown(text) == text
