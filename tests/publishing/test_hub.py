import base64
import hashlib
import json
import logging
import os
import pickle
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from huggingtweets.config.schema import Consent
from huggingtweets.errors import PublishError
from huggingtweets.publishing.card import render_card
from huggingtweets.publishing.hub import (
    CannotPublishError,
    PublishRefusedError,
    files_to_publish,
    publish_model,
)

TOKEN = "hf_" + "a1B2" * 8


class FakeHub(ThreadingHTTPServer):
    """The endpoints of the Hub that its client uses to publish, on loopback."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.answers: list[tuple[str, int, dict[str, str]]] = []
        """Path, status and headers of answers to give instead, each once."""
        self.hanging: set[str] = set()
        self.released = threading.Event()

    def create(self, repo_id: str, *, private: bool) -> None:
        self.repos[repo_id] = {"private": private, "files": {}, "commits": []}

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if any(part in path for part in self.server.hanging):
            self.server.released.wait(30)
            return
        for answer in self.server.answers:
            if answer[0] in path:
                self.server.answers.remove(answer)
                self._reply(answer[1], {"error": "not now"}, answer[2])
                return
        is_signed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not is_signed and not path.startswith("/lfs/"):
            bad = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._reply(401, {"error": "Invalid credentials"}, bad)
            return
        self._route(path, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _route(self, path: str, body: bytes) -> None:
        hub = self.server
        if path == "/api/whoami-v2":
            self._reply(200, {"name": "me", "type": "user", "orgs": []})
        elif path == "/api/validate-yaml":
            self._reply(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            hub.create(repo_id, private=asked.get("visibility") == "private")
            self._reply(200, {"url": f"{hub.url}/{repo_id}"})
        elif path.startswith("/lfs/"):
            hub.blobs[path.removeprefix("/lfs/")] = body
            self._reply(200, {})
        elif match := re.fullmatch(r"/(.+/.+)\.git/info/lfs/objects/batch", path):
            self._reply(200, {"objects": [self._lfs(one) for one in json.loads(body)["objects"]]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/[a-z]+)?(/.*)?", path):
            repo = hub.repos.get(match[1])
            if repo is None:
                self._reply(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            elif match[2] == "/preupload":
                self._reply(200, {"files": [_mode(repo, one) for one in json.loads(body)["files"]]})
            elif match[2] == "/commit":
                self._commit(match[1], repo, body)
            elif match[2] == "/settings":
                repo["private"] = json.loads(body)["visibility"] == "private"
                self._reply(200, {})
            else:
                files = [{"rfilename": name} for name in repo["files"]]
                told = {"id": match[1], "private": repo["private"], "siblings": files}
                self._reply(200, told | {"sha": "0" * 40})

    def _lfs(self, one: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.server.url}/lfs/{one['oid']}", "header": {}}
        return {**one, "actions": {"upload": upload}}

    def _commit(self, repo_id: str, repo: dict[str, Any], body: bytes) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "deletedFile":
                del repo["files"][value["path"]]
            elif line["key"] == "file":
                repo["files"][value["path"]] = base64.b64decode(value["content"])
            else:
                repo["files"][value["path"]] = self.server.blobs[value["oid"]]
        repo["commits"].append(lines[0]["value"]["summary"])
        url = f"{self.server.url}/{repo_id}/commit/{'1' * 40}"
        self._reply(200, {"success": True, "commitOid": "1" * 40, "commitUrl": url})

    def _reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _mode(repo: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    is_lfs = one["path"].endswith((".safetensors", ".png"))
    answer = {"path": one["path"], "uploadMode": "lfs" if is_lfs else "regular"}
    content = repo["files"].get(one["path"])
    if content is not None:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        answer["oid"] = hashlib.sha256(content).hexdigest() if is_lfs else git
    return {**answer, "shouldIgnore": False}


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for key in [key for key in os.environ if key.startswith("HF_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # Xet storage needs servers of its own; without it the client uploads by LFS.
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return monkeypatch


@pytest.fixture
def hub(environ):
    server = FakeHub()
    environ.setenv("HF_ENDPOINT", server.url)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


FILES = {
    "README.md": b"---\nlicense: mit\n---\n# card\n",
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "preview.png": b"\x89PNG",
    "tokenizer.json": b"{}",
}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def test_publish_uploads_every_file_in_one_commit(hub, model_dir):
    url = publish_model(model_dir, "ada_l", org="lab")
    assert url == f"{hub.url}/lab/ada_l"
    repo = hub.repos["lab/ada_l"]
    assert repo["files"] == FILES
    assert repo["private"]
    assert repo["commits"] == ["Publish ada_l"]
    assert hub.requests[0] == "GET /api/models/lab/ada_l"
    assert hub.count("whoami") == 0


def test_publish_again_commits_nothing(hub, model_dir):
    for _ in range(2):
        publish_model(model_dir, "ada_l", org="lab")
    assert len(hub.repos["lab/ada_l"]["commits"]) == 1
    assert hub.count("repos/create") == 1


def test_publish_asks_whose_token_it_is(hub, model_dir):
    url = publish_model(model_dir, "ada_l", private=False)
    assert url == f"{hub.url}/me/ada_l"
    assert not hub.repos["me/ada_l"]["private"]


def test_private_model_never_goes_to_a_public_repository(hub, model_dir):
    hub.create("lab/ada_l", private=False)
    with pytest.raises(CannotPublishError, match=r"hub\.private: lab/ada_l exists and is public"):
        publish_model(model_dir, "ada_l", org="lab")
    assert hub.repos["lab/ada_l"]["files"] == {}


def test_a_private_repository_becomes_public_when_asked(hub, model_dir):
    publish_model(model_dir, "ada_l", org="lab")
    publish_model(model_dir, "ada_l", org="lab", private=False)
    assert not hub.repos["lab/ada_l"]["private"]
    publish_model(model_dir, "ada_l", org="lab", private=False)
    assert hub.count("settings") == 1


def test_files_of_an_earlier_model_go_and_those_of_others_stay(hub, model_dir):
    hub.create("lab/ada_l", private=True)
    others = {".gitattributes": b"", "notes.md": b"mine", "runs/model.safetensors": b"x"}
    ours = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x", "vocab.json": b"{}",
            "model-00001-of-00002.safetensors": b"x"}  # fmt: skip
    hub.repos["lab/ada_l"]["files"] = others | ours
    publish_model(model_dir, "ada_l", org="lab")
    assert hub.repos["lab/ada_l"]["files"] == FILES | others
    assert len(hub.repos["lab/ada_l"]["commits"]) == 1


def test_the_card_on_the_hub_says_where_it_is_and_on_what_ground(hub, model_dir, make_facts):
    here = render_card(make_facts(consent=Consent.unstated))
    (model_dir / "README.md").write_text(here)
    for consent in (Consent.unstated, Consent.permission):
        publish_model(model_dir, "ada_l", org="lab", consent=consent)
        card = hub.repos["lab/ada_l"]["files"]["README.md"].decode()
        assert ModelCard(card).data["thumbnail"] == f"{hub.url}/lab/ada_l/resolve/main/preview.png"
        assert 'pipeline("text-generation", model="lab/ada_l")\n' in card
        is_unstated = consent is Consent.unstated
        assert ("Nobody has stated on what ground" in card) == is_unstated
        assert ("gave their permission" in card) != is_unstated
    assert (model_dir / "README.md").read_text() == here


@pytest.mark.parametrize("org", ["lab", None])
def test_bad_token_is_refused_at_once(hub, environ, model_dir, org):
    environ.setenv("HF_TOKEN", "hf_" + "x" * 30)
    with pytest.raises(PublishRefusedError, match="401") as caught:
        publish_model(model_dir, "ada_l", org=org)
    assert not caught.value.retryable
    assert "xxxx" not in str(caught.value)
    assert len(hub.requests) == 1
    assert type(pickle.loads(pickle.dumps(caught.value))) is PublishRefusedError


def test_forbidden_namespace_is_refused(hub, model_dir):
    hub.answers = [("repos/create", 403, {})]
    with pytest.raises(PublishRefusedError, match="403"):
        publish_model(model_dir, "ada_l", org="lab")


def test_no_token_is_refused_without_a_request(hub, environ, model_dir):
    environ.delenv("HF_TOKEN")
    with pytest.raises(PublishRefusedError, match="set HF_TOKEN"):
        publish_model(model_dir, "ada_l", org="lab")
    assert hub.requests == []


@pytest.mark.parametrize(
    "headers",
    [{"Retry-After": "1"}, {"RateLimit": '"api";r=0;t=2'}],
    ids=["retry-after", "ratelimit"],
)
def test_rate_limit_is_waited_out(hub, model_dir, headers):
    hub.answers = [("repos/create", 429, headers)]
    start = time.monotonic()
    publish_model(model_dir, "ada_l", org="lab")
    assert time.monotonic() - start >= 1
    assert hub.repos["lab/ada_l"]["files"] == FILES
    assert hub.count("repos/create") == 2


def test_rate_limit_beyond_the_deadline_is_not_waited_for(hub, environ, model_dir):
    hub.answers = [("repos/create", 429, {"Retry-After": "900"})]
    environ.setattr("huggingtweets.publishing.hub.DEADLINE_S", 60.0)
    start = time.monotonic()
    with pytest.raises(PublishError, match=r"again in 90\d s or later") as caught:
        publish_model(model_dir, "ada_l", org="lab")
    assert time.monotonic() - start < 30
    assert caught.value.retryable


@pytest.mark.parametrize("path", ["/api/models/lab/ada_l", "/commit/"])
def test_unavailable_server_is_tried_again(hub, model_dir, path):
    hub.answers = [(path, 503, {})]
    publish_model(model_dir, "ada_l", org="lab")
    assert hub.repos["lab/ada_l"]["files"] == FILES
    assert len(hub.repos["lab/ada_l"]["commits"]) == 1


@pytest.mark.parametrize("part", ["repos/create", "/commit/"])
def test_hanging_server_ends_at_the_deadline(hub, environ, model_dir, part):
    hub.hanging = {part}
    environ.setattr("huggingtweets.publishing.hub.DEADLINE_S", 3.0)
    start = time.monotonic()
    with pytest.raises(PublishError, match=r"did not|broke off") as caught:
        publish_model(model_dir, "ada_l", org="lab")
    assert time.monotonic() - start < 10
    assert caught.value.retryable


def test_no_server_is_a_temporary_failure(environ, model_dir):
    environ.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    environ.setattr("huggingtweets.publishing.hub.DEADLINE_S", 2.0)
    with pytest.raises(PublishError, match=r"did not (take it|end)") as caught:
        publish_model(model_dir, "ada_l", org="lab")
    assert caught.value.retryable


def test_refused_files_are_not_tried_again(hub, model_dir):
    hub.answers = [("/commit/", 413, {}), ("/commit/", 413, {})]
    with pytest.raises(CannotPublishError, match="413"):
        publish_model(model_dir, "ada_l", org="lab")
    assert hub.count("/commit/") == 1


def test_token_reaches_neither_log_nor_arguments(hub, model_dir, caplog, monkeypatch):
    seen: list[Any] = []
    run = subprocess.run

    def record(command: list[str], **options: Any) -> Any:
        seen.append((command, options["input"]))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", record)
    with caplog.at_level(logging.DEBUG):
        publish_model(model_dir, "ada_l", org="lab")
    assert "published repo=ada_l" in caplog.text
    assert TOKEN not in caplog.text + repr(seen)


@pytest.mark.parametrize("name", ["../x", "a--b", "a/b", "-a", "a.", "", "a b", "é", "x" * 97])
def test_odd_names_are_refused(environ, model_dir, name):
    with pytest.raises(CannotPublishError, match="repository: got"):
        publish_model(model_dir, name, org="lab")
    with pytest.raises(CannotPublishError, match=r"hub\.org: got"):
        publish_model(model_dir, "ok", org=name)


@pytest.mark.parametrize(
    "name",
    [".env", "training_args.bin", "optimizer.pt", "tweets.jsonl.gz", "model.bin", "x.safetensors"],
)
def test_unknown_files_are_refused(model_dir, name):
    (model_dir / name).write_bytes(b"secret")
    with pytest.raises(CannotPublishError, match=re.escape(repr(name))):
        files_to_publish(model_dir)


def test_links_and_folders_are_refused(model_dir, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (model_dir / "vocab.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CannotPublishError, match=r"vocab\.json is a link"):
        files_to_publish(model_dir)
    (model_dir / "vocab.json").unlink()
    (model_dir / "merges.txt").mkdir()
    with pytest.raises(CannotPublishError, match=r"merges\.txt is a link or a folder"):
        files_to_publish(model_dir)


@pytest.mark.parametrize("missing", ["README.md", "config.json", "model.safetensors"])
def test_incomplete_models_are_refused(model_dir, missing):
    (model_dir / missing).unlink()
    with pytest.raises(CannotPublishError, match="no complete model"):
        files_to_publish(model_dir)
    with pytest.raises(CannotPublishError, match="no complete model"):
        files_to_publish(model_dir / "nowhere")
