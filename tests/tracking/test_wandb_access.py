from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from huggingtweets.config.results_schema import WandbMode
from huggingtweets.tracking.wandb_access import (
    DEFAULT_URL,
    base_url,
    choose_mode,
    has_credentials,
)
from huggingtweets.web import answers


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any W&B settings."""
    names = ("API_KEY", "MODE", "BASE_URL", "CONFIG_DIR", "IDENTITY_TOKEN_FILE")
    for name in (*(f"WANDB_{name}" for name in names), "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_netrc(path: Path, host: str) -> None:
    path.write_text(f"machine {host} login user password {'a' * 40}\n")
    path.chmod(0o600)


def test_mode_is_offline_without_a_key() -> None:
    assert choose_mode(None) is WandbMode.offline


def test_mode_is_online_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert choose_mode(None) is WandbMode.online


@pytest.mark.parametrize("mode", list(WandbMode))
def test_mode_is_what_the_config_says(mode: WandbMode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode(mode) is mode


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("disabled", "disabled"),
        ("offline", "offline"),
        ("dryrun", "offline"),
        ("run", "online"),
        ("nonsense", "online"),
    ],
)
def test_mode_follows_the_environment(
    value: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", value)
    assert choose_mode(None) is WandbMode(mode)


@pytest.mark.parametrize(
    ("host", "found"), [("api.wandb.ai", True), ("other.example", False)], ids=str
)
def test_credentials_are_found_in_netrc(home: Path, host: str, found: bool) -> None:
    write_netrc(home / ".netrc", host)
    assert has_credentials() is found


def test_credentials_are_those_of_the_configured_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_netrc(home / "elsewhere", "wandb.lab.example:8080")
    monkeypatch.setenv("NETRC", str(home / "elsewhere"))
    assert not has_credentials()
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://wandb.lab.example:8080/\n")
    assert base_url() == "https://wandb.lab.example:8080"
    assert has_credentials()


@pytest.mark.parametrize(
    "damage", [b"", b"machine", b"machine api.wandb.ai login", "\0\xff".encode(), b"machine \xff"]
)
def test_credentials_survive_a_damaged_netrc(home: Path, damage: bytes) -> None:
    (home / ".netrc").write_bytes(damage)
    assert not has_credentials()


@pytest.mark.parametrize("damage", ["base_url = x", "[default", "%(x)s", "[default]\nbase_url\n"])
def test_base_url_survives_damaged_settings(home: Path, damage: str) -> None:
    settings = home / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(damage)
    assert base_url() == DEFAULT_URL


def test_base_url_prefers_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:8080/")
    assert base_url() == "http://localhost:8080"


@pytest.mark.parametrize(
    ("mode", "reachable"), [("ok", True), ("401", True), ("404", True), ("500", False)]
)
def test_reachable_means_that_the_server_answers(
    start_wandb: Callable[[], Any], mode: str, reachable: bool
) -> None:
    fake = start_wandb()
    fake.mode = mode
    assert answers(f"{fake.url}/graphql", timeout_s=5) is reachable


def test_reachable_gives_up_in_time(black_hole: str, refused: str) -> None:
    for url in (black_hole, refused, "nonsense"):
        assert not answers(f"{url}/graphql", timeout_s=0.2)
