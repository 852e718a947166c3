"""The process that uploads one model: a request as JSON on stdin, the answer as JSON on stdout.

Started by `hub.py`, which has checked the files and ends this process at the deadline.
"""

import importlib
import json
import random
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_session,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from huggingtweets.config.schema import Consent
from huggingtweets.publishing.card import for_hub
from huggingtweets.web import asked_wait_s

REQUEST_TIMEOUT_S = 60.0
"""For each connection, read and write; the client's own default is to wait for ever."""
_CARD = "README.md"
_MAX_WAIT_S = 60.0
_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def main() -> None:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    timeout = min(REQUEST_TIMEOUT_S, max(1.0, request["deadline_s"] / 4))
    bound_requests(timeout)
    sys.stdout.write(json.dumps(upload_with_retries(request)) + "\n")


def upload_with_retries(request: Mapping[str, Any]) -> dict[str, str]:
    """Upload until it succeeds, cannot succeed, or the deadline leaves no time for another attempt.

    Returns `url`, or `error` (a sentence) and its `kind`: refused, forbidden, or temporary.
    """
    end = time.monotonic() + request["deadline_s"]
    transport_failure = transport_error()
    attempt = 0
    while True:
        attempt += 1
        try:
            return {"url": _upload(request)}
        except HfHubHTTPError as err:
            status = err.response.status_code
            if status in (401, 403):
                return _failure("refused", f"the Hub refuses the token ({_reason(err)})")
            if status not in _TRY_AGAIN:
                return _failure("forbidden", f"the Hub refuses the upload ({_reason(err)})")
            problem = _reason(err)
            asked_s = asked_wait_s(dict(err.response.headers), time.time())
            wait_s = asked_s + random.random() if asked_s else _backoff_s(attempt)
        except transport_failure as err:
            problem = f"{type(err).__name__}: {err}"
            wait_s = _backoff_s(attempt)
        except _ForbiddenError as err:
            return _failure("forbidden", str(err))
        sys.stderr.write(f"attempt {attempt}: {problem}\n")
        if time.monotonic() + wait_s >= end:
            return _failure(
                "temporary",
                f"the Hub did not take it after {attempt} attempts ({problem}); the model stays "
                f"on disk; publish it again in {wait_s:.0f} s or later",
            )
        time.sleep(wait_s)


class _ForbiddenError(Exception):
    """What no further attempt can change."""


def _upload(request: Mapping[str, Any]) -> str:
    """Upload once: find or create the repository, one commit, show it. Returns its address."""
    api = HfApi(endpoint=request["endpoint"])
    org = request["org"] or api.whoami()["name"]
    repo_id = f"{org}/{request['repo_name']}"
    address = f"{api.endpoint}/{repo_id}"
    there: set[str] = set()
    is_private = bool(request["private"])
    try:
        # Asked first: creating is limited far more tightly than reading, and not retried.
        found = api.model_info(repo_id)
    except RepositoryNotFoundError as err:
        if err.response.status_code == 401:
            raise
        api.create_repo(repo_id, private=is_private)
    else:
        there = {file.rfilename for file in found.siblings or ()}
        is_private = bool(found.private)
        if request["private"] and not is_private:
            raise _ForbiddenError(
                f"hub.private: {repo_id} exists and is public; expected a private repository; "
                "make it private on the Hub, or set hub.private=false"
            )
    folder = Path(request["model_dir"])
    card = (folder / _CARD).read_bytes().decode("utf-8", "surrogateescape")
    card = for_hub(card, address, Consent(request["consent"]))
    contents: dict[str, Path | bytes] = {name: folder / name for name in request["files"]}
    contents[_CARD] = card.encode("utf-8", "surrogateescape")
    # An adapter left beside a whole model would be put on it.
    old = [name for name in there - contents.keys() if re.fullmatch(request["ours"], name)]
    changes: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, content) for name, content in contents.items()),
        *map(CommitOperationDelete, sorted(old)),
    ]
    message = f"Publish {request['repo_name']}"
    try:
        api.create_commit(repo_id, changes, commit_message=message)
    except ValueError as err:
        raise _ForbiddenError(f"the Hub does not take these files ({err})") from err
    if is_private and not request["private"]:
        api.update_repo_settings(repo_id, private=False)
    return address


def bound_requests(timeout_s: float) -> None:
    """Give every request of the Hub's client a time-out."""
    default = get_session()
    client_class: Any = type(default)  # httpx before version 2 of the Hub's client, then httpx2
    hooks = default.event_hooks
    set_client_factory(
        lambda: client_class(event_hooks=hooks, follow_redirects=True, timeout=timeout_s)
    )


def transport_error() -> type[Exception]:
    """Return the class of errors of the library that the Hub's client sends with."""
    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    error: type[Exception] = library.HTTPError
    return error


def _failure(kind: str, error: str) -> dict[str, str]:
    return {"kind": kind, "error": error}


def _reason(err: HfHubHTTPError) -> str:
    """Return status and what the server says, on one line."""
    said = err.server_message or err.response.reason_phrase
    return f"HTTP {err.response.status_code}: {' '.join(said.split())[:200]}"


def _backoff_s(attempt: int) -> float:
    """Return 1, 2, 4 ... 60 seconds, spread by half: many jobs must not come back at once."""
    return min(_MAX_WAIT_S, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5)
