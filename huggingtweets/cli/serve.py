"""`huggingtweets serve`: a page and an API over finished models."""

import argparse
import os
from pathlib import Path

from huggingtweets.cli.base import Commands
from huggingtweets.logs import setup_logging
from huggingtweets.storage.places import check_output_dir, check_package

TOKEN = "HUGGINGTWEETS_TOKEN"  # the name of a variable


def add(commands: Commands) -> None:
    """Describe the command line of `serve`."""
    parser = commands.add_parser("serve", help="a page and an API to try the models of a folder")
    parser.add_argument("output_dir", type=Path, help="the output_dir of the jobs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    parser.add_argument(
        "--token", help=f"what clients must show; any other host needs one (${TOKEN})"
    )
    parser.add_argument(
        "--memory-gib", type=float, default=2.0, metavar="GIB",
        help="for weights and caches of all models together (2)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=int, default=120, metavar="N",
        help="POST requests per minute of one address; 0: any number (120)",
    )  # fmt: skip
    parser.add_argument(
        "--queue", type=int, default=256, metavar="N", help="posts that may wait (256)"
    )
    parser.add_argument("--optout-file", metavar="PATH", help="as optout_file= of train")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    for name in ("starlette", "uvicorn"):
        check_package("serve", name, "serve")
    check_output_dir("serve", args.output_dir)
    setup_logging()
    from huggingtweets.serve.run import ServePlan, serve  # heavy

    return serve(
        ServePlan(
            output_dir=args.output_dir,
            host=args.host,
            port=args.port,
            token=args.token or os.environ.get(TOKEN),
            memory_gib=args.memory_gib,
            per_minute=args.rate,
            max_waiting=args.queue,
            optout_file=args.optout_file,
        )
    )
