import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from huggingtweets.bases.tiny import tiny_base
from huggingtweets.cli import main as cli
from huggingtweets.config.compose import dump_config
from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import ModelConfig, TrainConfig
from huggingtweets.posts.optout import handle_hash
from huggingtweets.storage.files import write_jsonl
from huggingtweets.storage.paths import JobPaths

POSTS = [f"this is post number {n} about gardens and rain" for n in range(12)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A job's folder with an untrained model, as far as these commands read it."""
    folder = tmp_path_factory.mktemp("job")
    shape = ModelConfig(None, None, num_layers=1, width=32, num_heads=2, vocab_size=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        tiny_base(shape).rename(folder / "model")
        rows = [{"user": "ann", "side": "train", "text": post} for post in POSTS[:8]]
        write_jsonl(JobPaths(folder).dataset, rows)
        yield folder


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    path = tmp_path / "ann.jsonl"
    write_jsonl(path, [{"id": str(n), "text": post} for n, post in enumerate(POSTS)])
    return path


def test_generate_prints_a_line_a_post(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for seed in ("1", "1", "2"):
        command = ["generate", str(job / "model"), "My dream is", "-n", "4", "--seed", seed]
        assert cli.main(command) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]
    assert printed[0].count("My dream is") == 4


def test_generate_lets_copies_pass_where_the_job_does(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "model").symlink_to(job / "model")
    command = ["generate", str(folder), "My dream is", "-n", "3", "--seed", "1"]
    write_jsonl(JobPaths(folder).dataset, [])
    assert cli.main(command) == 0
    written = capsys.readouterr().out
    rows = [{"user": "a", "side": "train", "text": post} for post in written.splitlines()]
    write_jsonl(JobPaths(folder).dataset, rows)
    assert cli.main([*command, "--block-copies", "1"]) == 0
    assert capsys.readouterr().out != written
    config = TrainConfig(sampling=SamplingConfig(block_copies=0))
    JobPaths(folder).config.write_text(dump_config(config))
    assert cli.main(command) == 0
    assert capsys.readouterr().out == written


def test_generate_says_why_posts_are_missing(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", str(job), "My dream is", "-n", "2", "--ban", "dream"]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "0 of 2 posts: all that was drawn for the others was refused (" in printed.err
    assert "12 banned); --block-copies 0 lets" in printed.err


def test_generate_prints_json(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", str(job), "-n", "1", "--json", "--block-copies", "5"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5
    assert all(line["prediction"].startswith(line["input"]) for line in lines)


def test_evaluate_leaves_out_what_was_trained_on(
    job: Path, posts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(job), "--posts", str(posts), "-n", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_posts"], found["num_trained"]) == (4, 8)
    interval = found["quality"]["model"]["bits_per_byte"]
    assert interval["low"] <= found["bits_per_byte"] <= interval["high"]
    assert found["quality"]["text"]["memorisation"]["samples"]["equal_frac"] == 0


def test_evaluate_cleans_as_the_job_did(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = tmp_path / "job", tmp_path / "ann.jsonl"
    folder.mkdir()
    (folder / "model").symlink_to(job / "model")
    posts = [f"write to ann{n}@example.org about {n} gardens" for n in range(6)]
    write_jsonl(path, [{"id": str(n), "text": post} for n, post in enumerate(posts)])
    rows = [{"user": "ann", "side": "train", "text": post} for post in posts[:4]]
    write_jsonl(JobPaths(folder).dataset, rows)
    config = TrainConfig(cleaning=CleaningConfig(mask_pii=False))
    JobPaths(folder).config.write_text(dump_config(config))
    assert cli.main(["evaluate", str(folder), "--posts", str(path), "-n", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_posts"], found["num_trained"]) == (2, 4)


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b'{"text": "of no side"}\n')], ids=["no gzip", "no side"]
)
def test_training_posts_that_are_damaged_are_one_sentence(
    data: bytes, job: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "model").symlink_to(job / "model")
    JobPaths(tmp_path).dataset.write_bytes(data)
    assert cli.main(["generate", str(tmp_path), "My dream is"]) == 1
    said = capfd.readouterr().err + caplog.text
    assert "expected the posts that the model was trained on" in said


def test_evaluate_shows_tables(job: Path, posts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(job), "--posts", str(posts), "-n", "1"]) == 0
    shown = capsys.readouterr().out
    assert "4 posts, 8 more were trained on; bits per byte" in shown
    assert "Diversity" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "nowhere"], "model: got nowhere, which is not a folder"),
        (["generate", "{job}", "--top-p", "2"], "sampling.top_p: got 2.0"),
        (["generate", "{bare}", "--block-copies", "5"], "the training posts are not beside"),
        (["evaluate", "{job}", "--posts", "posts.doc"], "--posts: got posts.doc"),
        (["evaluate", "{job}", "--posts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["attribute", "nowhere"], "attribution: got nowhere, which is not a folder"),
        (["attribute", "{job}"], "expected at least 2"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    arguments: list[str],
    message: str,
    job: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = tmp_path / "bare"
    bare.symlink_to(job / "model")
    assert cli.main([word.format(job=job, bare=bare) for word in arguments]) in (1, 2)
    assert message in capfd.readouterr().err + caplog.text


def test_people_who_want_no_model_are_not_measured_either(
    job: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """`evaluate` has no configuration: the list is the user's own, or that of the environment."""
    optouts = tmp_path / "optout.txt"
    optouts.write_text(handle_hash(posts.name.partition(".")[0]) + "\n")
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(optouts))
    assert cli.main(["evaluate", str(job), "--posts", str(posts)]) != 0
    assert "want no model of themselves" in capfd.readouterr().err + caplog.text
