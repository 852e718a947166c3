"""A SLURM cluster to test on: the test script's own, or the one of whoever runs the tests."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small import ROOT, SMALL_MODEL

BIN = Path(sys.executable).parent
LIMIT_S = 400
"""For whatever is waited for; the cores may be busy with something else."""
RECIPE = (
    *SMALL_MODEL,
    "source=jsonl",
    "engine.precision=fp32",
    "engine.slots=2",
    "recipe.block_size=64",
    "recipe.max_steps=100",
    "recipe.lr=1e-3",
    "sampling.num=0",
    "tracking=none",
    "publish=none",
)
USERS = (
    "AV_Abhisit", "BennieGThompson", "CarbajalSalud", "JDMahama", "LisaForCongress", "MaxineWaters",
    "MedvedevRussia", "MedvedevRussiaE", "MichelleSteelCA", "MikeforWI", "MustafaAG", "Oreo",
    "PEPE_LOBO", "PaulKagame", "RepDonBeyer", "RepKevinHern", "RepLucyMcBath", "SteveScalise",
    "TomOHalleran", "USRepLong", "hatoyamayukio", "ivojosipovic", "kaikahele", "fhollande",
)  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """Calls of SLURM's commands, with the project's environment."""

    script: Path | None
    """Of the test cluster, which may crash nodes; None: somebody's own cluster."""
    marks: Path
    options: tuple[str, ...] = ()
    """Of sbatch, as the owner of a cluster wants them."""
    environment: dict[str, str] = field(default_factory=dict)
    prolog: Path | None = None
    """Of the test cluster: run by a node before a job of its own, which it does not get if it
    fails."""

    def fail_next_launch(self) -> None:
        """Have SLURM fail to launch the next job that it gives to a node."""
        assert self.prolog is not None
        self.prolog.with_name("prolog.fails").touch()

    def reasons(self, job: str) -> dict[str, str]:
        """Why each task of a job waits, in the words of SLURM."""
        said = self.call("squeue", "-h", "-r", "-j", job, "-t", "PD", "-o", "%F_%K|%r")
        return dict(line.split("|") for line in said.splitlines())

    def resume_drained(self) -> None:
        """Do as an administrator does with a node that SLURM has drained."""
        for node in {*self.call("sinfo", "-h", "-N", "-t", "drain", "-o", "%N").split()}:
            self.call("scontrol", "update", f"nodename={node}", "state=resume")

    def sbatch(
        self, script: str, *arguments: str, options: tuple[str, ...] = (), **env: str
    ) -> str:
        """Queue a script and return the number of the job."""
        command = ["sbatch", "--parsable", *self.options, *options, f"slurm/{script}", *arguments]
        return self.call(*command, **env).strip()

    def call(self, *command: str, **env: str) -> str:
        done = self.run(*command, **env)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **self.environment, **env},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )

    def queue(self, job: str) -> dict[str, str]:
        """The state of each task of a job that has not ended, by `JOB_TASK` or `JOB`."""
        lines = self.call("squeue", "-h", "-r", "-o", "%F %K %T").splitlines()
        rows = [line.split() for line in lines]
        return {
            f"{number}_{task}" if task != "N/A" else number: state
            for number, task, state in rows
            if number == job
        }

    def wait(self, job: str, log: Callable[[], str] = str) -> None:
        """Wait until all tasks of a job have ended."""
        wait_for(lambda: not self.queue(job), log)

    def node_of(self, task: str) -> str:
        return self.call("squeue", "-h", "-j", task, "-o", "%N").strip()

    def processes(self) -> list[int]:
        """Processes that the jobs of these tests have left, on this host."""
        mark = f"HUGGINGTWEETS_MARKS={self.marks}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                words = (folder / "environ").read_bytes() if folder.name.isdecimal() else b""
                if mark in words and b"SLURM_JOB_ID=" in words:  # not a daemon that we started
                    found.append(int(folder.name))
        return found

    def kill_slurmd(self, node: str) -> None:
        """Take a node's daemon away, so that nobody ends its jobs, and have it noticed at once."""
        os.kill(int(Path(f"/run/slurm-test/slurmd.{node}.pid").read_text()), signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def start_slurmd(self, node: str) -> None:
        self.call(str(self.script), "start-node", node)
        self.run("scontrol", "update", f"nodename={node}", "state=resume")
        wait_for(lambda: "idle" in self.call("sinfo", "-h", "-n", node, "-o", "%t"))


def wait_for(is_true: Callable[[], object], log: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline, f"waited in vain\n{log()[-5000:]}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Batch:
    """An output folder and the logs of its tasks."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def log_option(self) -> str:
        return f"--output={self.folder}/%x-%A_%a.out"

    def log(self, job: str, task: int) -> str:
        # A launch that fails is told in a file of its own.
        return "\n".join(path.read_text() for path in self.folder.rglob(f"*-{job}_{task}.out"))

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.rglob("*.out")))

    def attempts(self, job: str, task: int = 0) -> int:
        return len(
            re.findall(r"^slurm: task \S+ attempt \d+ on", self.log(job, task), re.MULTILINE)
        )

    def num_done(self, job: str, task: int) -> int:
        return len(re.findall(r"job=\S+ done:", self.log(job, task)))

    def arguments(self, users: Path, shared: Path) -> tuple[str, ...]:
        return (
            f"user=file:{users}", f"source.path={shared / 'tweets'}", f"output_dir={self.output}",
            *RECIPE,
        )  # fmt: skip


def status(cluster: Cluster, batch: Batch) -> dict[str, Any]:
    return json.loads(cluster.call("huggingtweets", "status", str(batch.output), "--json"))
