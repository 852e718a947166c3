import re
import time
from pathlib import Path

import pytest

from huggingtweets.gauges import GAUGES, Gauges
from huggingtweets.jobs import metrics
from huggingtweets.jobs.ledger import JobStatus, open_ledger, writer_name
from huggingtweets.jobs.metrics import MetricsFile
from huggingtweets.posts.spending import Spending

SERIES = re.compile(r'(\w+)\{writer="([\w-]+)"(?:,state="(\w+)")?\} (\S+)')


def read(path: Path) -> dict[tuple[str, str], float]:
    """Series by name and state, as Prometheus would read the file."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP|TYPE) huggingtweets_\w+ ", line)
            continue
        match = SERIES.fullmatch(line)
        assert match, line
        found[match[1].removeprefix("huggingtweets_"), match[3] or ""] = float(match[4])
    return found


def test_the_file_tells_how_the_batch_stands(tmp_path: Path) -> None:
    spending = Spending()
    spending.spend(1234567.25, lambda before: None)
    with open_ledger(tmp_path) as ledger, MetricsFile(tmp_path, "main", spending):
        ledger.record("alice", JobStatus.running)
        ledger.record("bob", JobStatus.failed, reason="x")
        GAUGES.saw_step("alice", 1234.5)
    GAUGES.ended("alice")
    found = read(tmp_path / "ledger" / "metrics.prom")
    assert (found["jobs", "running"], found["jobs", "failed"], found["jobs", "done"]) == (1, 1, 0)
    assert (found["slots_in_use", ""], found["tokens_per_second", ""]) == (1, 1234.5)
    assert found["spent_usd", ""] == 1234567.25, "every digit: a rate is made of differences"
    assert 0 <= found["seconds_since_last_step", ""] < 30


def test_it_is_written_while_the_work_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "EVERY_S", 0.05)
    with MetricsFile(tmp_path, writer_name("3/16", 1), Spending()):
        path = tmp_path / "ledger" / "metrics-3-of-16-rank1.prom"
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert path.exists()


def test_gauges_forget_what_has_ended() -> None:
    gauges = Gauges()
    assert gauges.read().since_step_s is None
    gauges.saw_step("a", 10.0)
    gauges.saw_step("b", 5.0)
    gauges.saw_step("a", 20.0)
    assert (gauges.read().num_training, gauges.read().tokens_per_s) == (2, 25.0)
    gauges.ended("a")
    assert (gauges.read().num_training, gauges.read().tokens_per_s) == (1, 5.0)
