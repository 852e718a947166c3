"""Stand-ins for a W&B server on the loopback, in health and in all kinds of trouble."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

API_KEY = "0123456789abcdef" * 2 + "01234567"

ARTIFACT_FIELDS: Mapping[str, Any] = {
    "__typename": "Artifact",
    "versionIndex": 0,
    "description": None,
    "metadata": "{}",
    "ttlDurationSeconds": -1,
    "ttlIsInherited": False,
    "tags": [],
    "historyStep": None,
    "state": "COMMITTED",
    "size": 0,
    "digest": "d" * 32,
    "commitHash": "c" * 20,
    "fileCount": 0,
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-01T00:00:00Z",
    "aliases": [],
}


class FakeWandb:
    """Answers as much of W&B's interface as a run needs, and can be put out of order."""

    def __init__(self) -> None:
        self.mode = "ok"
        """ok, hang (answers nothing), or the number of an error."""
        self.runs: list[str] = []
        self.made: list[str] = []
        self.used: list[str] = []
        self.committed: list[str] = []
        self.upload_s = 0.0
        """How long a file of an artifact takes."""
        self.uploads: dict[str, bytes] = {}
        self.received = bytearray()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.path.startswith("/control/"):
                    outer.mode = self.path.rpartition("/")[2]
                    return self.send({})
                if outer.mode == "hang":
                    time.sleep(100)
                if outer.mode.isdecimal():
                    return self.send({"errors": [{"message": "out of order"}]}, int(outer.mode))
                outer.received += body
                if self.path == "/graphql":
                    return self.send({"data": outer.answer(json.loads(body))})
                if self.path.startswith("/upload/"):
                    time.sleep(outer.upload_s if "/id-" in self.path else 0)
                    outer.uploads[self.path.removeprefix("/upload/")] = body
                return self.send({})

            do_GET = do_PUT = do_POST  # noqa: N815 - names of the standard library

            def send(self, value: object, status: int = 200) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, query: dict[str, Any]) -> dict[str, Any]:
        values = query.get("variables") or {}
        given = values.get("input", {})
        match re.split(r"\W+", query["query"].strip())[1]:
            case "UpsertBucket":
                self.runs.append(values.get("displayName"))
                entity = {"id": "E", "name": "lab"}
                bucket = {
                    "id": "B",
                    "name": values.get("name"),
                    "displayName": values.get("displayName"),
                    "project": {"id": "P", "name": values.get("project"), "entity": entity},
                    "config": "{}",
                    "historyLineCount": 0,
                }
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
            case "Viewer":
                viewer = {"id": "V", "entity": "lab", "username": "lab", "flags": "{}"}
                return {"viewer": {**viewer, "email": "", "teams": {"edges": []}}}
            case "CreateRunFiles":
                files = [
                    {"name": name, "uploadUrl": f"{self.url}/upload/{name}"}
                    for name in values["files"]
                ]
                return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}
            case "ArtifactType":
                return {"project": {"artifact": None}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "CreateArtifact":
                name = given["artifactCollectionName"]
                self.made.append(f"{given['artifactTypeName']} {name}")
                made = {"id": f"id-{name}", "state": "PENDING"}
                return {"createArtifact": {"artifact": {**made, "artifactSequence": {}}}}
            case "CreateArtifactFiles":
                nodes = [
                    {
                        "storagePath": f"store/{file['name']}",
                        "uploadUrl": f"{self.url}/upload/{file['artifactID']}/{file['name']}",
                        "uploadHeaders": [],
                        "artifact": {"id": file["artifactID"]},
                    }
                    for file in given["artifactFiles"]
                ]
                edges = [{"node": node} for node in nodes]
                return {"createArtifactFiles": {"files": {"edges": edges}}}
            case "CreateArtifactManifest" | "UpdateArtifactManifest" as name:
                file = {"id": "F", "uploadUrl": f"{self.url}/upload/manifest", "uploadHeaders": []}
                answer = {"artifactManifest": {"id": "M", "file": file}}
                return {name[0].lower() + name[1:]: answer}
            case "CommitArtifact":
                self.committed.append(values["artifactID"].removeprefix("id-"))
                made = {"id": values["artifactID"], "digest": "d" * 32}
                return {"commitArtifact": {"artifact": made}}
            case "UseArtifact":
                self.used.append(given["artifactID"].removeprefix("id-"))
                return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}
            case "ArtifactByID":
                project = {"id": "P", "internalId": "P", "name": "p", "entity": {"name": "lab"}}
                sequence = {"__typename": "ArtifactSequence", "name": "a", "project": project}
                return {
                    "artifact": {
                        **ARTIFACT_FIELDS,
                        "id": values["id"],
                        "artifactType": {"name": "t"},
                        "artifactSequence": sequence,
                    }
                }
        return {}


@pytest.fixture(scope="module")
def start_wandb() -> Iterator[Callable[[], FakeWandb]]:
    fakes: list[FakeWandb] = []

    def start() -> FakeWandb:
        fakes.append(FakeWandb())
        return fakes[-1]

    yield start
    for fake in fakes:
        fake.server.shutdown()


@pytest.fixture
def fake_wandb(start_wandb: Callable[[], FakeWandb]) -> FakeWandb:
    return start_wandb()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


JOB = """
import json, logging, os, signal, sys, threading, time, urllib.request
from pathlib import Path
import psutil
from huggingtweets.config.results_schema import TrackingConfig, TrackingKind
from huggingtweets.storage.paths import JobPaths
from huggingtweets.tracking.base import *
from huggingtweets.tracking.build import build_tracker

logging.basicConfig(level=logging.INFO)
output_dir, trouble = Path(sys.argv[1]), sys.argv[2]
paths = JobPaths(output_dir / "alice-bob")
paths.model.mkdir(parents=True, exist_ok=True)
paths.posts.write_bytes(b"the posts as received")
(paths.model / "model.safetensors").write_bytes(b"weights")
(paths.model / ".hidden").write_bytes(b"hidden")

def act(when):
    if trouble == f"hang-{when}" or trouble == f"503-{when}":
        url = os.environ["WANDB_BASE_URL"] + "/control/" + trouble.split("-")[0]
        urllib.request.urlopen(url, data=b"")
    number = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "end": signal.SIGKILL}
    what, _, moment = trouble.partition("-")
    for process in psutil.Process().children(recursive=True) if moment == when else []:
        is_core = process.name() == "wandb-core"
        if what in number and is_core == (what == "kill"):
            process.send_signal(number[what])
            time.sleep(0.3)

start = time.monotonic()
slowest = 0.0
def timed(call, *args, **kwargs):
    global slowest
    began = time.monotonic()
    result = call(*args, **kwargs)
    slowest = max(slowest, time.monotonic() - began)
    return result

def wait_until(is_true):
    while not is_true() and time.monotonic() - start < 30:
        time.sleep(0.05)

config = TrackingConfig(TrackingKind.wandb, **json.loads(os.environ.get("TRACKING", "{}")))
how = json.loads(os.environ.get("BUILD", "{}"))
tracker = timed(build_tracker, config, "alice-bob", paths, **how)
secret = {"recipe": {"lr": 1e-4}, "api_key": "hf_INTHECONFIG0", "note": "bearer hf_INTHECONFIG1"}
timed(tracker.start_phase, Phase.preprocess, secret)
timed(tracker.log_artifact, tweets_artifact("alice-bob", paths.posts))
dataset = dataset_artifact("alice-bob", paths.posts)
timed(tracker.log_artifact, dataset)
if trouble != "none" and "-" in trouble:
    wait_until(lambda: Phase.preprocess in tracker.urls())
act("early")
timed(tracker.start_phase, Phase.train, secret)
timed(tracker.use_artifact, base_artifact("gpt2"))
timed(tracker.use_artifact, dataset)
for step in range(1, 101):
    timed(tracker.log_metrics, {"train/loss": 5.0 / step, "train/mfu": None}, step=step)
if trouble != "none" and "late" in trouble:
    wait_until(lambda: Phase.train in tracker.urls())
act("late")
timed(tracker.log_metrics, {"eval/loss": 3.25, "eval/perplexity": 25.8}, step=100)
timed(tracker.log_table, "examples", ["Input", "Prediction"], [["My dream is", "to be printed"]])
timed(tracker.log_artifact, model_artifact("alice-bob", paths.model))
print("hf_ONTHESTDOUT0")
began = time.monotonic()
tracker.finish()
finish_s = time.monotonic() - began
urls = list(tracker.urls().values())
report = {"slowest_s": slowest, "finish_s": finish_s, "urls": urls}
print(json.dumps(report | {"ended_s": time.monotonic() - start}))
"""


class TrackedJob:
    """One job tracked by W&B in a process of its own, as W&B reads its environment once."""

    def __init__(self, folder: Path, url: str, trouble: str = "none", **env: str) -> None:
        self.folder = folder
        self.output_dir = folder / "output"
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.job = self.output_dir / "alice-bob"
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        self.env = kept | {
            "HOME": str(self.home),
            "WANDB_BASE_URL": url,
            "WANDB_API_KEY": API_KEY,
            "HF_TOKEN": "hf_INTHEENVIRONMENT",
            **env,
        }
        started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(self.output_dir), trouble, "token=hf_INTHEARGUMENTS"],
            env=self.env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def wait() -> None:
            self.out, self.log = self.process.communicate()
            self.total_s = time.monotonic() - started

        self._waiter = threading.Thread(target=wait, daemon=True)
        self._waiter.start()

    def wait(self) -> None:
        self._waiter.join(120)
        assert self.process.returncode == 0, self.log
        self.report = json.loads(self.out.splitlines()[-1])
        self.exit_s = self.total_s - self.report["ended_s"]

    @property
    def records(self) -> list[Path]:
        return sorted(self.job.glob("wandb/*/run-*.wandb"))

    @property
    def offline_records(self) -> list[Path]:
        return sorted(self.job.glob("wandb/offline-run-*/run-*.wandb"))


@pytest.fixture(scope="module")
def start_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., TrackedJob]]:
    jobs: list[TrackedJob] = []

    def start(
        url: str, trouble: str = "none", *, folder: Path | None = None, **env: str
    ) -> TrackedJob:
        folder = folder or tmp_path_factory.mktemp("tracked")
        jobs.append(TrackedJob(folder, url, trouble, **env))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
