import pytest

from huggingtweets.generation.guards import Guards, Refusal, shorten

TRAIN = ("the quick brown fox jumps over the lazy dog",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my quick brown fox jumps away", None),
        ("see: The QUICK brown, fox jumps over me", Refusal.copied),
        ("what a Damn day", Refusal.banned),
        ("the goddamned day", None),
        ("oh no: very bad things!", Refusal.banned),
        ("word " * 60, Refusal.too_long),
    ],
)
def test_judge(text: str, expected: Refusal | None) -> None:
    guards = Guards(280, 4, ("damn", "very bad  things".replace("  ", " "), " "), False, TRAIN)
    assert guards.judge(text) == expected


def test_letters_that_stand_as_words_count_for_a_third() -> None:
    train = ("今日はとても良い天気ですね、散歩に行きましょう",)
    guards = Guards(block_copies=4, train=train)
    assert guards.judge("昨日は良い天気ですね") is None, "8 letters"
    assert guards.judge("今日はとても良い天気ですね、散歩") == Refusal.copied, "15 letters"


def test_no_guards_refuse_nothing() -> None:
    assert Guards(train=TRAIN).judge(TRAIN[0]) is None
    assert Guards(train=TRAIN).judge("x" * 1000) is None


def test_finish_masks_the_first_line() -> None:
    text = " write a@example.com\nsecond line "
    assert Guards(mask_pii=True).finish(text) == "write <email>"
    assert Guards().finish(text) == "write a@example.com"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three", "one two"),
        ("one two", "one two"),
        ("onetwothree", "onetwothr"),
        ("東京 今日はとても暑いです", "東京 今日はとても"),
    ],
)
def test_shorten_cuts_at_a_word(text: str, expected: str) -> None:
    assert shorten(text, 9) == expected
