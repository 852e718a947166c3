import time

import pytest

from huggingtweets.jobs.deadline import Deadline, own_deadline

COSTS = {"small": 1.0, "also-small": 1.0, "large": 1000.0}


def measured(ends_in_s: float) -> Deadline:
    """A deadline of a process that has seen a small job take a twentieth of a second or so."""
    deadline = Deadline(time.time() + ends_in_s, COSTS)
    deadline.begin("small")
    time.sleep(0.05)
    deadline.end("small")
    return deadline


def test_without_a_measure_a_job_is_begun() -> None:
    assert Deadline(time.time() - 1, COSTS).allows("large")


def test_a_job_under_way_tells_as_much_as_it_has_taken() -> None:
    deadline = Deadline(time.time() - 1, COSTS)
    deadline.begin("small")
    assert not deadline.allows("also-small")


def test_a_job_that_failed_is_no_longer_under_way() -> None:
    deadline = Deadline(time.time() - 1, COSTS)
    deadline.begin("small")
    deadline.end("small", is_done=False)
    assert deadline.allows("also-small"), "nothing was measured"


def test_a_job_is_held_against_the_time_left_by_its_cost() -> None:
    deadline = measured(ends_in_s=30)
    assert deadline.allows("also-small")
    assert not deadline.allows("large"), "fifty seconds and more"
    assert not measured(ends_in_s=0).allows("also-small")


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_clock_that_is_set_meanwhile_changes_no_measure(
    monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    real = time.time
    deadline = Deadline(real() + jump_s + 60, COSTS)
    deadline.begin("small")
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert deadline.allows("also-small")
    deadline.end("small")
    assert deadline.allows("also-small")


def test_without_an_end_everything_is_begun() -> None:
    deadline = Deadline(None, {})
    deadline.begin("anybody")
    deadline.end("anybody")
    assert deadline.allows("large")


def test_the_batch_script_says_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUGGINGTWEETS_DONE_BY", raising=False)
    assert own_deadline() is None
    monkeypatch.setenv("HUGGINGTWEETS_DONE_BY", "1800000000")
    assert own_deadline() == 1.8e9
    monkeypatch.setenv("HUGGINGTWEETS_DONE_BY", "")
    assert own_deadline() is None
