"""What is left of a person after a purge: nothing, and of all others everything."""

import errno
import gzip
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from huggingtweets.cli import main as cli
from huggingtweets.config.compose import dump_config
from huggingtweets.config.posts_schema import SourceConfig
from huggingtweets.config.schema import ModelConfig, SamplingConfig, TrainConfig
from huggingtweets.errors import JobBusyError, LaunchError, StorageError
from huggingtweets.handles import Job
from huggingtweets.jobs.ledger import JobStatus, open_ledger
from huggingtweets.jobs.status import read_states
from huggingtweets.people import traces as traces_module
from huggingtweets.people.found_jobs import jobs_below
from huggingtweets.people.purge import plan_purge, purge
from huggingtweets.people.traces import traces_lines
from huggingtweets.posts.reading.timeline import RawPost
from huggingtweets.posts.records import Post, Timeline, write_timelines
from huggingtweets.posts.sources.paging import Page, Partial
from huggingtweets.publishing.index import write_index
from huggingtweets.storage.files import write_json, write_jsonl
from huggingtweets.storage.lock import acquire_lock
from huggingtweets.storage.paths import JobPaths, cache_dir

PEOPLE = ("ann_example", "bob_example", "carol_example")
ANN, BOB, CAROL = PEOPLE


def posts_of(handle: str) -> list[str]:
    return [f"{handle[:3]} says “{n}” of the many things that are on my mind ☃" for n in range(30)]


def make_job(outputs: Path, *handles: str, base: str = "gpt2", done: bool = True) -> JobPaths:
    """A job folder with all that a training leaves, weights aside."""
    job = Job.of(handles)
    paths = JobPaths(outputs / job.slug)
    paths.model.mkdir(parents=True)
    user = list(job.handles) if job.is_cyborg else job.handles[0]
    config = TrainConfig(user=user, output_dir=str(outputs), model=ModelConfig(path=base))
    paths.config.write_text(dump_config(config))
    timelines = [
        Timeline(one, one, tuple(Post(str(n), text) for n, text in enumerate(posts_of(one))))
        for one in job.handles
    ]
    write_timelines(paths.posts, timelines)
    write_json(paths.cleaning, {one: {"kept": 30} for one in job.handles})
    rows = [{"user": one, "side": "train", "text": t} for one in job.handles for t in posts_of(one)]
    write_jsonl(paths.dataset, rows)
    paths.card.write_text(f"# @{job.handles[0]}")
    (paths.checkpoints / "step-5").mkdir(parents=True)
    (paths.checkpoints / "step-5" / "manifest.json").write_text("{}")
    offline = paths.root / "wandb" / f"offline-run-{job.slug}"
    offline.mkdir(parents=True)
    (offline / "run.wandb").write_bytes(posts_of(job.handles[0])[0].encode())
    if done:
        write_json(paths.result, {"handles": list(job.handles), "digest": "x"})
    return paths


def result_of(handle: str) -> dict[str, Any]:
    """As much of result.json as an index shows."""
    return {
        "slug": handle,
        "handles": [handle],
        "tweets": {"kept": 30, "users": {handle: {"kept": 30}}},
        "data": {"train_tokens": 300},
        "train": {"steps": 4, "seconds": 1.5},
        "eval": None,
    }


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Jobs of three people, alone, together and in a sweep, with what a batch adds."""
    folder = tmp_path / "out"
    for handles in ((ANN,), (BOB,), (CAROL,), (ANN, BOB), (BOB, CAROL)):
        make_job(folder, *handles)
    make_job(folder / "lr-1e-4", ANN, done=False)
    make_job(folder / "more", CAROL, base=str(folder / ANN / "model"))
    with open_ledger(folder) as ledger:
        for slug in (ANN, BOB, f"{ANN}-{BOB}"):
            ledger.record(slug, JobStatus.done)
        ledger.record(CAROL, JobStatus.failed, reason="carol_example: got 1 character")
        ledger.record("someone-else-0123456789", JobStatus.failed, reason=f"@{ANN}: has no posts")
    (folder / "index.html").write_text(f"<a href='{ANN}/report.html'>Ann</a>")
    (folder / "users.txt").write_text(f"{ANN}\n{BOB}\n{BOB} {ANN.upper()}\n")
    write_jsonl(folder / "samples.jsonl.gz", [{"text": posts_of(one)[7]} for one in PEOPLE])
    (folder / "notes.json").write_text(json.dumps(posts_of(ANN)[3]))
    online = folder / "wandb" / "run-2" / "files" / "media"
    online.mkdir(parents=True)
    (online / "samples.table.json").write_text(json.dumps({"data": [[ANN, "a sample"]]}))
    (online.parent / "config.yaml").write_text("user:\n    value: somebody\n")
    batch_run = folder / "wandb" / "offline-run-1"
    batch_run.mkdir(parents=True)
    (batch_run / "run-1.wandb").write_bytes(b"\x00\x10" + ANN.encode() + b"\x00")
    (batch_run / "run-2.wandb").write_bytes(b"\x00\x10" + BOB.encode() + b"\x00")
    (folder / "events.out.tfevents.17.host.1").write_bytes(b"\x07text" + ANN.encode() + b"\x00")
    (folder / "plots").mkdir()
    (folder / "plots" / f"{ANN}.png").write_bytes(b"\x89PNG")
    (folder / "plots" / f"{BOB}.png").write_bytes(b"\x89PNG")
    return folder


def everything_in(folder: Path) -> bytes:
    """Names and contents of all files below a folder, unpacked where they are packed."""
    parts = []
    for path in folder.rglob("*"):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            data = path.read_bytes()
            parts.append(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return b"\n".join(parts).lower()


def assert_nothing_left(handle: str, *folders: Path) -> None:
    for folder in folders:
        data = everything_in(folder)
        assert handle.encode() not in data
        for text in posts_of(handle)[:20]:
            assert text.lower().encode() not in data
            assert json.dumps(text)[1:-1].lower().encode() not in data


def test_nothing_of_a_person_is_left(outputs: Path) -> None:
    assert ANN.encode() in everything_in(outputs)
    purge(plan_purge(ANN, outputs))
    assert_nothing_left(ANN, outputs)


def test_a_full_disk_is_given_room_first_and_the_next_purge_goes_on(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = outputs / ANN / "model" / "model.safetensors"
    weights.write_bytes(bytes(1000))

    def write(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as full:
        full.setattr("huggingtweets.people.purge.write_bytes", write)
        with pytest.raises(StorageError, match="expected room"):
            purge(plan_purge(ANN, outputs))
    assert not weights.exists()
    purge(plan_purge(ANN, outputs))
    assert_nothing_left(ANN, outputs)


def test_everything_of_others_is_left(outputs: Path) -> None:
    kept = [outputs / BOB, outputs / CAROL, outputs / f"{BOB}-{CAROL}"]
    before = [everything_in(folder) for folder in kept]
    purge(plan_purge(ANN, outputs))
    assert [everything_in(folder) for folder in kept] == before
    assert (outputs / "users.txt").read_text() == f"{BOB}\n"
    assert (outputs / "plots" / f"{BOB}.png").exists()
    assert (outputs / "wandb" / "offline-run-1" / "run-2.wandb").exists()
    assert not list(outputs.rglob("samples.table.json"))
    samples = gzip.decompress((outputs / "samples.jsonl.gz").read_bytes())
    assert [line[10:18] for line in samples.splitlines()] == [b"bob says", b"car says"]
    states = read_states(outputs)
    assert states.keys() == {BOB, CAROL, f"{BOB}-{CAROL}"}


def test_models_made_from_the_persons_model_go_too(outputs: Path) -> None:
    traces = plan_purge(ANN, outputs)
    assert {str(job.root.relative_to(outputs)) for job in traces.jobs} == {
        ANN,
        f"{ANN}-{BOB}",
        f"lr-1e-4/{ANN}",
        f"more/{CAROL}",
    }


def test_a_configuration_without_end_hides_nobody(outputs: Path) -> None:
    (outputs / ANN / "config.yaml").write_text("[" * 20_000)
    assert outputs / ANN in {job.root for job in plan_purge(ANN, outputs).jobs}


def test_the_index_of_a_batch_is_written_anew(tmp_path: Path) -> None:
    for handle in (ANN, BOB):
        paths = make_job(tmp_path, handle)
        sample = {"input": "I", "prediction": posts_of(handle)[5]}
        write_jsonl(paths.predictions, [sample])
        write_json(paths.result, result_of(handle))
    write_index(tmp_path)
    assert {row["slug"] for row in pq.read_table(tmp_path / "results.parquet").to_pylist()} == {
        ANN,
        BOB,
    }
    purge(plan_purge(ANN, tmp_path))
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["slug"] for row in rows] == [BOB]
    assert BOB in (tmp_path / "index.html").read_text()
    assert ANN not in json.dumps(rows)
    assert_nothing_left(ANN, tmp_path)


def test_looking_changes_nothing(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything_in(outputs)
    assert cli.main(["purge", f"@{ANN}", "--outputs", str(outputs)]) == 0
    shown = capsys.readouterr().out
    assert everything_in(outputs) == before
    assert f"job     {outputs / f'{ANN}-{BOB}'} (with 1 other people)" in shown
    assert "made from a model of this person" in shown
    assert f"lines   2 of {outputs / 'users.txt'}" in shown
    assert "--yes does it" in shown


def test_the_record_counts_and_names_nobody(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["purge", ANN, "--outputs", str(outputs), "--yes"]) == 0
    row = json.loads((outputs / "purged.jsonl").read_text())
    assert (row["jobs"], row["cyborgs"], row["online"]) == (4, 1, 0)
    assert ANN not in json.dumps(row)
    assert "optout" in capsys.readouterr().out
    assert cli.main(["purge", ANN, "--outputs", str(outputs), "--yes"]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_imported_posts_and_unfinished_fetches_go_too(outputs: Path, tmp_path: Path) -> None:
    posts = tmp_path / "posts"
    read = ("CSV", "text", "car", "js", "Parquet.gz", "zip")
    names = [f"{ANN.upper()}.jsonl.gz", ANN, *(f"{ANN}.{suffix}" for suffix in read)]
    posts.mkdir()
    for name in (*names, f"{BOB}.jsonl.gz"):
        (posts / name).write_text("x")
    partial = Partial("bluesky", ANN, "")
    partial.add(Page((RawPost(posts_of(ANN)[0], "1"),), "next"))
    purge(plan_purge(ANN, outputs, posts))
    assert [path.name for path in posts.iterdir()] == [f"{BOB}.jsonl.gz"]
    assert_nothing_left(ANN, outputs, posts, cache_dir())


def test_copies_in_the_cache_of_wandb_go_too(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    for number, handle in enumerate((ANN, BOB)):
        place = tmp_path / "cache" / "artifacts" / "obj" / "md5" / f"a{number}"
        place.mkdir(parents=True)
        (place / "0123").write_bytes(JobPaths(outputs / handle).posts.read_bytes())
    purge(plan_purge(ANN, outputs))
    assert_nothing_left(ANN, tmp_path / "cache")
    assert b"bob says" in everything_in(tmp_path / "cache")


def test_a_job_at_work_is_not_touched(outputs: Path) -> None:
    traces = plan_purge(ANN, outputs)
    before = everything_in(outputs / ANN)
    asked = []
    with acquire_lock(outputs / f"{ANN}-{BOB}"), pytest.raises(JobBusyError):
        purge(traces, elsewhere=lambda: asked.append(1) or 1)
    assert asked == [], "nothing is deleted online either"
    assert everything_in(outputs / ANN).startswith(before[:20])
    assert (outputs / ANN / "tweets.jsonl.gz").exists()
    assert (outputs / "index.html").exists()


def test_links_out_of_the_folder_are_not_followed(outputs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    make_job(elsewhere, ANN)
    (elsewhere / "list.txt").write_text(ANN)
    (outputs / "link").symlink_to(elsewhere)
    (outputs / "list.txt").symlink_to(elsewhere / "list.txt")
    (outputs / f"{ANN}-latest").symlink_to(elsewhere / ANN)
    before = everything_in(elsewhere)
    purge(plan_purge(ANN, outputs))
    assert everything_in(elsewhere) == before
    assert not (outputs / f"{ANN}-latest").is_symlink()


def test_links_to_what_is_not_looked_into_are_told(outputs: Path, tmp_path: Path) -> None:
    disk, posts = tmp_path / "disk", tmp_path / "posts"
    posts.mkdir()
    for path in (disk / f"{ANN}.jsonl", disk / "all.csv", disk / "weights", disk / "more.jsonl"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(posts_of(ANN)[0])
    links = {
        posts / f"{ANN}.jsonl": disk / f"{ANN}.jsonl",
        posts / f"{ANN}.csv": disk / "all.csv",
        outputs / "extra.jsonl": disk / "more.jsonl",
        outputs / ANN / "model" / "weights": disk / "weights",
        outputs / "circle": outputs / "circle",
        outputs / "within": outputs / BOB,
    }
    for link, target in links.items():
        link.symlink_to(target)
    traces = plan_purge(ANN, outputs, posts)
    told = {posts / f"{ANN}.csv", outputs / "extra.jsonl", outputs / ANN / "model" / "weights"}
    assert set(traces.links) == told
    assert f"{outputs / 'extra.jsonl'} leads to {disk / 'more.jsonl'}" in str(traces_lines(traces))
    purge(traces)
    assert sorted(path.name for path in disk.iterdir()) == ["all.csv", "more.jsonl", "weights"]


def test_what_cannot_be_looked_into_is_told(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (outputs / "closed").mkdir()
    (outputs / "long.txt").write_text(ANN + "\n" * 100_000)
    (outputs / "long.txt.gz").write_bytes(gzip.compress((ANN + "\n" * 100_000).encode()))
    (outputs / "cut.txt.gz").write_bytes(b"\x1f\x8b")
    before = (outputs / "long.txt.gz").read_bytes()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # root may read everything
        if os.fspath(path) == str(outputs / "closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(traces_module, "_MAX_TEXT_BYTES", 1 << 16)
    names = ("closed", "long.txt", "long.txt.gz", "cut.txt.gz")
    for handle in (ANN, "nobody"):
        traces = plan_purge(handle, outputs)
        assert set(traces.unread) == {outputs / name for name in names}
    assert cli.main(["purge", "nobody", "--outputs", str(outputs)]) == 0
    shown = capsys.readouterr().out
    assert f"unread  {outputs / 'closed'} (Permission denied)" in shown
    assert "nothing found in what could be looked into" in shown
    purge(traces)
    assert (outputs / "long.txt.gz").read_bytes() == before


def test_what_a_batch_goes_on_writing_is_kept(outputs: Path) -> None:
    (outputs / "batch.log").write_text(f"12:00:00 INFO job={ANN} step=1\nkept\n")
    with open_ledger(outputs) as ledger, (outputs / "batch.log").open("a") as log:
        purge(plan_purge(ANN, outputs))
        ledger.record(BOB, JobStatus.failed, reason="no room", retryable=True)
        log.write("12:00:01 INFO later\n")
    assert_nothing_left(ANN, outputs)
    last = (outputs / "ledger" / "main.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["reason"] == "no room"
    assert (outputs / "batch.log").read_text().split() == ["kept", "12:00:01", "INFO", "later"]


@pytest.mark.parametrize(
    "handle",
    ["main", "command", "ledger", "error", "seed", "lr", "default", "index", "published", "wandb",
     "study", "config", "prom", "log", "run", "example", "b", "trial", "configs", "compare",
     "cosine", "tweets", "none", "dream", "null", "schema"],
)  # fmt: skip
def test_handles_that_are_common_words_spare_what_is_of_others(outputs: Path, handle: str) -> None:
    sweep = outputs / "sweep-x"
    make_job(sweep / "posts", BOB)
    with sqlite3.connect(sweep / "study.db") as study:
        study.execute("CREATE TABLE attributes (key TEXT DEFAULT 'default', value TEXT)")
        outcome = {"seed": 42, "users": {BOB: {"lr": 1e-3}}}
        study.execute("INSERT INTO attributes VALUES ('default', ?)", [json.dumps(outcome)])
        choices = {"attributes": {"choices": ["tweets", "huggingtweets"]}}
        study.execute("INSERT INTO attributes VALUES ('default', ?)", [json.dumps(choices)])
    (sweep / "best.yaml").write_text(dump_config(TrainConfig(user=BOB)))
    (sweep / "compare.html").write_text(BOB)
    params = {"recipe": "tweets", "recipe.schedule": "cosine", "recipe.lr": 1e-3}
    write_json(sweep / "trial-0001" / "trial.json", {"params": params, "users": {BOB: {}}})
    config = sweep / "trial-0001" / "configs" / BOB / "trial.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(dump_config(TrainConfig(user=BOB)))
    (outputs / "ledger" / "command.txt").write_text(f"huggingtweets train user={BOB}\n")
    (outputs / "ledger" / "metrics.prom").write_text('jobs{writer="main"} 5\n')
    row = {"slug": BOB, "state": "x", "url": f"a/lab/{BOB}"}
    write_jsonl(outputs / "published.jsonl", [row])
    (outputs / "batch.out").write_text(f"12:00:00 ERROR job={BOB} failed\n")
    traces = plan_purge(handle, outputs)
    assert traces.is_empty, (traces.files, traces.lines)
    theirs = plan_purge(BOB, outputs)
    assert {sweep / "study.db", sweep / "best.yaml", config.parent} <= {*theirs.files}
    source = SourceConfig(path=f"posts/{ANN}.jsonl")
    asks = SamplingConfig(prompts=(f"My friend {ANN} says",))
    folded = SourceConfig(path=f"posts of {'all the people ' * 9}/{ANN}.jsonl")
    for named in (
        TrainConfig(user="file:users", source=source),
        TrainConfig(user=[BOB, ANN]),
        TrainConfig(user=BOB, sampling=asks),
        TrainConfig(user=BOB, source=folded),
    ):
        (sweep / "best.yaml").write_text(dump_config(named))
        assert sweep / "best.yaml" in plan_purge(ANN, outputs).files


def test_a_longer_handle_is_another_person(tmp_path: Path) -> None:
    make_job(tmp_path, BOB)
    others = ["alice.bsky.social", "Alice@mastodon.social", "malice"]
    (tmp_path / "users.txt").write_text("\n".join([*others, "alice", "@Alice.", "to:alice\n"]))
    for name in ("alice.bsky.social.log", "alice.JSONL.gz", "alice.log.1", "alice.bsky.social.png"):
        (tmp_path / name).write_bytes(gzip.compress(b"x") if name.endswith(".gz") else b"x")
    (tmp_path / "events.1").write_bytes(b"\x0aalice.bsky.social\x12\x00 alices alice2\x00")
    (tmp_path / "events.2").write_bytes(b"\x00\x05aliceB\x01a")  # the next field begins with a B
    purge(plan_purge("alice", tmp_path))
    left = ["alice.bsky.social.log", "alice.bsky.social.png", "events.1", "purged.jsonl"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *left[:2],
        BOB,
        *left[2:],
        "users.txt",
    ]
    assert (tmp_path / "users.txt").read_text() == "\n".join([*others, ""])
    purge(plan_purge("alice.mastodon.social", tmp_path))
    assert (tmp_path / "users.txt").read_text() == "\n".join([others[0], others[2], ""])
    purge(plan_purge("alice.bsky.social", tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [BOB, "purged.jsonl", "users.txt"]


@pytest.mark.parametrize("handle", ["done", "slug", "status", "result", "a", "model"])
def test_handles_that_are_words_of_ours_spare_the_ledger(outputs: Path, handle: str) -> None:
    before = read_states(outputs)
    make_job(outputs, handle)
    purge(plan_purge(handle, outputs))
    assert read_states(outputs) == before


def test_damaged_jobs_are_found_by_what_is_left(tmp_path: Path) -> None:
    paths = make_job(tmp_path, ANN, BOB)
    paths.config.write_text("user: [", encoding="utf-8")
    paths.result.write_text("{")
    paths.cleaning.unlink()
    assert [job.slug for job in plan_purge(ANN, tmp_path).jobs] == [f"{ANN}-{BOB}"]
    paths.posts.write_bytes(b"\x1f\x8b")
    assert [job.slug for job in plan_purge(BOB, tmp_path).jobs] == [f"{ANN}-{BOB}"]
    assert plan_purge(CAROL, tmp_path).is_empty


def test_wrong_folders_are_one_sentence(outputs: Path) -> None:
    with pytest.raises(LaunchError, match="is not a folder"):
        plan_purge(ANN, outputs / "nowhere")
    with pytest.raises(LaunchError, match="is the folder of one job"):
        plan_purge(ANN, outputs / ANN)


# --- Elsewhere


class _Hub(BaseHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.requests.append(f"GET {self.path}")
        if self.path.startswith("/api/whoami"):
            self.reply(200, {"name": "me"})
        elif self.path.startswith((f"/api/models/me/{ANN}", f"/api/models/lab/{ANN}-lm")):
            self.reply(200, {"id": f"me/{ANN}", "sha": "0" * 40})
        else:
            self.reply(404, {}, {"X-Error-Code": "RepoNotFound"})

    def do_DELETE(self) -> None:
        length = int(self.headers["Content-Length"])
        self.requests.append(f"DELETE {json.loads(self.rfile.read(length))}")
        self.reply(200, {})

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    _Hub.requests.clear()
    yield _Hub
    server.shutdown()
    server.server_close()


def deleted(hub: type[_Hub]) -> list[str]:
    return [request for request in hub.requests if request.startswith("DELETE")]


def test_repositories_are_deleted_by_the_real_client(hub: type[_Hub]) -> None:
    from huggingtweets.publishing.upload import delete_repositories

    assert delete_repositories([(None, ANN), (None, BOB)]) == [f"me/{ANN}"]
    assert len(deleted(hub)) == 1
    assert ANN in deleted(hub)[0]


@pytest.mark.parametrize("has_job", [True, False])
def test_repositories_are_deleted_where_they_were_published(
    hub: type[_Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str], has_job: bool
) -> None:
    make_job(tmp_path, ANN if has_job else BOB)
    row = {"slug": ANN, "state": "x", "url": f"https://hub.example/lab/{ANN}-lm"}
    write_jsonl(tmp_path / "published.jsonl", [row])
    command = ["purge", ANN, "--outputs", str(tmp_path)]
    assert cli.main(command) == 0
    assert f"stays   lab/{ANN}-lm, whose record goes; --hub deletes it" in capsys.readouterr().out
    if has_job:
        with acquire_lock(tmp_path / ANN):
            assert cli.main([*command, "--hub", "--yes"]) == 1
    assert deleted(hub) == []
    assert cli.main([*command, "--hub", "--yes"]) == 0
    assert any(f"{ANN}-lm" in request and "lab" in request for request in deleted(hub))


def test_a_person_goes_from_the_trials_of_a_sweep(tmp_path: Path) -> None:
    root = tmp_path / "out" / "sweep-x"
    make_job(root / "posts", ANN)
    make_job(root / "posts", BOB)
    (root / "study.journal").write_text(json.dumps({"users": [ANN, BOB]}))
    for number in range(2):
        trial = root / f"trial-{number:04d}"
        acquire_lock(trial).release()
        (trial / "config.yaml").write_text(dump_config(TrainConfig(user="file:users.txt")))
        (trial / "trial.json").write_text(json.dumps({"users": {ANN: {}, BOB: {}}}))
        make_job(trial, ANN)
        make_job(trial, BOB)
    purge(plan_purge(ANN, tmp_path / "out"))
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if ANN in str(path) or ANN.encode() in path.read_bytes()]
    assert (root / "trial-0001" / BOB / "config.yaml").exists()
    assert (root / "posts" / BOB / "config.yaml").exists()


def test_a_person_called_wandb_has_a_job_and_the_runs_of_others_are_none(tmp_path: Path) -> None:
    (tmp_path / "wandb" / ".lock").mkdir(parents=True)
    files = tmp_path / "batch" / "wandb" / "run-1" / "files"
    files.mkdir(parents=True)
    (files / "config.yaml").write_text("user:\n    value: somebody\n")
    assert [job.root for job in jobs_below(tmp_path, on_error)] == [tmp_path / "wandb"]


def on_error(err: OSError) -> None:
    raise err
