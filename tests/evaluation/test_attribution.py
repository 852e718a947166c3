from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.schema import SplitKind
from huggingtweets.data.split import split_posts
from huggingtweets.errors import DataError
from huggingtweets.evaluation.attribution import Voice, measure_attribution, read_voices
from huggingtweets.generation.samples import Prediction
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.optout import add_optout
from huggingtweets.posts.records import Timeline
from huggingtweets.storage.files import write_json, write_jsonl
from huggingtweets.storage.paths import JobPaths

CAT = tuple(f"the cat purrs on sofa number {index}" for index in range(30))
DOG = tuple(f"our dog barks at mailman number {index}" for index in range(30))


def test_samples_go_to_whom_they_sound_like() -> None:
    voices = {
        "cat": Voice(CAT[:20], CAT[20:], ("the cat purrs again", "my cat on a sofa")),
        "dog": Voice(DOG[:20], DOG[20:], ("the cat purrs", "the dog barks at a mailman")),
    }
    figures = measure_attribution(voices, seed=0)
    assert figures.heldout_frac == 1
    assert figures.samples_frac == pytest.approx(3 / 4)
    assert figures.per_voice == {"cat": (1, 1), "dog": (0.5, 1)}
    assert figures.chance == 0.5


def test_of_nothing_there_is_no_share() -> None:
    voices = {"cat": Voice(CAT, (), ()), "dog": Voice(DOG[:20], DOG[20:], ())}
    figures = measure_attribution(voices, seed=0)
    assert (figures.samples_frac, figures.heldout_frac) == (None, 1)
    assert figures.per_voice == {"cat": (None, None), "dog": (None, 1)}


def test_one_voice_cannot_be_told_apart() -> None:
    with pytest.raises(DataError, match="at least 2"):
        measure_attribution({"cat": Voice(CAT, (), ())}, seed=0)


def test_read_voices_takes_whole_finished_jobs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HUGGINGTWEETS_OPTOUT", str(tmp_path / "optout.txt"))
    add_optout("shy")
    for slug in ("cat", "dog", "shy", "torn"):
        paths = JobPaths(tmp_path / slug)
        rows = [{"user": slug, "side": "train", "text": "a"}]
        rows += [{"user": slug, "side": "heldout", "text": "b"}]
        write_jsonl(paths.dataset, rows)
        write_jsonl(paths.predictions, [asdict(Prediction("I like", "I like fish"))])
    for slug in ("cat", "shy", "torn"):
        write_json(JobPaths(tmp_path / slug).result, {"slug": slug, "handles": [slug]})
    JobPaths(tmp_path / "torn").predictions.unlink()
    (tmp_path / "ledger").mkdir()
    assert read_voices(tmp_path) == {"cat": Voice(("a",), ("b",), ("fish",))}
    assert caplog.text.count("is left out") == 2


def test_real_people_are_told_apart(read_account: Callable[[str], Timeline]) -> None:
    voices = {}
    for account in ("RepDonBeyer", "QueenNoor", "JDMahama", "LisaForCongress", "USRepLong"):
        posts, _ = clean_timeline(read_account(account), CleaningConfig())
        split = split_posts([posts], kind=SplitKind.random, heldout_frac=0.1, seed=1)
        voices[account] = Voice(split.train[0], split.heldout[0], ())
    assert measure_attribution(voices, seed=0).heldout_frac > 0.75
