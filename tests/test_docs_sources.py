"""The commands of docs/sources.md are ones that work."""

import re
import shlex

import pytest
from small import ROOT

from huggingtweets.cli.main import parse
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import make_plan
from huggingtweets.config.schema import Consent, SourceKind
from huggingtweets.handles import Job

PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if not line.startswith("export ")
]
register()


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 12
    assert sum(words[0] == "huggingtweets" for words in COMMANDS) >= 7


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_understood(words: list[str]) -> None:
    if words[0] == "huggingtweets":
        args = parse(words[1:])
        overrides = [w for w in [*vars(args).get("handles", []), *args.more] if "=" in w]
        overrides += vars(args).get("overrides", [])
        if words[1] == "import":
            overrides.append(f"source={args.source}")
    else:
        assert words[:3] == ["accelerate", "launch", "train.py"]
        overrides = words[3:]
    make_plan(to_config(compose_config(overrides)), Job.of(["demo"]))


def test_every_source_and_ground_is_told_of() -> None:
    for kind in SourceKind:
        assert f"`{kind}`" in PAGE
    for ground in Consent:
        assert f"| `{ground}` |" in PAGE
