import random
import time
from collections.abc import Sequence

import pytest

from huggingtweets.data.copying import CopyIndex, find_runs
from huggingtweets.data.words import split_words


def brute_lengths(sources: Sequence[str], text: str) -> tuple[int, ...]:
    words = text.split()
    return tuple(
        max(
            length
            for length in range(len(words) - start + 1)
            if not length
            or any(f" {' '.join(words[start : start + length])} " in f" {one} " for one in sources)
        )
        for start in range(len(words))
    )


@pytest.mark.parametrize("letters", ["ab", "abcd"])
def test_find_runs_equals_brute_force(letters: str) -> None:
    rng = random.Random(letters)

    def draw(count: int) -> list[str]:
        return [" ".join(rng.choices(letters, k=rng.randint(0, 9))) for _ in range(count)]

    for _ in range(150):
        sources, texts = draw(rng.randint(0, 5)), draw(rng.randint(0, 4))
        found = [runs.lengths for runs in find_runs(sources, texts)]
        assert found == [brute_lengths(sources, text) for text in texts], (sources, texts)


def test_runs_do_not_reach_over_the_end_of_a_source() -> None:
    (runs,) = find_runs(["one two three", "four five six"], ["one two three four five six"])
    assert runs.lengths == (3, 2, 1, 3, 2, 1)
    assert runs.longest == 3
    assert [runs.num_seen(n) for n in (1, 2, 3, 4)] == [6, 4, 2, 0]


def test_runs_ignore_case_punctuation_and_accents() -> None:
    (runs,) = find_runs(["I don't like CAFÉS, at all!"], ["i DONT like, cafes: at all"])
    assert runs.longest == 6


def test_spans_are_in_characters_of_the_text() -> None:
    text = "Well… the quick “brown” fox jumps, and again: the QUICK brown fox!"
    (runs,) = find_runs(["The quick brown fox sleeps"], [text])
    assert [text[start:end] for start, end in runs.spans(4)] == [
        "the quick “brown” fox",
        "the QUICK brown fox",
    ]
    assert runs.spans(5) == ()


def test_spans_that_touch_are_one() -> None:
    text = "a b c d e f"
    (runs,) = find_runs(["a b c d", "c d e f"], [text])
    assert runs.spans(3) == ((0, len(text)),)


def test_words_of_scripts_without_spaces_are_letters() -> None:
    assert split_words("今日は、good天気").words == ("今", "日", "は", "good", "天", "気")


def test_words_keep_their_place() -> None:
    text = "Señor O’Brien's #MAGA @me_2"
    words = split_words(text)
    assert words.words == ("senor", "obriens", "maga", "me", "2")
    assert [text[start:end] for start, end in words.spans][:2] == ["Señor", "O’Brien's"]


def test_find_runs_takes_seconds_for_thousands_of_posts() -> None:
    rng = random.Random(0)

    def draw(count: int) -> list[str]:
        return [
            " ".join(str(int(rng.paretovariate(0.5)) % 5000) for _ in range(30))
            for _ in range(count)
        ]

    sources, texts = draw(3000), draw(1000)
    start = time.process_time()
    runs = find_runs(sources, texts)
    assert time.process_time() - start < 10
    assert len(runs) == 1000


def test_find_runs_survives_one_post_said_a_thousand_times() -> None:
    runs = find_runs(["bong " * 40] * 1000, ["bong " * 50])
    assert runs[0].longest == 40


def every_run(sources: Sequence[str]) -> set[tuple[str, ...]]:
    documents = [split_words(source).words for source in sources]
    return {
        words[start:end]
        for words in documents
        for start in range(len(words))
        for end in range(start + 1, len(words) + 1)
    }


def lengths_by(runs: set[tuple[str, ...]], text: str) -> tuple[int, ...]:
    """What an index has to find, by the list of all runs of its sources."""
    words = split_words(text).words
    lengths = []
    for start in range(len(words)):
        length = 0
        while start + length < len(words) and words[start : start + length + 1] in runs:
            length += 1
        lengths.append(length)
    return tuple(lengths)


POSTS = (
    "the quick brown fox jumps over the lazy dog today",
    "I'd like to say: the quick brown cat sleeps",
    "東京は今日もとても暑いですね",
)


@pytest.mark.parametrize(
    "text",
    [
        "the quick brown fox jumps",
        "The QUICK brown cat sleeps over the lazy dog",
        "nothing of it",
        "",
        "id like to say the quick",
        "今日もとても暑い日",
        "today I'd",
    ],
)
def test_index_finds_the_longest_runs(text: str) -> None:
    assert CopyIndex(POSTS).find(text).lengths == lengths_by(every_run(POSTS), text)


def test_index_finds_the_longest_runs_of_real_posts(read_account: object) -> None:
    timeline = read_account("NASA")  # type: ignore[operator]
    posts = [post.text for post in timeline.posts]
    index, runs = CopyIndex(posts[:1500]), every_run(posts[:1500])
    for text in posts[1500:1700]:
        assert index.find(text).lengths == lengths_by(runs, text)


def test_index_of_nothing_finds_nothing() -> None:
    assert CopyIndex(()).find("a b c").lengths == (0, 0, 0)


def test_copied_run_is_told_where_it_becomes_too_long() -> None:
    runs = CopyIndex(POSTS).find("so the quick brown fox jumps over")
    assert runs.first_copied(5) == len("so the quick brown fox ")
    assert runs.first_copied(7) is None


def test_one_word_said_thousands_of_times_costs_no_minute() -> None:
    start = time.process_time()
    runs = CopyIndex(["ha " * 8000, "ha " * 5000 + "hm"]).find("ha " * 8000)
    assert time.process_time() - start < 30
    assert runs.lengths == tuple(range(8000, 0, -1))


@pytest.mark.parametrize("words", ["a b c d", "今 日 良 い x"])
@pytest.mark.parametrize("num_words", [2, 3])
def test_a_text_has_copied_where_a_run_weighs_enough(words: str, num_words: int) -> None:
    rng = random.Random(words)

    def draw(count: int) -> list[str]:
        return [" ".join(rng.choices(words.split(), k=rng.randint(0, 16))) for _ in range(count)]

    found = set()
    for _ in range(120):
        sources, texts = draw(rng.randint(0, 4)), draw(rng.randint(0, 6))
        runs, index = every_run(sources), CopyIndex(sources)
        for text in [*texts, *texts[::-1]]:  # asked again
            split = split_words(text)
            expected = any(
                length >= num_words and split.weight(start, length) > num_words - 1e-6
                for start, length in enumerate(lengths_by(runs, text))
            )
            assert index.find(text).has_copied(num_words) == expected
            found.add(expected)
    assert found == {True, False}
