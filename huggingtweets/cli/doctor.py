"""`huggingtweets doctor`: what this machine has, and what it lacks."""

import argparse
import json
from dataclasses import asdict

from huggingtweets.cli.base import Commands, show
from huggingtweets.logs import say


def add(commands: Commands) -> None:
    """Describe the command line of `doctor`."""
    parser = commands.add_parser("doctor", help="what this machine has, and what it lacks")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from huggingtweets.doctor import build_findings, examine

    findings = examine()
    if args.json:
        say(json.dumps([asdict(finding) for finding in findings]))
    else:
        show(build_findings(findings))
    return 1 if any(finding.is_fatal for finding in findings) else 0
