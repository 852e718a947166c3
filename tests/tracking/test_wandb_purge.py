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
        names = [f"@{slug}-{phase}" for slug in slugs for phase in ("preprocess", "train")]
        self.runs = {f"id{n}": name for n, name in enumerate(names)}
        """Names by id, which W&B's filters call `name`."""
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
        self.places: set[str] = set()

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        match re.findall(r"(?:query|mutation)\s+(\w+)", query)[0]:
            case "Viewer" | "GetDefaultEntity":
                teams = {"edges": []}
                return {
                    "viewer": {"id": "1", "entity": "lab", "username": "me", "email": "a@b",
                               "flags": "{}", "teams": teams}
                }  # fmt: skip
            case "Runs":
                self.places.add(f"{values['entity']}/{values['project']}")
                names, ids = json.loads(values["filters"])["$or"]
                found = [
                    one
                    for one, name in self.runs.items()
                    if name in names["display_name"]["$in"] or one in ids["name"]["$in"]
                ]
                edges = [{"node": _run(one, self.runs[one]), "cursor": one} for one in found]
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
                del self.runs[values["id"]]
                self.with_artifacts.add(values["deleteArtifacts"])
                return {"deleteRun": {"clientMutationId": None}}
        raise AssertionError(query)


def _run(run_id: str, name: str) -> dict[str, Any]:
    return {
        "id": run_id, "name": run_id, "displayName": name, "tags": [], "sweepName": None,
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
import sys
from huggingtweets.errors import TrackingError
from huggingtweets.tracking.wandb_purge import delete_online
try:
    jobs = [(None, "tweets", "ann", sys.argv[1:]), ("lab", "tweets", "ann-bob", [])]
    print("deleted", delete_online(jobs))
except TrackingError as err:
    print("refused", err)
"""


def purge(server: Wandb, folder: Path, *pages: str) -> str:
    """Run the client in a process of its own: it reads its settings but once."""
    own = {
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
        "WANDB_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder),
        "WANDB_CONFIG_DIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *pages],
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
    assert set(server.runs.values()) == {"@bob-preprocess", "@bob-train"}
    assert set(server.collections) == {"tweets-bob", "dataset-bob", "bob"}
    assert server.with_artifacts == {True}
    assert purge(server, tmp_path) == "deleted 0"


def test_recorded_pages_tell_where_and_what_the_runs_are(server: Wandb, tmp_path: Path) -> None:
    server.runs["id1"] = "paper-v2"  # WANDB_NAME; and WANDB_PROJECT
    pages = [f"https://wandb.example/team/my%20paper/runs/id{n}?nw=x" for n in range(2)]
    assert purge(server, tmp_path, *pages) == "deleted 9"
    assert server.places == {"team/my paper", "lab/tweets"}
    assert set(server.runs.values()) == {"@bob-preprocess", "@bob-train"}


def test_what_the_server_refuses_is_one_sentence(server: Wandb, tmp_path: Path) -> None:
    server.is_forbidden = True
    said = purge(server, tmp_path)
    assert said.startswith("refused purge --wandb: W&B did not delete everything (")
    assert "\n" not in said
    assert server.collections
