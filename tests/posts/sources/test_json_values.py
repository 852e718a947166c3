"""JSON value by value."""

import io
import json
import random

import pytest

from huggingtweets.posts.reading.json_values import iter_values, parse_json

ENTRIES = [
    {"tweet": {"id": str(n), "text": f'a "{n}" ]}},[ {n * "x"} é😀', "n": [n, None]}}
    for n in range(50)
]


class Dribble(io.StringIO):
    """A stream that gives a few characters a read, as many as it likes."""

    def read(self, size: int | None = -1) -> str:  # type: ignore[override]
        return super().read(random.randint(1, 9))


@pytest.mark.parametrize("indent", [None, 2])
def test_iter_values_gives_the_elements_of_an_array_however_it_is_cut(indent: int | None) -> None:
    random.seed(1)
    text = json.dumps(ENTRIES, indent=indent)
    assert list(iter_values(Dribble(text), max_chars=1000)) == ENTRIES


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("window.YTD.tweets.part0 = ", ""),
        ("var tweets =", ";\n"),
        ("\ufeff// mine\n\nconst data = ", ";"),
        ("export default ", ""),
        ("module.exports=", ";"),
        ("callback(", ");"),
    ],
)
def test_iter_values_reads_what_javascript_assigns(before: str, behind: str) -> None:
    for indent in (None, 2):
        stream = io.StringIO(before + json.dumps(ENTRIES, indent=indent) + behind)
        assert list(iter_values(stream, max_chars=1000)) == ENTRIES


@pytest.mark.parametrize("text", ['[["ann", "hi there"], ["bob", "no"]]', "[[1, 2]]"])
def test_iter_values_refuses_rows_without_names(text: str) -> None:
    with pytest.raises(ValueError, match="without names"):
        list(iter_values(io.StringIO(text), max_chars=1000))


def test_iter_values_reads_documents_one_after_the_other() -> None:
    text = '{"a": 1}\n{"b": 2}\n[{"c": 3}, {"d": 4}];\n'
    values = list(iter_values(io.StringIO(text), max_chars=100))
    assert values == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}]


@pytest.mark.parametrize("cut", [1, 30, 200, 1000])
def test_iter_values_yields_what_is_whole_before_the_cut(cut: int) -> None:
    text = json.dumps(ENTRIES)[:-cut]
    values = []

    def collect() -> None:
        for value in iter_values(io.StringIO(text), max_chars=10_000):
            values.append(value)

    with pytest.raises(ValueError, match=r"."):
        collect()
    assert values == ENTRIES[: len(values)]
    assert len(values) >= 50 - 2 - cut // 60


def test_iter_values_gives_up_on_an_endless_value() -> None:
    class Endless(io.StringIO):
        num_chars = 0

        def read(self, size: int | None = -1) -> str:  # type: ignore[override]
            assert size is not None
            self.num_chars += size
            return '["' + "x" * (size - 2)

    stream = Endless()
    with pytest.raises(ValueError, match=r"."):
        list(iter_values(stream, max_chars=1 << 20))
    assert stream.num_chars < 1 << 23


def test_iter_values_takes_deep_brackets_as_one_flat_list() -> None:
    with pytest.raises(ValueError, match="cut off"):
        list(iter_values(io.StringIO("[" * 1_000_000), max_chars=100))


@pytest.mark.parametrize("text", ['{"a":' * 100_000, '{"a":[' * 100_000 + "]}" * 100_000])
def test_deep_nesting_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    with pytest.raises(ValueError, match=r"."):
        list(iter_values(io.StringIO(text), max_chars=1 << 20))


def test_parse_json_reads_what_is_no_json_number_as_none() -> None:
    text = '{"a": NaN, "b": -Infinity, "c": ' + "9" * 5000 + ', "d": 1582825767519809536}'
    assert parse_json(text) == {"a": None, "b": None, "c": None, "d": 1582825767519809536}
