import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from huggingtweets.errors import ConfigError
from huggingtweets.storage.paths import cache_dir, config_home, shipped, template
from huggingtweets.storage.places import check_out_file, find_model_dir


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    for number in range(12):
        model = tmp_path / f"user{number:02}" / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
    (tmp_path / "ledger").mkdir()
    return tmp_path


def test_a_job_and_its_model_mean_the_same(batch: Path) -> None:
    model = batch / "user03" / "model"
    assert find_model_dir(batch / "user03") == find_model_dir(model) == model


def test_a_batch_lists_its_models(batch: Path) -> None:
    with pytest.raises(ConfigError, match=r"12 jobs.*name one of .*/user00, .* and 4 more"):
        find_model_dir(batch)


def test_adapters_of_a_batch_are_models_too(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"2 jobs.*name one of .*/ann, .*/bob"):
        find_model_dir(tmp_path)


@pytest.mark.parametrize("variable", ["HUGGINGTWEETS_CACHE", "HUGGINGTWEETS_CONFIG"])
def test_our_folders_may_be_told_from_the_home_folder(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv(variable, "~/elsewhere")
    folder = {"HUGGINGTWEETS_CACHE": cache_dir, "HUGGINGTWEETS_CONFIG": config_home}[variable]
    assert folder() == Path("/home/ann/elsewhere")


def test_a_misspelt_job_is_answered_by_the_nearest(batch: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a folder.*did you mean .*/user03\?"):
        find_model_dir(batch / "usr03")


def test_an_empty_folder_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no model"):
        find_model_dir(tmp_path)


def test_a_wrong_path_costs_no_import_of_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "huggingtweets.cli", "generate", "nowhere"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert not [line for line in done.stderr.splitlines() if line.endswith(("| torch", "| hydra"))]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_an_own_file_goes_before_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUGGINGTWEETS_CONFIG", str(tmp_path / "settings"))
    name = "launch/cpu.yaml"
    assert template(name) == shipped(name)
    for place in ("settings", "."):
        path = tmp_path / place / name
        path.parent.mkdir(parents=True)
        path.touch()
        assert template(name).resolve() == path.resolve()


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to a pipe", "below a file"])
def test_a_file_that_is_asked_for_takes_nothing_elses_place(kind: str, tmp_path: Path) -> None:
    path = place = tmp_path / "there"
    if kind == "folder":
        place.mkdir()
    elif kind == "below a file":
        place.touch()
        path = place / "new" / "x.csv"
    else:
        os.mkfifo(place)
    if kind.startswith("link"):
        path = tmp_path / "link"
        path.symlink_to(place)
    with pytest.raises(ConfigError, match=r"got a .*; expected a f.* with --to"):
        check_out_file("--to", path)


def test_a_file_that_is_asked_for_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere/x.csv")
    path = check_out_file("--to", tmp_path / "link")
    assert path == tmp_path.resolve() / "elsewhere" / "x.csv"
    path.parent.mkdir()
    path.touch()
    assert check_out_file("--to", tmp_path / "link") == path
