"""One limit for all threads, processes and restarts of a batch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small import ROOT

from huggingtweets.errors import SourceError
from huggingtweets.posts.spending import Spending


class TooDearError(Exception):
    """The limit is reached."""


def spend(spending: Spending, usd: float, limit: float) -> bool:
    def allow(before: float) -> None:
        if before + usd > limit:
            raise TooDearError

    try:
        spending.spend(usd, allow)
    except TooDearError:
        return False
    return True


def test_a_shared_limit_holds_for_those_who_ask_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger" / "spent"
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(lambda _: spend(Spending(path), 1.0, 5.5), range(40)))
    assert sum(allowed) == 5
    assert Spending(path).usd == 5


CHILD = """
import sys
from pathlib import Path
from huggingtweets.posts.sources.x_api import SPENDING, _approve
from huggingtweets.errors import ConfigError
SPENDING.share(Path(sys.argv[1]))
for number in range(20):
    try:
        _approve(SPENDING, "ann", 1.0, 12.5)
        print("paid", flush=True)
    except ConfigError as err:
        assert "expected 13.00 or more" in str(err)
"""


def test_a_shared_limit_holds_for_processes_and_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "spent"
    for expected in (12, 0):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, str(path)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        outputs = [child.communicate(timeout=120)[0] for child in children]
        assert [child.returncode for child in children] == [0, 0, 0]
        assert sum(output.count("paid") for output in outputs) == expected
    assert Spending(path).usd == 12


def test_what_is_given_back_can_be_spent_again_and_cut_lines_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spent"
    path.write_text("3.0000\n-1.00")
    spending = Spending(path)
    assert spending.usd == 2
    path.write_text("3.0000\n-")
    assert spend(spending, 2, limit=5)
    assert not spend(spending, 1, limit=5)
    spending.give_back(1.5)
    assert spending.usd == pytest.approx(3.5)


def test_without_a_count_nothing_is_paid(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="nothing is paid for without it"):
        spend(Spending(tmp_path / "file" / "spent"), 1, limit=5)


@pytest.mark.parametrize("junk", ["nan", "-inf", "1e400", "1e-3", "ten", "--1", "\u0661", "1 2"])
def test_a_count_that_nobody_can_read_stops_spending(tmp_path: Path, junk: str) -> None:
    path = tmp_path / "spent"
    path.write_text(f"16.0000\n{junk}\n", encoding="utf-8")
    with pytest.raises(SourceError, match="nothing is paid for until then"):
        spend(Spending(path), 0.01, limit=100)
    path.write_text("16.0000\n")
    assert spend(Spending(path), 0.01, limit=100)
