"""Start the server, and end it."""

import logging
import math
import secrets
from dataclasses import dataclass
from pathlib import Path

import torch
import uvicorn
from transformers.utils import logging as transformers_logging

from huggingtweets.errors import ConfigError, LaunchError
from huggingtweets.runtime.device import has_cuda
from huggingtweets.serve.app import LOOPBACK, Door, build_app
from huggingtweets.serve.engine import Engine
from huggingtweets.serve.metrics import Metrics
from huggingtweets.serve.people import People

logger = logging.getLogger(__name__)

MIN_TOKEN_CHARS = 16


@dataclass(frozen=True)
class ServePlan:
    """How the server is started."""

    output_dir: Path
    host: str
    port: int
    token: str | None
    memory_gib: float
    """For weights and caches."""
    per_minute: int
    max_waiting: int
    optout_file: str | None


def check_plan(plan: ServePlan) -> None:
    """Refuse what would be open to everybody, and numbers that mean nothing.

    Raises:
        ConfigError: another address than the loopback one without a token, a weak token, or such
            a number.
    """
    if plan.host not in LOOPBACK and plan.token is None:
        raise ConfigError(
            f"--host: got {plan.host} without a token; expected 127.0.0.1, or a token that clients "
            f"show; set HUGGINGTWEETS_TOKEN, for example to {secrets.token_urlsafe(24)}"
        )
    if plan.token is not None and len(plan.token) < MIN_TOKEN_CHARS:
        raise ConfigError(
            f"--token: got {len(plan.token)} characters; expected {MIN_TOKEN_CHARS} or more that "
            f"nobody guesses; take {secrets.token_urlsafe(24)}"
        )
    for option, value, is_right, wanted in (
        ("--port", plan.port, 0 <= plan.port <= 65535, "0 to 65535"),
        ("--memory-gib", plan.memory_gib, 0 < plan.memory_gib < math.inf, "a number above 0"),
        ("--rate", plan.per_minute, plan.per_minute >= 0, "0 or more"),
        ("--queue", plan.max_waiting, plan.max_waiting > 0, "1 or more"),
    ):
        if not is_right:
            raise ConfigError(f"{option}: got {value:g}; expected {wanted}; choose another")


def serve(plan: ServePlan) -> int:
    """Serve until a signal says otherwise.

    Raises:
        ConfigError: there is no such folder.
        LaunchError: the address is taken.
    """
    check_plan(plan)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    people = People(plan.output_dir, optout_file=plan.optout_file)
    metrics = Metrics()
    device = torch.device("cuda" if has_cuda() else "cpu")
    engine = Engine(
        people,
        metrics,
        device,
        max_bytes=int(plan.memory_gib * 2**30),
        max_waiting=plan.max_waiting,
    )
    app = build_app(people, engine, metrics, Door(plan.token, plan.per_minute))
    config = uvicorn.Config(
        app,
        host=plan.host.strip("[]"),
        port=plan.port,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    logger.info(
        "serving models=%d device=%s at http://%s:%d", len(people.all()), device, plan.host,
        plan.port,
    )  # fmt: skip
    try:
        server.run()
    except SystemExit as err:  # what uvicorn does when it cannot bind
        raise LaunchError(
            f"--port: {plan.host}:{plan.port} cannot be listened on; expected a free one; choose "
            "another --port"
        ) from err
    finally:
        engine.close()
    return 0
