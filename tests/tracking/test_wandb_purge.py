"""`purge --wandb` with W&B's own client, against a stand-in of the server."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DATE = "2026-01-01T00:00:00"


class Wandb(ThreadingHTTPServer):
    """Runs and artifact collections of the project lab/tweets, by GraphQL."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        slugs = ("ann", "bob", "ann-bob")
        self.runs = {f"@{slug}-{phase}" for slug in slugs for phase in ("preprocess", "train")}
        self.collections = {
            name: kind
            for slug in slugs
            for name, kind in (
                (f"tweets-{slug}", "raw-dataset"),
                (f"dataset-{slug}", "train-dataset"),
                (slug, "finetuned-model"),
            )
        }
        del self.collections["dataset-ann"]  # never uploaded
        self.is_forbidden = False
        self.with_artifacts: set[bool] = set()

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        match re.findall(r"(?:query|mutation)\s+(\w+)", query)[0]:
            case "Viewer" | "GetDefaultEntity":
                teams = {"edges": []}
                return {
                    "viewer": {"id": "1", "entity": "lab", "username": "me", "email": "a@b",
                               "flags": "{}", "teams": teams}
                }  # fmt: skip
            case "Runs":
                wanted = json.loads(values["filters"])["display_name"]["$in"]
                found = [name for name in wanted if name in self.runs]
                edges = [{"node": _run(name), "cursor": name} for name in found]
                page = {"endCursor": None, "hasNextPage": False}
                runs = {"totalCount": len(found), "edges": edges, "pageInfo": page}
                return {"project": {"internalId": "1", "runCount": len(found), "readOnly": False,
                                    "runs": runs}}  # fmt: skip
            case "ProjectArtifactCollection":
                name, kind = values["name"], values["type"]
                is_there = self.collections.get(name) == kind
                found_one = _collection(name, kind) if is_there else None
                return {"project": {"artifactType": {"artifactCollection": found_one}}}
            case "DeleteArtifactSequence":
                del self.collections[values["id"]]
                state = {"__typename": "ArtifactSequence", "state": "DELETED"}
                return {"result": {"artifactCollection": state}}
            case "DeleteRun":
                self.runs.remove(values["id"])
                self.with_artifacts.add(values["deleteArtifacts"])
                return {"deleteRun": {"clientMutationId": None}}
        raise AssertionError(query)


def _run(name: str) -> dict[str, Any]:
    return {
        "id": name, "name": "r" + name[1:], "displayName": name, "tags": [], "sweepName": None,
        "state": "finished", "config": "{}", "group": None, "jobType": "train", "commit": None,
        "readOnly": False, "createdAt": DATE, "heartbeatAt": DATE, "description": "",
        "notes": None, "systemMetrics": "{}", "summaryMetrics": "{}", "historyLineCount": 0,
        "user": {"name": "me", "username": "me"}, "historyKeys": None, "projectId": "1",
    }  # fmt: skip


def _collection(name: str, kind: str) -> dict[str, Any]:
    return {
        "__typename": "ArtifactSequence", "id": name, "name": name, "description": None,
        "createdAt": DATE, "updatedAt": None, "type": {"name": kind}, "tags": {"edges": []},
        "project": {"id": "p", "internalId": "1", "name": "tweets", "entity": {"name": "lab"}},
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Wandb

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, value = 200, {}
        if self.path == "/graphql" and self.server.is_forbidden:
            status, value = 403, {"errors": [{"message": "permission denied"}]}
        elif self.path == "/graphql":
            request = json.loads(body)
            value = {"data": self.server.answer(request["query"], request.get("variables") or {})}
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Wandb]:
    running = Wandb()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


CHILD = """
from huggingtweets.errors import TrackingError
from huggingtweets.tracking.wandb_purge import delete_online
try:
    print("deleted", delete_online([(None, "tweets", "ann"), ("lab", "tweets", "ann-bob")]))
except TrackingError as err:
    print("refused", err)
"""


def purge(server: Wandb, folder: Path) -> str:
    """Run the client in a process of its own: it reads its settings but once."""
    own = {
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
        "WANDB_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder),
        "WANDB_CONFIG_DIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=folder,
        env={**os.environ, **own, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


def test_the_real_client_deletes_the_persons_runs_and_artifacts(
    server: Wandb, tmp_path: Path
) -> None:
    assert purge(server, tmp_path) == "deleted 9"
    assert server.runs == {"@bob-preprocess", "@bob-train"}
    assert set(server.collections) == {"tweets-bob", "dataset-bob", "bob"}
    assert server.with_artifacts == {True}
    assert purge(server, tmp_path) == "deleted 0"


def test_what_the_server_refuses_is_one_sentence(server: Wandb, tmp_path: Path) -> None:
    server.is_forbidden = True
    said = purge(server, tmp_path)
    assert said.startswith("refused purge --wandb: W&B did not delete everything (")
    assert "\n" not in said
    assert server.collections
