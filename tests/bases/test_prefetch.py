"""The base is fetched once, and is then trained without a network."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from small import ROOT
from werkzeug import Request, Response

from huggingtweets.bases.tiny import tiny_base
from huggingtweets.config.schema import ModelConfig

COMMIT = "c" * 40
LOAD = """
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.bases.model import find_base, load_model
base = find_base(ModelConfig(path="lab/small"))
print(base.eos_id, sum(p.numel() for p in load_model(base, RecipeConfig()).parameters()))
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A model repository as the Hub has them: weights twice, and a picture."""
    shape = ModelConfig(None, num_layers=1, width=16, num_heads=2, vocab_size=300, max_positions=32)
    folder = tiny_base(shape)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"pytorch_model.bin": b"a pickle", "preview.png": b"a picture"}


@pytest.fixture
def hub(httpserver: HTTPServer, files: dict[str, bytes]) -> HTTPServer:
    """The endpoints of the Hub that hand out one repository."""

    def answer(request: Request) -> Response:
        path = request.path
        if path.startswith("/api/models/lab/small"):
            listed = [
                {"rfilename": name, "path": name, "type": "file", "size": len(data), "oid": "0"}
                for name, data in files.items()
            ]
            if "/tree/" in path:
                return Response(json.dumps(listed), content_type="application/json")
            body = {"id": "lab/small", "sha": COMMIT, "siblings": listed, "private": False}
            return Response(json.dumps(body), content_type="application/json")
        name = path.rpartition("/")[2]
        if not path.startswith("/lab/small/resolve/") or name not in files:
            return Response("not found", 404, {"X-Error-Code": "EntryNotFound"})
        data = files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        return Response(data, headers=headers, content_type="application/octet-stream")

    httpserver.expect_request("/api/whoami-v2").respond_with_data("no", 401)
    httpserver.expect_request(re.compile("/.*")).respond_with_handler(answer)
    return httpserver


def run(*command: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "PYTHONPATH": str(ROOT), **env}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120
    )


def prefetch(home: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    command = ("-m", "huggingtweets.cli", "prefetch", "model.path=lab/small")
    return run(*command, home=home, HF_ENDPOINT=endpoint)


def test_what_trains_the_base_is_fetched_and_nothing_else(hub: HTTPServer, tmp_path: Path) -> None:
    done = prefetch(tmp_path, hub.url_for("").rstrip("/"))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.rglob("snapshots/*/*")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"pytorch_model.bin", "preview.png"}
    script = "from huggingtweets.bases.prefetch import is_prefetched as f\n"
    script += "from huggingtweets.config.schema import ModelConfig as M\n"
    script += "print(f(M(path='lab/small')), f(M(path='lab/other')), f(M(path=None)))"
    assert run("-c", script, home=tmp_path).stdout.split() == ["True", "False", "True"]


@pytest.mark.slow
def test_what_was_fetched_is_loaded_without_a_network(hub: HTTPServer, tmp_path: Path) -> None:
    assert prefetch(tmp_path, hub.url_for("").rstrip("/")).returncode == 0
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    loaded = run("-c", LOAD, home=tmp_path, **offline)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split()[0] == "0"


def test_what_cannot_be_fetched_is_one_sentence(tmp_path: Path) -> None:
    done = prefetch(tmp_path, "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "model.path: 'lab/small' cannot be fetched" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
