"""Python 3.14's argparse stood in for: it reads the help of every argument as it is added."""

import argparse
from typing import Any

import pytest
from hydra._internal import utils

from huggingtweets.config.hydra_parser import get_args_parser


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
    args = get_args_parser().parse_args(["user=a", "--cfg", "job"])
    assert args.overrides == ["user=a"]
    assert "shell completion" in get_args_parser().format_help()


def test_elsewhere_it_is_hydras_own() -> None:
    assert get_args_parser().parse_args(["-m", "a=1,2"]).multirun
