"""Whose models are shown, whatever lies in their folders."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Serving, write_job

from huggingtweets.serve.people import People

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("change", "is_shown"),
    [
        ({"tweets": {"kept": INF}}, False),
        ({"data": {"train_tokens": "many"}}, False),
        ({"handles": ["../x"]}, False),
        ({"handles": 3}, False),
        ({"eval": {"bits_per_byte": 10**400}}, False),
        ({"eval": {"bits_per_byte": NAN, "base_bits_per_byte": INF}}, True),
        ({"eval": None}, True),
    ],
)
def test_a_result_that_is_odd_hides_nobody_else(
    change: dict[str, Any], is_shown: bool, tmp_path: Path
) -> None:
    write_job(tmp_path, "ann", [])
    path = write_job(tmp_path, "odd", []).parent / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = {person.slug: person for person in People(tmp_path).all()}
    assert set(found) == ({"ann", "odd"} if is_shown else {"ann"})
    if is_shown:  # JSON, and so the API, has no other numbers
        assert (found["odd"].bits, found["odd"].base_bits) == (None, None)


def test_nobody_is_shown_while_the_list_of_those_who_want_none_cannot_be_read(
    server: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optouts = tmp_path / "optout.txt"
    optouts.write_text("no hash\n")
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(optouts))
    for path in ("/v1/models", "/p/ann"):
        answer = httpx.get(f"{server.url}{path}", headers={"accept": "application/json"})
        assert answer.status_code == 503
        assert "cannot tell now who wants no model" in answer.json()["error"]["message"]
        assert str(tmp_path) not in answer.text
    optouts.write_text("")
    assert httpx.get(f"{server.url}/p/ann").status_code == 200
