"""The recipes for other machines, as far as they can be tried here: parsed, commands composed."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from huggingface_hub.cli.hf import app as hub_cli
from small import ROOT

from huggingtweets.cli.main import parse
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.logs import STOPPED, USAGE_ERROR

CONTAINERS = [ROOT / "containers" / name for name in ("Dockerfile", "huggingtweets.def")]
SPACE = ROOT / "containers" / "space" / "Dockerfile"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
register()


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def compose_train(words: list[str]) -> None:
    """What follows `huggingtweets` is a training that could begin."""
    to_config(compose_config(parse(words).words))


def test_a_pod_of_kubernetes_takes_its_shard_and_may_be_stopped() -> None:
    job = read_yaml(ROOT / "cloud" / "kubernetes-indexed-job.yaml")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    words = shlex.split(container["args"][0])
    assert words[:3] == ["exec", "huggingtweets", "train"]
    last = spec["completions"] - 1
    compose_train([word.replace("$JOB_COMPLETION_INDEX", str(last)) for word in words[2:]])
    assert f"/{spec['completions']}" in next(word for word in words if word.startswith("shard="))
    rules = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"][::2]}
    assert rules["Ignore"]["onExitCodes"]["values"] == [STOPPED]
    assert rules["FailJob"]["onExitCodes"]["values"] == [USAGE_ERROR]
    assert {rule["onExitCodes"]["containerName"] for rule in rules.values()} == {container["name"]}
    assert spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never", "podFailurePolicy allows nothing else"
    assert pod["terminationGracePeriodSeconds"] >= 120
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_task_of_skypilot_trains() -> None:
    task = read_yaml(ROOT / "cloud" / "skypilot.yaml")
    line = next(line for line in task["run"].splitlines() if " train " in line)
    compose_train(shlex.split(line.replace("$WHAT", task["envs"]["WHAT"]))[1:])
    assert "/output" in task["file_mounts"]
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_an_image_copies_what_the_wheel_is_built_from(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {*build["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]}
    needed |= {"pyproject.toml", build["project"]["readme"], "requirements.lock", "LICENSE"}
    lines = re.findall(r"^(?:COPY (?!--)| {4}(?=[\w./]+ /src/))(.+)$", text, re.MULTILINE)
    copied = {word for line in lines for word in line.split()[:-1]}
    assert needed <= copied, needed - copied
    assert all((ROOT / name).exists() for name in copied)
    extras = re.search(r"EXTRAS=([\w,]+)", text)
    assert extras is not None
    assert {*extras[1].split(",")} <= {*build["project"]["optional-dependencies"]}


def hub_commands(words: list[str]) -> list[list[str]]:
    """What is said to `hf`, in scripts within the words too."""
    ends = [at for at, word in enumerate(words) if word in ("&&", "|")] + [len(words)]
    found = [words[at + 1 : next(end for end in ends if end > at)]
             for at, word in enumerate(words) if word == "hf"]  # fmt: skip
    return found + [one for word in words if "hf " in word for one in hub_commands(word.split())]


def test_hf_knows_every_command_of_the_recipe() -> None:
    page = (ROOT / "cloud" / "hf-jobs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
    commands = [one for block in blocks for one in hub_commands(shlex.split(block))]
    assert len(commands) == 4
    for words in commands:
        command: Any = hub_cli
        while hasattr(command, "resolve_command"):
            name, command, words = command.resolve_command(typer.Context(command), words)
        command.make_context(name, list(words))  # refuses options and words that it does not know


def test_a_space_fetches_the_bases_that_adapters_name(tmp_path: Path) -> None:
    [script] = re.findall(r"^RUN (grep (?:.*\\\n)*.*)$", SPACE.read_text(), re.MULTILINE)
    for at, base in enumerate(["HuggingFaceTB/SmolLM2-135M", "me/own", "me/own", None]):
        (folder := tmp_path / "output" / f"p{at}" / "model").mkdir(parents=True)
        if base:
            config = {"base_model_name_or_path": base, "r": 8}
            (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    script = script.replace("hf download", "echo download")
    told = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    lines = told.stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["HuggingFaceTB/SmolLM2-135M", "me/own"]
    assert told.returncode == 0
    empty = tmp_path / "output" / "p3"
    told = subprocess.run(["sh", "-c", script], cwd=empty, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, ""), "nobody's model is adapters"


@pytest.mark.parametrize("path", CONTAINERS, ids=lambda path: path.name)
def test_the_shell_of_an_image_is_read_by_bash(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "Dockerfile":
        scripts = re.findall(r"^RUN ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    else:
        scripts = re.findall(r"^%(?:post|runscript|test)\n((?:    .*\n)+)", text, re.MULTILINE)
    assert len(scripts) >= 3
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_cluster_names_the_container_that_is_built() -> None:
    definition = (ROOT / "containers" / "huggingtweets.def").read_text()
    line = next(line for line in definition.splitlines() if "CONTAINER=(" in line)
    assert line.strip("# ") in (ROOT / "slurm" / "env.sh").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_that_are_there(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = read_yaml(path)["jobs"]
    assert {"check", "test", "wheel", "docs"} <= {*jobs}
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs
    for run in runs:
        assert run.removeprefix("make ") in targets, run


def test_cleaning_leaves_the_models(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept, gone = tmp_path / "output" / "jane" / "result.json", tmp_path / "dist" / "x.whl"
    for path in (kept, gone):
        path.parent.mkdir(parents=True)
        path.touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert kept.exists()
    assert not gone.exists()


def test_scripts_pass_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = [str(path) for path in (ROOT / "slurm").iterdir()]
    subprocess.run(["shellcheck", "--severity=error", "--shell=bash", *scripts], check=True)


def test_the_citation_names_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert read_yaml(ROOT / "CITATION.cff")["version"] == project["version"]
