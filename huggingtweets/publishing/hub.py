"""Publish a model folder as a repository on the Hub.

The upload itself runs in a process of its own (`upload.py`): whatever hangs there ends at the
deadline, and the client's settings for it reach nobody else's downloads.
"""

import json
import logging
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingtweets.config.schema import Consent
from huggingtweets.errors import PublishError
from huggingtweets.logs import redact
from huggingtweets.process import command_of
from huggingtweets.storage.files import read_json

logger = logging.getLogger(__name__)

DEADLINE_S = 1800.0
"""For the upload of one model."""
_TOKEN_KEYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# What the Hub takes for a name: at most 96 characters, no `--` and no `..`.
_REPO_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_WEIGHTS = re.compile(r"(?:adapter_)?model(?:-\d{5}-of-\d{5})?\.safetensors")
_OTHER_FILES = (
    "README.md", "preview.png", "config.json", "adapter_config.json", "generation_config.json",
    "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
)  # fmt: skip
OURS = re.compile("|".join([_WEIGHTS.pattern, *map(re.escape, _OTHER_FILES)]))
"""The files that a job makes: they may be published, and go when the next model is."""


class PublishRefusedError(PublishError):
    """The Hub does not accept the token: publish no other model with it either."""

    retryable = False


class CannotPublishError(PublishError):
    """The folder, the name or an existing repository forbid it, whenever it is tried."""

    retryable = False


def publish_model(
    model_dir: Path,
    repo_name: str,
    *,
    org: str | None = None,
    private: bool = True,
    consent: Consent = Consent.unstated,
) -> str:
    """Upload a model folder in one commit and return the address of its repository.

    Creates the repository where there is none, and makes a private one public where that is asked
    for; files of ours that an earlier model left there go. Publishing unchanged files again changes
    nothing. Call on the main process only. The token is taken from `HF_TOKEN`, the server from
    `HF_ENDPOINT`. Without `org`, the Hub is asked whose token it is, which costs a batch of models
    a request each. `consent` is stated in the card where that states nothing.

    Raises:
        PublishRefusedError: there is no token, or the Hub refuses it.
        CannotPublishError: the folder holds what must not be published, or a public repository of
            that name exists while `private` is asked for.
        PublishError: the Hub could not be reached, or not within DEADLINE_S.
    """
    token = hub_token()
    if token is None:
        raise PublishRefusedError(
            "publish=hub: got no token; expected one in the environment; "
            "set HF_TOKEN, or use publish=local"
        )
    for key, name in (("hub.org", org), ("repository", repo_name)):
        if name is not None and not _REPO_NAME.fullmatch(name):
            raise CannotPublishError(
                f"{key}: got {name!r}; expected up to 96 letters, digits, '-', '_' and '.'"
            )
    request = {
        "model_dir": str(model_dir),
        "files": files_to_publish(model_dir),
        "repo_name": repo_name,
        "org": org,
        "private": private,
        "consent": consent,
        "deadline_s": DEADLINE_S,
    }
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    answer = _ask_process(request, {**os.environ, **quiet, "HF_TOKEN": token})
    if "url" in answer:
        logger.info("published repo=%s url=%s", repo_name, answer["url"])
        return str(answer["url"])
    kinds = {kind.__name__: kind for kind in (PublishRefusedError, CannotPublishError)}
    raise kinds.get(answer["kind"], PublishError)(f"{repo_name}: {redact(answer['error'])}")


def hub_token() -> str | None:
    """Return the token of the environment; one of `hf auth login` is not taken."""
    return next((os.environ[key] for key in _TOKEN_KEYS if os.environ.get(key)), None)


def files_to_publish(model_dir: Path) -> list[str]:
    """Return the names of a model folder's files, sorted, all of which may be published.

    Raises:
        CannotPublishError: a file is not on the list of those that may, is no plain file, or the
            card, the configuration or the weights are missing.
    """
    names = sorted(path.name for path in model_dir.iterdir()) if model_dir.is_dir() else []
    for name in names:
        if not OURS.fullmatch(name):
            raise CannotPublishError(
                f"{model_dir}: got {name!r}; expected only weights, configuration, tokenizer, "
                "README.md and preview.png; move it elsewhere"
            )
        if not stat.S_ISREG((model_dir / name).lstat().st_mode):
            raise CannotPublishError(
                f"{model_dir}: {name} is a link or a folder; expected a plain file; replace it"
            )
    has_config = "config.json" in names or "adapter_config.json" in names
    if not (has_config and "README.md" in names and any(map(_WEIGHTS.fullmatch, names))):
        raise CannotPublishError(
            f"{model_dir}: got no complete model; expected README.md, config.json and "
            "model.safetensors; train it first"
        )
    if "adapter_config.json" in names:
        base = str(read_json(model_dir / "adapter_config.json").get("base_model_name_or_path"))
        if Path(base).is_absolute() or Path(base).exists():
            raise CannotPublishError(
                f"{model_dir}: got an adapter for the base in {base}, which is on this machine "
                "alone; expected a base that others can find; train again with model.hub_id=NAME "
                "if it is on the Hub, or with publish.lora=merged"
            )
    return names


def _ask_process(request: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run the upload and return its answer."""
    where = f"{request['repo_name']}: the upload"
    try:
        process = subprocess.run(
            command_of("huggingtweets.publishing.upload", "main"),
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=request["deadline_s"],
            env=dict(environ),
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise PublishError(
            f"{where} did not end within {request['deadline_s']:g} s{_last_line(err.stderr)}; "
            "the model stays on disk; publish it again later"
        ) from None
    if process.returncode:
        raise PublishError(f"{where} broke off{_last_line(process.stderr)}; publish it again later")
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def _last_line(stderr: str | bytes | None) -> str:
    """Return the last thing a process complained of, in brackets, or nothing."""
    text = stderr.decode("utf-8", "replace") if isinstance(stderr, bytes) else stderr or ""
    lines = text.strip().splitlines()
    return f" ({redact(lines[-1].strip())[:300]})" if lines else ""
