from pathlib import Path

import pytest

from huggingtweets.tracking.base import (
    ArtifactKind,
    ArtifactSpec,
    base_artifact,
    dataset_artifact,
    files_of,
    model_artifact,
    tweets_artifact,
    without_secrets,
)


def test_artifacts_have_the_names_and_types_of_the_original(tmp_path: Path) -> None:
    artifacts = [
        tweets_artifact("a-b", tmp_path),
        dataset_artifact("a-b"),
        base_artifact("gpt2"),
        model_artifact("a-b", tmp_path),
    ]
    assert [(artifact.name, str(artifact.kind)) for artifact in artifacts] == [
        ("tweets-a-b", "raw-dataset"),
        ("dataset-a-b", "train-dataset"),
        ("gpt2", "pretrained-model"),
        ("a-b", "finetuned-model"),
    ]


@pytest.mark.parametrize(
    ("path", "name", "reference"),
    [
        ("gpt2", "gpt2", "https://huggingface.co/gpt2"),
        ("EleutherAI/gpt-neo-125m", "EleutherAI-gpt-neo-125m", "EleutherAI/gpt-neo-125m"),
        ("/data/my model!", "my-model", None),
        ("../..", "..", None),
        ("/", "base", None),
        (None, "tiny", None),
        ("/data/" + "x" * 300, "x" * 120, None),
    ],
)
def test_base_artifact_is_named_by_the_base(path: str | None, name: str, reference: str) -> None:
    artifact = base_artifact(path)
    assert artifact.name == name
    assert (artifact.reference or "").removeprefix("https://huggingface.co/") == (
        reference or ""
    ).removeprefix("https://huggingface.co/")


def test_base_artifact_of_a_local_folder_points_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gpt2").mkdir()
    assert base_artifact("gpt2").reference is None


def test_files_of_leaves_out_hidden_files_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("config.json", "sub/weights.bin", ".env", ".git/config", "sub/.cache"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "link").symlink_to("/etc/passwd")
    single = tmp_path / "posts.jsonl"
    single.write_text("x")
    artifact = ArtifactSpec("a", ArtifactKind.finetuned_model, (folder, single))
    assert [name for name, _ in files_of(artifact)] == [
        "config.json",
        "sub/weights.bin",
        "posts.jsonl",
    ]


def test_without_secrets_drops_keys_and_redacts_texts() -> None:
    config = {
        "hub": {"token": "x", "api_key": "y", "org": "lab"},
        "wandb_api_key": "z",
        "note": ["bearer abc", 1, None, True],
        "model": {"path": Path("gpt2"), "revision": "a" * 40, "commit": "b" * 40},
    }
    assert without_secrets(config) == {
        "hub": {"org": "lab"},
        "note": ["[redacted]", 1, None, True],
        "model": {"path": "gpt2", "revision": "a" * 40, "commit": "[redacted]"},
    }
