import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huggingtweets.config.plan import make_plan
from huggingtweets.config.posts_schema import SourceConfig, SourceKind
from huggingtweets.config.schema import TrainConfig
from huggingtweets.handles import Job
from huggingtweets.jobs.partition import FIXED_COST_BYTES, estimate_costs, partition
from huggingtweets.jobs.runner import longest_first

COSTS = st.lists(st.floats(0, 1e9), max_size=60)


@given(costs=COSTS, num_parts=st.integers(1, 20))
def test_partition_places_every_job_once_in_order(costs: list[float], num_parts: int) -> None:
    parts = partition(costs, num_parts)
    assert len(parts) == num_parts
    assert sorted(index for part in parts for index in part) == list(range(len(costs)))
    assert all(part == sorted(part) for part in parts)


@given(costs=COSTS, num_parts=st.integers(1, 20))
def test_partition_is_balanced_to_the_bound_of_longest_first(
    costs: list[float], num_parts: int
) -> None:
    heaviest = max(sum(costs[index] for index in part) for part in partition(costs, num_parts))
    bound = sum(costs) / num_parts + max(costs, default=0)
    assert heaviest <= bound * (1 + 1e-9)


def test_partition_gives_equal_jobs_in_turn() -> None:
    assert partition([1.0] * 7, 3) == [[0, 3, 6], [1, 4], [2, 5]]
    assert partition([0.0] * 4, 2) == [[0, 2], [1, 3]]


def test_partition_puts_the_costliest_first() -> None:
    assert partition([2, 3, 4, 6, 2, 2], 3) == [[3], [2, 4], [0, 1, 5]]


def test_partition_of_100000_jobs_takes_under_two_seconds() -> None:
    costs = [float(index * 7919 % 10007) for index in range(100_000)]
    start = time.perf_counter()
    first = partition(costs, 512)
    assert time.perf_counter() - start < 2
    assert first == partition(costs, 512)
    loads = [sum(costs[index] for index in part) for part in first]
    assert max(loads) / min(loads) < 1.001


def folder_source(path: Path) -> SourceConfig:
    return SourceConfig(kind=SourceKind.jsonl, path=str(path))


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    (tmp_path / "Big.jsonl.gz").write_bytes(b"x" * 90_000)
    (tmp_path / "small.csv").write_bytes(b"x" * 1_000)
    (tmp_path / "@Alice.bsky.social.jsonl").write_bytes(b"x" * 5_000)
    return tmp_path


def test_estimate_costs_follows_file_sizes(posts: Path) -> None:
    jobs = [Job(("big",)), Job(("small",)), Job(("alice.bsky.social",)), Job(("big", "small"))]
    costs = [cost - FIXED_COST_BYTES for cost in estimate_costs(jobs, folder_source(posts))]
    assert costs == [90_000, 1_000, 5_000, 180_000]


def test_estimate_costs_takes_the_mean_for_a_user_without_a_file(posts: Path) -> None:
    assert estimate_costs([Job(("nobody",))], folder_source(posts)) == [FIXED_COST_BYTES + 32_000.0]


def test_estimate_costs_are_equal_where_nothing_is_known(posts: Path) -> None:
    jobs = [Job(("big",)), Job(("small",))]
    assert estimate_costs(jobs, None) == [1.0, 1.0]
    assert estimate_costs(jobs, SourceConfig()) == [1.0, 1.0]
    assert estimate_costs(jobs, folder_source(posts / "small.csv")) == [1.0, 1.0]
    assert estimate_costs(jobs, folder_source(posts / "absent")) == [1.0, 1.0]


@settings(max_examples=20)
@given(num_parts=st.integers(1, 30))
def test_partition_is_the_same_for_every_process(num_parts: int) -> None:
    costs = [3.0, 1.0, 1.0, 2.0, 3.0, 0.5] * 5
    assert partition(costs, num_parts) == partition(tuple(costs), num_parts)


def test_the_longest_go_first_and_what_crashed_last() -> None:
    plans = [make_plan(TrainConfig(user=name), Job.of([name])) for name in ("ann", "bob", "carl")]
    costs = {"ann": 2.0, "bob": 9.0, "carl": 5.0}

    def order(costs: dict[str, float], crashed: str = "") -> list[str]:
        found = longest_first(plans, costs, lambda plan: int(plan.job.slug == crashed))
        return [plan.job.slug for plan in found]

    assert order(costs) == ["bob", "carl", "ann"]
    assert order(costs, crashed="bob") == ["carl", "ann", "bob"]
    assert order({}) == ["ann", "bob", "carl"]
