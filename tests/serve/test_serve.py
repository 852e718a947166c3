"""The API as its clients use it: what is written, by whom, and who is let in."""

import concurrent.futures
import gc
import json
import re
import shutil
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from served import COPIED, LONE, STACKED, Serving, serving, write_adapters
from transformers import AutoModelForCausalLM, AutoTokenizer

from huggingtweets.cli import main as cli
from huggingtweets.posts.optout import handle_hash
from huggingtweets.serve.lone import LoneBatch
from huggingtweets.serve.metrics import Metrics
from huggingtweets.serve.rows import Row
from huggingtweets.serve.voices import Voice

LOOSE = {"max_tokens": 24, "temperature": 1.0, "top_p": 1.0}


def ask(server: Serving, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-synthetic"] == "true"
    found: dict[str, Any] = answer.json()
    return found


def choices(server: Serving, body: dict[str, Any]) -> Any:
    return ask(server, **body)["choices"]


def client_of(server: Serving, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=120)


def greedy(folder: Path, prompt: str, num: int) -> str:
    """Return what transformers writes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(prompt)["input_ids"]]])
    new = model.generate(ids, max_new_tokens=num, do_sample=False, pad_token_id=0)[0]
    text: str = tokenizer.decode(new[1:], skip_special_tokens=True)
    return text.split("\n")[0].removeprefix(prompt).rstrip()


def test_models_are_listed_by_a_real_client(server: Serving) -> None:
    names = [model.id for model in client_of(server).models.list()]
    assert names == sorted([*STACKED, *LONE])
    assert client_of(server).models.retrieve("dee.example.com").owned_by == "huggingtweets"


@pytest.mark.parametrize("slug", [*STACKED, *LONE])
def test_everybody_writes_what_transformers_would(slug: str, server: Serving) -> None:
    body = {"model": slug, "prompt": "My dream is", "max_tokens": 12, "temperature": 0}
    [choice] = ask(server, **body)["choices"]
    assert choice["text"] == greedy(server.folder / slug / "model", "My dream is", 12)


def test_posts_do_not_depend_on_who_is_decoded_beside_them(server: Serving) -> None:
    bodies = [
        {"model": slug, "prompt": f"My {number}", "n": 3, "seed": number, **LOOSE}
        for number in range(4)
        for slug in (*STACKED, *LONE)
    ]
    alone = [ask(server, **body)["choices"] for body in bodies[:8]]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda body: ask(server, **body)["choices"], bodies))
    assert together[:8] == alone
    assert len({choice["text"] for choices in together for choice in choices}) > 60


def test_streaming_and_not_give_the_same_posts(server: Serving) -> None:
    client = client_of(server)
    options = {"model": "ann", "prompt": "I want", "n": 2, "seed": 5, "max_tokens": 40}
    whole = client.completions.create(**options)
    texts, finishes = ["", ""], [None, None]
    for chunk in client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        assert chunk.synthetic is True
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
        usage = chunk.usage
    assert texts == [choice.text for choice in whole.choices]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_curl_reads_a_stream(server: Serving) -> None:
    body = json.dumps({"model": "bob", "prompt": "I like", "stream": True, "max_tokens": 8})
    shown = subprocess.run(
        ["curl", "-sN", f"{server.url}/v1/completions", "-d", body, "-H",
         "Content-Type: application/json"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    lines = [line for line in shown.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    last = json.loads(lines[-2].removeprefix("data: "))["choices"][0]
    assert last["finish_reason"] in ("stop", "length")


def test_stop_ends_a_post(server: Serving) -> None:
    body = {"model": "ann", "prompt": "My", "n": 16, "seed": 1, "max_tokens": 40}
    texts = [choice["text"] for choice in ask(server, **body)["choices"]]
    at = next(index for index, text in enumerate(texts) if len(text) > 12)
    whole, mark = texts[at], texts[at][10:12]
    choice = ask(server, **body, stop=[mark])["choices"][at]
    assert choice["text"] == whole[: whole.index(mark)].rstrip()
    assert choice["finish_reason"] == "stop"


def test_copied_words_are_marked_and_long_copies_never_shown(server: Serving) -> None:
    # The prompt is a copy, so whatever follows it goes on with four copied words or more.
    prompt = " ".join(COPIED.split()[:5])
    [choice] = ask(server, model="ann", prompt=prompt, max_tokens=8, seed=3)["choices"]
    assert choice["finish_reason"] == "content_filter"
    assert choice["text"] == ""
    assert server.metrics.render({}).count('reason="copied"') == 1


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ([], "the body: got []"),
        ({"prompt": "x"}, "model: got nothing"),
        ({"model": "ann", "n": 99}, "n: got 99; expected a whole number from 1 to 16"),
        ({"model": "ann", "n": True}, "n: got True"),
        ({"model": "ann", "max_tokens": 0}, "max_tokens: got 0"),
        ({"model": "ann", "max_tokens": 10**9}, "max_tokens: got 1000000000"),
        ({"model": "ann", "temperature": -1}, "temperature: got -1"),
        ({"model": "ann", "top_p": "1"}, "top_p: got '1'"),
        ({"model": "ann", "prompt": "x" * 5000}, "prompt: got"),
        ({"model": "ann", "prompt": ["a", "b"]}, "prompt: got"),
        ({"model": "ann", "prompt": "a\nb"}, "one line"),
        ({"model": "ann", "stop": ["x"] * 9}, "stop: got"),
        ({"model": "ann", "logprobs": 5}, "logprobs: got 5"),
        ({"model": "ann", "logprobs": 0}, "logprobs: got 0"),
        ({"model": "ann", "frobnicate": 1}, "'frobnicate': is not a known key"),
        ({"\ud800": 1}, r"'\ud800': is not a known key"),
    ],
)
def test_mistake_is_one_sentence_in_the_api_shape(body: Any, part: str, server: Serving) -> None:
    answer = httpx.post(
        f"{server.url}/v1/completions", content=json.dumps(body), timeout=30,
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert part in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize("slug", ["ann", "leo", "zoe", "wide"])
def test_prompt_longer_than_the_model_sees_is_a_mistake_of_the_client(
    slug: str, server: Serving
) -> None:
    body = {"model": slug, "prompt": "\U0001f600" * 2000, "max_tokens": 4}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert "tokens or more; expected fewer" in answer.json()["error"]["message"]


def test_long_prompt_and_answer_stay_within_the_cache(server: Serving) -> None:
    body = {"model": "wide", "prompt": "zq" * 240, "max_tokens": 200, "temperature": 5}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("name", ["nobody", "../../etc/passwd", "ann/../bob", "", "<b>", "a" * 999])
def test_unknown_models_are_404(name: str, server: Serving) -> None:
    with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
        client_of(server).completions.create(model=name, prompt="x")


def test_client_that_hangs_up_frees_its_place(server: Serving) -> None:
    body = json.dumps({"model": "ann", "prompt": "x", "n": 16, "max_tokens": 120, "temperature": 5})
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(
                f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json"
                f"\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            time.sleep(0.1)
    deadline = time.monotonic() + 20
    while server.engine.gauges()["active_posts"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.engine.gauges()["active_posts"] == 0


def test_person_who_is_purged_or_opts_out_vanishes(
    server: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optouts = tmp_path / "optout.txt"
    optouts.write_text("")
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(optouts))
    shutil.copytree(server.folder / "bob", server.folder / "eve")
    result = json.loads((server.folder / "eve" / "result.json").read_text())
    (server.folder / "eve" / "result.json").write_text(json.dumps(result | {"handles": ["eve"]}))
    deadline = time.monotonic() + 20
    while server.people.get("eve") is None and time.monotonic() < deadline:
        time.sleep(0.1)
    ask(server, model="eve", prompt="x", max_tokens=4)
    optouts.write_text(handle_hash("bob") + "\n")
    gone = httpx.post(f"{server.url}/v1/completions", json={"model": "bob"}, timeout=30)
    assert gone.status_code == 404
    assert httpx.get(f"{server.url}/p/bob").status_code == 404
    optouts.write_text("")
    shutil.rmtree(server.folder / "eve")
    gone = httpx.post(f"{server.url}/v1/completions", json={"model": "eve"}, timeout=30)
    assert gone.status_code == 404


@pytest.mark.parametrize("name", ["__init__", "step"])
def test_one_model_that_fails_ends_nobody_elses_posts(
    name: str, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LoneBatch, name, fail)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        body = {"model": "ann", "prompt": "My", "n": 16, **LOOSE, "max_tokens": 120}
        coming = pool.submit(ask, server, **body)
        while not (server.engine.gauges()["active_posts"] or coming.done()):
            time.sleep(0.01)
        answer = httpx.post(f"{server.url}/v1/completions", json={"model": "neo"}, timeout=30)
        assert (answer.status_code, coming.done()) == (503, False)
        assert "decoding failed (RuntimeError); ask again" in answer.json()["error"]["message"]
        assert len(coming.result()["choices"]) == 16


def test_while_the_list_cannot_be_read_no_post_goes_on(
    server: Serving,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    optouts = tmp_path / "optout.txt"
    optouts.write_text("")
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(optouts))
    take = Row.take
    monkeypatch.setattr(Row, "take", lambda row, token: time.sleep(0.01) or take(row, token))
    body = {"model": "ann", "prompt": "My", "n": 9, "stream": True, **LOOSE, "max_tokens": 120}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as answer:
        while not server.engine.gauges()["active_posts"]:
            time.sleep(0.01)
        optouts.unlink()
        assert "cannot tell now who wants no model" in answer.read().decode()
    time.sleep(2.5)
    assert sum(str(optouts) in line for line in caplog.messages) == 1
    assert "Traceback" not in caplog.text
    optouts.write_text("")
    assert len(ask(server, model="ann", prompt="My", max_tokens=4)["choices"]) == 1


def test_what_cannot_be_loaded_names_no_path(
    server: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = server.folder / "mal"
    shutil.copytree(server.folder / "ann", job)
    (job / "dataset.jsonl.gz").write_bytes(b"damaged")
    while server.people.get("mal") is None:
        time.sleep(0.1)
    answer = httpx.post(f"{server.url}/v1/completions", json={"model": "mal"}, timeout=30)
    shutil.rmtree(job)
    assert (answer.status_code, str(server.folder) in answer.text) == (503, False)
    assert "mal: the model cannot be loaded; expected" in answer.json()["error"]["message"]
    assert str(job / "dataset.jsonl.gz") in caplog.text


def figure(server: Serving, name: str) -> float:
    """Return one of the server's own figures."""
    text = httpx.get(f"{server.url}/metrics").text
    [value] = re.findall(rf"^huggingtweets_{name} (\S+)$", text, re.MULTILINE)
    return float(value)


def test_only_a_client_that_leaves_hangs_up(server: Serving) -> None:
    url, before = f"{server.url}/v1/completions", figure(server, "hang_ups_total")
    body = {"model": "ann", "prompt": "\U0001f600" * 2000, "stream": True}
    assert '"error"' in httpx.post(url, json=body).text
    ask(server, model="ann", prompt="x", max_tokens=4)
    assert figure(server, "hang_ups_total") == before
    body = {"model": "ann", "prompt": "x", "n": 16, "max_tokens": 120, "temperature": 5}
    with httpx.stream("POST", url, json=body | {"stream": True}) as answer:
        next(answer.iter_bytes())
    deadline = time.monotonic() + 20
    while figure(server, "hang_ups_total") == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert figure(server, "hang_ups_total") == before + 1


def test_first_text_is_timed_where_it_is_streamed(server: Serving) -> None:
    before = figure(server, "first_token_seconds_count")
    for is_streamed, more in ((False, 0), (True, 1)):
        body = {"model": "ann", "prompt": "I", "stream": is_streamed, **LOOSE}
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        assert figure(server, "first_token_seconds_count") == before + more


def test_counts_are_whole_however_large() -> None:
    metrics = Metrics()
    metrics.stepped(12_345_678, 1.5)
    assert "huggingtweets_row_steps_total 12345678\n" in metrics.render({})


def test_method_that_is_none_is_answered_with_those_that_are(server: Serving) -> None:
    answer = httpx.put(f"{server.url}/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_memory_for_a_few_models_serves_everybody(server: Serving, tmp_path: Path) -> None:
    folder = shutil.copytree(server.folder, tmp_path / "few", symlinks=True)
    bodies = [
        {"model": slug, "prompt": "My", "n": 2, "seed": number, **LOOSE}
        for number in range(2)
        for slug in (*STACKED, *LONE)
    ]
    alone = [ask(server, **body)["choices"] for body in bodies]
    for small in serving(folder, max_bytes=1 << 20):
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            together = list(pool.map(partial(choices, small), bodies))
        assert together == alone
        assert small.engine.gauges()["model_loads_total"] <= len(bodies)
        gc.collect()
        voices = [
            one for one in gc.get_objects()
            if type(one) is Voice and one.person.paths.root.is_relative_to(folder)
        ]  # fmt: skip
        assert len(voices) == small.engine.gauges()["models"] < len([*STACKED, *LONE])


@pytest.mark.parametrize(("slug", "base"), [("zoe", "neo"), ("liv", "lama")])
def test_adapters_that_were_trained_again_write(
    slug: str, base: str, server: Serving, tmp_path: Path
) -> None:
    folder = tmp_path / slug
    shutil.copytree(server.folder / slug, folder)
    body = {"model": slug, "prompt": "My dream is", "max_tokens": 12, "temperature": 0}
    for own in serving(tmp_path):
        before = ask(own, **body)["choices"][0]["text"]
        write_adapters(folder / "model", server.folder / base / "model", 99)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"tweets": {"kept": 7777}}))
        deadline = time.monotonic() + 20
        while own.people.all()[0].kept != 7777 and time.monotonic() < deadline:
            time.sleep(0.1)
        text = ask(own, **body)["choices"][0]["text"]
        assert text == greedy(folder / "model", "My dream is", 12) != before


def test_metrics_count_and_name_nobody(server: Serving) -> None:
    ask(server, model="ann", prompt="x", max_tokens=4)
    text = httpx.get(f"{server.url}/metrics").text
    assert "huggingtweets_posts_total" in text
    assert 'huggingtweets_answers_total{status="200"}' in text
    assert not any(f"{slug}" in text for slug in ("dee.example.com", "lama"))
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}


def test_token_opens_the_door_and_nothing_else_does(output_dir: Path) -> None:
    token = "a-token-of-many-letters"
    for server in serving(output_dir, token=token, per_minute=6):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"cookie": "huggingtweets_session=x"},
        ):
            assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 401
        for host in ("x/healthz?", "x/login#", "a@x/healthz?", "["):
            answer = httpx.get(f"{server.url}/v1/models", headers={"host": host})
            assert answer.status_code == 401
        page = httpx.get(f"{server.url}/", headers={"accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "/login")
        assert httpx.get(f"{server.url}/v1/models?token={token}").status_code == 401
        assert len(client_of(server, token).models.list().data) == len([*STACKED, *LONE])
        with httpx.Client(base_url=server.url) as client:
            assert client.post("/login", data={"token": "wrong"}).status_code == 401
            assert client.post("/login", data={"token": token}).status_code == 303
            assert token not in str(client.cookies)
            assert client.get("/").status_code == 200
        answers = [
            httpx.post(f"{server.url}/login", data={"token": str(number)}) for number in range(8)
        ]
        wait = answers[-1].headers["retry-after"]
        assert answers[-1].status_code == 429
        assert int(wait) >= 1
        assert f"ask again in {wait} s" in answers[-1].json()["error"]["message"]


def test_other_names_of_the_address_are_refused(server: Serving) -> None:
    answer = httpx.get(f"{server.url}/v1/models", headers={"host": "evil.example"})
    assert answer.status_code == 421
    form = httpx.post(f"{server.url}/v1/completions", content="{}", headers={
        "content-type": "text/plain"})  # fmt: skip
    assert form.status_code == 415


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--host", "0.0.0.0"], "without a token"),
        (["--token", "short"], "--token: got 5 characters"),
        (["--memory-gib", "0"], "--memory-gib: got 0"),
        (["--memory-gib", "inf"], "--memory-gib: got inf"),
        (["--port", "99999"], "--port: got 99999; expected 0 to 65535"),
        (["--rate", "-5"], "--rate: got -5"),
        (["--queue", "0"], "--queue: got 0; expected 1 or more"),
    ],
)
def test_unsafe_start_is_refused(
    words: list[str], part: str, output_dir: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("HUGGINGTWEETS_TOKEN", raising=False)
    assert cli.main(["serve", str(output_dir), *words]) == 2
    assert part in capsys.readouterr().err


def test_missing_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(tmp_path / "none")]) == 2
    assert "expected the output_dir of a run" in capsys.readouterr().err
