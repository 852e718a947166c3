"""The wheel is the product: built, installed beside nothing of ours, and used in an empty folder.

The quick environment takes the packages of this one, without the clone. `.ci/run` sets
HUGGINGTWEETS_INSTALLED to the `bin` of one that pip has filled from nothing.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from small import ROOT, SMALL_MODEL

Run = Callable[..., str]
POSTS = "".join(
    json.dumps({"id": str(number), "text": f"post {number} about the sea, the wind and boats"})
    + "\n"
    for number in range(300)
)
QUICK = (
    *SMALL_MODEL,
    "user=ann",
    "source=jsonl",
    "source.path=posts",
    "cleaning.min_chars=0",
    "recipe.block_size=32",
    "recipe.max_steps=3",
    "sampling.num=1",
    "sampling.max_new_tokens=10",
    "consent=permission",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=120)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def bin_dir(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of an environment with the wheel lie."""
    if given := os.environ.get("HUGGINGTWEETS_INSTALLED"):
        return Path(given).absolute()
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # A path file of a path file is not read, so the editable installation stays unseen.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", str(wheel)], check=True, timeout=120)
    return folder / "bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder; the commands below follow each other in it."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def run(bin_dir: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a command in the empty folder and return what it printed."""
    home = str(tmp_path_factory.mktemp("home"))
    kept = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "LANG", "HUGGINGTWEETS_CACHE")
    env = {key: os.environ[key] for key in kept if key in os.environ}
    env |= {"PATH": f"{bin_dir}:/usr/bin:/bin", "HOME": home, "HF_HUB_OFFLINE": "1"}

    def call(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(bin_dir / words[0]), *words[1:]],
            cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return call


def test_one_copy_of_every_setting_is_inside(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for place in ("conf", "launch", "slurm"):
        files = [path for path in (ROOT / place).rglob("*") if path.is_file()]
        assert files
        assert {f"huggingtweets/{path.relative_to(ROOT)}" for path in files} <= names
    code = [path for path in (ROOT / "huggingtweets").rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in code if "__pycache__" not in path.parts}
    assert wanted <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_the_package_is_that_of_the_wheel(run: Run) -> None:
    said = run("python", "-c", "import huggingtweets; print(huggingtweets.__file__)")
    assert str(ROOT / "huggingtweets") not in said
    assert run("huggingtweets", "--version").startswith("huggingtweets 0.")


def test_posts_are_imported_and_checked(run: Run, folder: Path) -> None:
    (folder / "ann.jsonl").write_text(POSTS)
    run("huggingtweets", "import", "jsonl", "ann", "source.path=ann.jsonl", "--to", "posts")
    assert "tokens" in run("huggingtweets", "check", *QUICK)
    assert "did you mean recipe.lr?" in run("huggingtweets", "train", "recipe.lrr=1", code=2)


@pytest.mark.slow  # `make wheel` runs it
def test_a_model_is_trained_and_used(run: Run, folder: Path) -> None:
    run("huggingtweets", "train", *QUICK)
    assert (folder / "output" / "ann" / "model" / "model.safetensors").is_file()
    assert json.loads(run("huggingtweets", "status", "output", "--json"))["done"] == 1
    said = run("huggingtweets", "generate", "output/ann", "The sea", "-n1", "--json")
    post = json.loads(said.splitlines()[0])
    assert post["prediction"].startswith("The sea")


@pytest.mark.slow
def test_the_launcher_starts_the_same(run: Run) -> None:
    launch = ("python", "-m", "accelerate.commands.launch", "--cpu", "-m", "huggingtweets.train")
    said = run(*launch, *QUICK)
    assert "done before" in said


@pytest.mark.slow
def test_a_sweep_needs_no_clone(run: Run, folder: Path) -> None:
    words = (*QUICK, "user=demo", "source=demo", "sweep.trials=2")
    run("huggingtweets", "sweep", "conf/sweep/huggingtweets.yaml", *words)
    assert list(folder.glob("output/sweep-*/best.yaml"))


def test_a_submission_names_scripts_that_are_there(run: Run) -> None:
    said = run("huggingtweets", "submit", "--dry-run", *QUICK, "output_dir=other")
    words = said.split()
    script = next(word for word in words if word.endswith("/array.sbatch"))
    assert Path(script).is_file()
    assert f"HUGGINGTWEETS_SLURM_DIR={Path(script).parent}" in words


def test_own_options_and_those_of_a_folder_go_first(run: Run, folder: Path) -> None:
    home = Path(run("python", "-c", "from pathlib import Path; print(Path.home())").strip())
    own = home / ".config" / "huggingtweets" / "conf" / "recipe"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("lr: 0.0123\n")
    assert "lr: 0.0123" in run("huggingtweets", "train", "recipe=mine", "--cfg", "job")
    assert "mine" in run("huggingtweets", "train", "recipe=mime", code=2)
    said = run("huggingtweets", "init", ".")
    assert (folder / "slurm" / "env.sh").is_file()
    assert " 0 kept" in said
    (folder / "conf" / "recipe" / "tweets.yaml").write_text("lr: 0.0456\n")
    assert " 0 files written" in run("huggingtweets", "init", ".")
    assert "lr: 0.0456" in run("huggingtweets", "train", "recipe=tweets", "--cfg", "job")
    assert "sbatch" in run("huggingtweets", "submit", "--dry-run", *QUICK, "output_dir=other")


def test_who_is_on_the_list_is_refused(run: Run) -> None:
    said = run("huggingtweets", "optout", "ann")
    assert "/.config/huggingtweets/optout.txt" in said
    words = [word for word in QUICK if not word.startswith("output_dir")]
    assert "want no model" in run("huggingtweets", "train", *words, "output_dir=new", code=1)
