import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from huggingtweets.online import go_offline_if_unreachable


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("status", "answers"), [(200, True), (404, True), (403, False), (502, False)]
)
def test_a_server_that_answers_is_told_from_a_gateway_that_does_not_reach_it(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, answers: bool
) -> None:
    httpserver.expect_request("/").respond_with_data("", status=status)
    monkeypatch.setenv("HF_ENDPOINT", httpserver.url_for("/"))
    assert go_offline_if_unreachable() is answers


def test_a_server_that_takes_the_call_and_says_nothing_is_given_up_in_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not go_offline_if_unreachable()
    assert time.monotonic() - start < 2


def test_a_base_out_of_reach_is_told_before_anybody_is_asked_and_before_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fixed by what is imported: `-X importtime` would show torch."""
    posts = tmp_path / "posts"
    posts.mkdir()
    (posts / "ann.jsonl").write_text('{"id": "1", "text": "hello"}\n')
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    words = ["user=ann", "source=jsonl", f"source.path={posts}", "model.path=lab/nowhere"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "huggingtweets.cli", "train", *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2, said
    assert "which is not on this machine, and the Hub cannot be reached" in said[-1]
    assert "consent" not in "".join(said)
    assert not [line for line in done.stderr.splitlines() if line.endswith("| torch")]
