"""Runs the real train.py in processes that can be killed, without paying for imports each time.

Processes are forked from a server that has imported torch and transformers but has run nothing. A
job of several processes has a launcher that does what torchrun does: it starts the ranks and ends
all when one fails.
"""

import hashlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIMIT_S = 240.0
"""Seconds that one start may take."""
SMALL = (
    "model=tiny",
    "model.num_layers=2",
    "model.width=32",
    "model.num_heads=2",
    "model.vocab_size=300",
    "model.max_positions=64",
    "recipe.block_size=32",
    "recipe.global_batch_size=4",
    "cleaning.min_chars=0",
    "engine=single",
    "engine.precision=fp32",
    "engine.log_every=5",
    "sampling.num=0",
    "tracking=none",
    "publish=none",
)
"""A job of about a second."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["warm_imports"])
# The server of Python 3.11 looks for that module with the path of a fresh interpreter.
os.environ["PYTHONPATH"] = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


@dataclass
class Start:
    """One start of train.py."""

    arguments: list[str]
    num_processes: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    """Called in every rank before train.py, to slow it down or to make it fail."""
    log: Path = Path(os.devnull)
    errors: Path | None = None
    """Where the errors go; None: into the log."""
    cwd: Path | None = None
    command: str | None = None
    """A command of `huggingtweets` to run in place of train.py."""


class Running:
    """A start under way."""

    def __init__(self, start: Start) -> None:
        self.log = start.log
        self._receive, send = _server.Pipe(duplex=False)
        # The server forks with the environment it has; ours comes along.
        self._process = _server.Process(target=_launch, args=(start, send), daemon=False)
        self._process.start()
        self.launcher: int = self._process.pid or 0
        self.ranks: list[int] = self._receive.recv()

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        _send(pid, number)

    def is_running(self) -> bool:
        return self._process.is_alive() or any(is_alive(pid) for pid in self.ranks)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Wait for all processes and return the launcher's exit code, negative for a signal."""
        deadline = time.monotonic() + limit_s
        while self.is_running():
            if time.monotonic() > deadline:
                for pid in (*self.ranks, self.launcher):
                    self.kill(pid)
                raise AssertionError(f"still running after {limit_s} s:\n{self.words()}")
            time.sleep(0.01)
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def words(self) -> str:
        """What it said."""
        return self.log.read_text(errors="replace") if self.log.is_file() else ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(arguments: list[str], num_processes: int = 1, **options: Any) -> Running:
    """Run train.py to its end, which has to be a good one."""
    running = Running(Start(arguments, num_processes, **options))
    code = running.wait()
    assert code == 0, running.words()
    return running


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run train.py in a folder as `subprocess.run` would, to whatever end."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        start = Start([*arguments], environment={**os.environ}, log=out, errors=errors, cwd=cwd)
        code = Running(start).wait()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), errors.read_text())


def _launch(start: Start, send: Any) -> None:
    """In a process of its own: be the only rank, or the launcher of several."""
    os.environ.update(start.environment)
    out = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    if start.errors is not None:
        out = os.open(start.errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 2)
    if start.cwd is not None:
        os.chdir(start.cwd)
    if start.num_processes == 1 and "WORLD_SIZE" not in start.environment:
        send.send([os.getpid()])
        send.close()
        _be_rank(start)
    port = free_port()
    ranks = []
    for rank in range(start.num_processes):
        pid = os.fork()
        if pid == 0:
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(start.num_processes),
                LOCAL_WORLD_SIZE=str(start.num_processes),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            _be_rank(start)
        ranks.append(pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: [_send(pid, number) for pid in ranks])
    send.send(ranks)
    send.close()
    worst, left = 0, set(ranks)
    while left:
        pid, status = os.wait()
        left.discard(pid)
        code = os.waitstatus_to_exitcode(status)
        if code:
            worst = worst or code
            if code != 75:
                for other in left:
                    _send(other, signal.SIGKILL)
    os._exit(worst if worst >= 0 else 128 - worst)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _be_rank(start: Start) -> None:
    code: Any = 1
    try:
        if start.prepare:
            start.prepare()
        sys.argv = ["train.py", *start.arguments]
        if start.command:
            from huggingtweets.cli.main import main

            sys.exit(main([start.command, *start.arguments]))
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def write_posts(path: Path, *handles: str, num: int = 60) -> Path:
    """Write posts of made-up people, a JSON Lines file each."""
    words = ("red", "blue", "green", "fast", "slow", "river", "cloud", "paper", "stone", "light")
    path.mkdir(parents=True, exist_ok=True)
    for handle in handles:
        rng = random.Random(handle)
        rows = [
            {"id": str(number), "text": " ".join(rng.choices(words, k=rng.randint(4, 14)))}
            for number in range(num)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path / f"{handle}.jsonl").write_text(text)
    return path


def deepspeed_environment(name: str) -> dict[str, str]:
    """What `accelerate launch` hands on from launch/`name`.yaml."""
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(ROOT / f"launch/deepspeed/{name}.json"),
    }


FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
"""What `accelerate launch` hands on from launch/fsdp2.yaml."""


def fsdp_on_a_cpu() -> None:
    """Have Accelerate take FSDP2 for possible on CPU processes; for `Start.prepare`."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_USE_CPU"] = "true"
    PartialState(cpu=True, backend="gloo")
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def weights_digest(job: Path) -> str:
    return hashlib.sha256((job / "model" / "model.safetensors").read_bytes()).hexdigest()


TIMES = ("tokens_per_s", "mfu", "data_wait_s")


def history(job: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock decides."""
    lines = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def small_batch(folder: Path, engine: str, output: str, handles: Sequence[str]) -> list[str]:
    """What starts a batch of made-up people that is sampled, judged and saves often."""
    (folder / "users.txt").write_text("\n".join(handles) + "\n")
    small = [word for word in SMALL if not word.startswith(("engine=", "sampling.", "publish="))]
    return [
        *small,
        f"user=file:{folder / 'users.txt'}",
        f"source.path={write_posts(folder / 'posts', *handles)}",
        f"output_dir={folder / output}",
        f"engine={engine}",
        "source=jsonl",
        "consent=permission",
        "publish=local",
        "sampling.num=1",
        "sampling.prompts=[The]",
        "sampling.max_new_tokens=10",
        "engine.save_every_s=0.05",
    ]


def slow_disk() -> None:
    """Make every write of a checkpoint last some tens of milliseconds; for `Start.prepare`."""
    from huggingtweets.training.checkpoints import checkpoint_files

    sync = os.fsync

    def slow_fsync(fd: int) -> None:
        time.sleep(0.01)
        sync(fd)

    os.fsync = slow_fsync
    checkpoint_files.CHUNK_BYTES = 4096
