"""The benchmark of thousands of users, here of twelve."""

import json
import subprocess
import sys
from pathlib import Path

from small import ROOT


def test_the_benchmark_trains_everybody_once_and_finds_them_on_the_disk(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "many_users_flat.py"
    out = tmp_path / "found.json"
    words = ["--users", "12", "--dir", str(tmp_path / "flat"), "--out", str(out)]
    ended = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["finished_once"]
    assert found["done_in_ledger_equals_disk"]
    assert found["status"]["done"] == 12
    assert min(found["cpu_ms_a_user"].values()) > 0
