import math
import random
import time
from collections import Counter

import pytest

from huggingtweets.evaluation.diversity import (
    compare_diversity,
    distinct,
    measure_diversity,
    self_bleu,
    wasserstein,
)


def bleu(words: list[str], references: list[list[str]]) -> float:
    """BLEU-4 by its definition, counts from pairs of words on raised by one."""
    total = 0.0
    for n in range(1, 5):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        best: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            best |= Counter(tuple(reference[i : i + n]) for i in range(len(reference) - n + 1))
        smooth = int(n > 1)
        shared = (grams & best).total() + smooth
        if not shared:
            return 0.0
        total += math.log(shared / max(1, grams.total() + smooth)) / 4
    closest = min((abs(len(one) - len(words)), len(one)) for one in references)[1]
    return math.exp(total + min(0.0, 1 - closest / len(words)))


def test_self_bleu_equals_its_definition() -> None:
    rng = random.Random(0)
    for _ in range(50):
        texts = [rng.choices("abcdef", k=rng.randint(1, 12)) for _ in range(rng.randint(2, 8))]
        scores = [bleu(words, texts[:i] + texts[i + 1 :]) for i, words in enumerate(texts)]
        assert self_bleu(texts) == pytest.approx(sum(scores) / len(scores))


def test_self_bleu_of_equal_texts_is_one() -> None:
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx(1)


def test_self_bleu_of_one_text_is_zero() -> None:
    assert self_bleu([["a"]]) == 0


@pytest.mark.parametrize(("n", "expected"), [(1, 3 / 6), (2, 3 / 4), (3, 1), (4, 0)])
def test_distinct_counts_within_texts(n: int, expected: float) -> None:
    assert distinct([["a", "b", "a"], ["a", "b", "c"]], n) == pytest.approx(expected)


def test_distinct_of_many_posts_takes_no_time() -> None:
    rng = random.Random(0)
    texts = [[str(rng.random()) for _ in range(20)] for _ in range(3000)]
    started = time.process_time()
    assert distinct(texts, 2) == 1
    assert time.process_time() - started < 2, "a second for thousands of posts is quadratic"


def test_duplicates_are_told_without_case_and_punctuation() -> None:
    assert measure_diversity(["Hello there!", "hello, there", "bye"]).duplicate_frac == (
        pytest.approx(1 / 3)
    )


def test_wasserstein_is_the_shift_of_shifted_values() -> None:
    values = [3.0, 10.0, 11.0, 40.0]
    assert wasserstein(values, [value + 7 for value in values]) == pytest.approx(7)
    assert wasserstein([0.0, 1.0], [0.0, 1.0, 1.0]) == pytest.approx(1 / 6)
    assert wasserstein([], values) == 0


def test_humans_are_compared_in_equal_number() -> None:
    posts = [f"post number {index} of many about {index * 7}" for index in range(50)]
    both = compare_diversity(["so it is"] * 8, ["it is"] * 8, posts, seed=0)
    assert (both.samples.num_posts, both.humans.num_posts) == (8, 8)
    assert both.samples.distinct[1] < both.humans.distinct[1]
    assert both.samples.duplicate_frac == pytest.approx(7 / 8)
    assert both.length_distance > both.human_length_distance
    assert compare_diversity(["a"] * 50, ["a"] * 50, posts, seed=0).human_length_distance is None
