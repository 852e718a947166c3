"""What is shown of a post, and what of it is copied."""

import pytest

from huggingtweets.data.copying import CopyIndex
from huggingtweets.generation.guards import MAX_ROUNDS, Guards, Refusal
from huggingtweets.serve.draft import Draft, Finish

POSTS = (
    "the quick brown fox jumps over the lazy dog today",
    "I'd like to say: the quick brown cat sleeps",
    "東京は今日もとても暑いですね",
)


def stream(draft: Draft, text: str, finish: Finish = Finish.stop) -> tuple[str, Finish | None]:
    """Feed a text character by character; return what was shown and why it ended."""
    shown = ""
    for end in range(len(text) + 1):
        step = draft.update(text[:end], finish if end == len(text) else None)
        assert step.again is None
        shown += step.text
        if step.finish:
            return shown, step.finish
    return shown, None


def test_streamed_text_is_the_whole_text() -> None:
    text = " to be somebody who writes posts that nobody has written before, and " * 3
    draft = Draft("My dream is", Guards(), None, is_streamed=True)
    assert stream(draft, text) == (text.rstrip(), Finish.stop)


def test_text_ends_at_a_line_or_a_stop() -> None:
    assert stream(Draft("", Guards(), None, is_streamed=False), "one\ntwo")[0] == "one"
    draft = Draft("", Guards(), None, stops=["END"], is_streamed=True)
    assert stream(draft, "x " * 60 + "END more")[0] == ("x " * 60).rstrip()


@pytest.mark.parametrize(
    "secret",
    [
        "jane.doe@example.com",
        "+44 20 7946 0958",
        "GB29 NWBK 6016 1331 9268 19",
        "4111 1111 1111 1111",
    ],
)
def test_no_part_of_what_identifies_is_ever_streamed(secret: str) -> None:
    text = "you can always reach me and my friends by this address: " + secret + " and then " * 9
    shown, _ = stream(Draft("", Guards(mask_pii=True), None, is_streamed=True), text)
    assert secret not in shown
    assert not any(part in shown for part in secret.split() if len(part) > 3)
    assert "and then" in shown


def test_a_number_begun_in_the_prompt_is_masked() -> None:
    draft = Draft("call me at +44 20", Guards(mask_pii=True), None, is_streamed=False)
    step = draft.update(" 7946 0958 today", Finish.stop)
    assert "0958" not in step.text


def test_copied_post_is_drawn_again_and_at_last_cut() -> None:
    guards = Guards(block_copies=4, train=POSTS)
    index = CopyIndex(POSTS)
    for rounds in range(MAX_ROUNDS):
        draft = Draft("so", guards, index, is_streamed=False, rounds=rounds)
        step = draft.update(" the quick brown fox jumps over it", Finish.stop)
        if rounds + 1 < MAX_ROUNDS:
            assert step.again is Refusal.copied
    assert (step.text, step.finish) == (" the quick brown fox", Finish.content_filter)


def test_stream_stops_before_a_copied_run_becomes_too_long() -> None:
    guards = Guards(block_copies=4, train=POSTS)
    lead = " once upon a time there were people who told each other this story about animals:"
    draft = Draft("", guards, CopyIndex(POSTS), is_streamed=True, rounds=0)
    shown, finish = stream(draft, lead + " the quick brown fox jumps over the lazy dog")
    assert finish is Finish.content_filter
    assert shown == lead + " the quick brown fox"


def test_banned_words_never_appear() -> None:
    guards = Guards(banned_words=("foo bar",))
    draft = Draft("", guards, None, is_streamed=True, rounds=MAX_ROUNDS)
    shown, finish = stream(draft, "words " * 30 + "Foo bar " + "words " * 30)
    assert (shown, finish) == (("words " * 30).rstrip(), Finish.content_filter)


def test_word_that_goes_on_is_not_the_banned_one() -> None:
    draft = Draft("", Guards(banned_words=("foo",)), None, is_streamed=True, rounds=MAX_ROUNDS)
    assert stream(draft, "words and food " * 9)[1] is Finish.stop


SPACELESS = "昨日は良い天気だったので、公園を散歩して、それから友達に会いました。" * 3


@pytest.mark.parametrize("text", [SPACELESS, "ตัวอย่างข้อความภาษาไทย" * 8])
def test_script_without_spaces_is_streamed(text: str) -> None:
    draft = Draft("", Guards(), None, is_streamed=True)
    steps = [draft.update(text[:end], None).text for end in range(len(text))]
    assert sum(map(bool, steps)) > 20
    assert "".join(steps) + draft.update(text, Finish.stop).text == text


def test_copied_letters_of_such_a_script_are_never_streamed() -> None:
    guards = Guards(block_copies=4)
    draft = Draft("", guards, CopyIndex([SPACELESS]), is_streamed=True, rounds=MAX_ROUNDS)
    shown, finish = stream(draft, "書くことは楽しい、" * 8 + SPACELESS)
    assert finish is Finish.content_filter
    assert not CopyIndex([SPACELESS]).find(shown).has_copied(5)


def test_long_post_is_cut_at_a_word() -> None:
    draft = Draft("", Guards(max_chars=50), None, is_streamed=True, rounds=MAX_ROUNDS)
    shown, finish = stream(draft, "word " * 40)
    assert finish is Finish.length
    assert len(shown) <= 50
    assert shown.endswith("word")
