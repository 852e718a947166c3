"""What is asked of the Hub itself: take one model, or delete repositories.

An upload is a process: a request as JSON on stdin, the answer as JSON on stdout. `hub.py` starts
it, has checked the files, and ends it at the deadline.
"""

import importlib
import json
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
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
from huggingtweets.errors import PublishError
from huggingtweets.logs import redact
from huggingtweets.publishing.card import for_hub
from huggingtweets.publishing.hub import (
    OURS,
    CannotPublishError,
    PublishRefusedError,
    hub_token,
)
from huggingtweets.web import asked_wait_s

REQUEST_TIMEOUT_S = 60.0
"""For each connection, read and write; the client's own default is to wait for ever."""
_CARD = "README.md"
_MAX_WAIT_S = 60.0
# Too many requests, a server that is ill, or (409) another commit at the same moment.
_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def main() -> None:
    """Answer the request on stdin: `url`, or `error` and its `kind`, a class of ours."""
    request = json.load(sys.stdin)
    bound_requests(min(REQUEST_TIMEOUT_S, max(1.0, request["deadline_s"] / 4)))
    try:
        answer = {"url": upload_with_retries(request)}
    except PublishError as err:
        answer = {"kind": type(err).__name__, "error": str(err)}
    sys.stdout.write(json.dumps(answer) + "\n")


def upload_with_retries(request: Mapping[str, Any]) -> str:
    """Upload until it succeeds, cannot succeed, or the deadline leaves no time for another attempt.

    Raises:
        PublishRefusedError: the Hub refuses the token.
        CannotPublishError: the Hub refuses the upload, whenever it is tried.
        PublishError: it did not take it in time.
    """
    end = time.monotonic() + request["deadline_s"]
    transport_failure = transport_error()
    for attempt in count(1):
        # Spread by half: many jobs must not come back at once.
        wait_s = min(_MAX_WAIT_S, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5)
        try:
            return _upload(request)
        except HfHubHTTPError as err:
            status, problem = err.response.status_code, _reason(err)
            if status in (401, 403):
                raise PublishRefusedError(f"the Hub refuses the token ({problem})") from err
            if status not in _TRY_AGAIN:
                raise CannotPublishError(f"the Hub refuses the upload ({problem})") from err
            if asked_s := asked_wait_s(dict(err.response.headers), time.time()):
                wait_s = asked_s + random.random()
        except transport_failure as err:
            problem = f"{type(err).__name__}: {err}"
        sys.stderr.write(f"attempt {attempt}: {problem}\n")
        if time.monotonic() + wait_s >= end:
            break
        time.sleep(wait_s)
    raise PublishError(
        f"the Hub did not take it after {attempt} attempts ({problem}); the model stays on disk; "
        f"publish it again in {wait_s:.0f} s or later"
    )


def _upload(request: Mapping[str, Any]) -> str:
    """Upload once: find or create the repository, one commit, show it. Returns its address."""
    api = HfApi()  # of $HF_ENDPOINT
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
            raise CannotPublishError(
                f"hub.private: {repo_id} exists and is public; expected a private repository; "
                "make it private on the Hub, or set hub.private=false"
            )
    folder = Path(request["model_dir"])
    card = (folder / _CARD).read_bytes().decode("utf-8", "surrogateescape")
    card = for_hub(card, address, Consent(request["consent"]))
    contents: dict[str, Path | bytes] = {name: folder / name for name in request["files"]}
    contents[_CARD] = card.encode("utf-8", "surrogateescape")
    # An adapter left beside a whole model would be put on it.
    old = [name for name in there - contents.keys() if OURS.fullmatch(name)]
    changes: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, content) for name, content in contents.items()),
        *map(CommitOperationDelete, sorted(old)),
    ]
    try:
        api.create_commit(repo_id, changes, commit_message=f"Publish {request['repo_name']}")
    except ValueError as err:
        raise CannotPublishError(f"the Hub does not take these files ({err})") from err
    if is_private and not request["private"]:
        api.update_repo_settings(repo_id, private=False)
    return address


def delete_repositories(slugs: Sequence[tuple[str | None, str]]) -> list[str]:
    """Delete the repositories there are of these names; return their ids.

    Args:
        slugs: organisation (None: the token's owner) and name of each.

    Raises:
        PublishError: there is no token, or the Hub refuses or does not answer; some may be deleted.
    """
    token = hub_token()
    if token is None:
        raise PublishError(
            "purge --hub: got no token; expected one that may delete repositories; set HF_TOKEN"
        )
    bound_requests(REQUEST_TIMEOUT_S)
    deleted = []
    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
        owner = api.whoami()["name"] if any(org is None for org, _ in slugs) else ""
        for org, slug in slugs:
            repo_id = f"{org or owner}/{slug}"
            if api.repo_exists(repo_id):
                api.delete_repo(repo_id)
                deleted.append(repo_id)
    except (HfHubHTTPError, transport_error()) as err:
        said = " ".join(redact(str(err)).split())[:200]
        raise PublishError(
            f"purge --hub: the Hub did not delete the repositories ({said}); expected it to; "
            "delete them on its page, or run the command again"
        ) from err
    return deleted


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


def _reason(err: HfHubHTTPError) -> str:
    """Return status and what the server says, on one line."""
    said = err.server_message or err.response.reason_phrase
    return f"HTTP {err.response.status_code}: {' '.join(said.split())[:200]}"
