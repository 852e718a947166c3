from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont, features

from huggingtweets.preview import fonts
from huggingtweets.preview.lettering import (
    Line,
    Style,
    _for_pillow,
    draw_line,
    is_drawable,
    line_width,
    reads_from_right,
    wrap,
)

STYLE = Style(30, "#000000")
BOLD = Style(30, "#ff0000", is_bold=True)
needs_arabic = pytest.mark.skipif(
    not is_drawable("محمد"), reason="no font of this machine has Arabic letters"
)
needs_emoji = pytest.mark.skipif(
    not fonts.is_colour_emoji("🤖"), reason="no colour emoji font on this machine"
)


def texts(line: Line) -> list[str]:
    return [run.text for run in line]


def whole(lines: list[Line]) -> str:
    return " ".join("".join(texts(line)).strip() for line in lines)


def test_wrap_keeps_every_word_within_the_width():
    text = "the way in which committees congratulate themselves on having scheduled another"
    lines, is_whole = wrap([(text, STYLE)], 300, 99)
    assert is_whole
    assert len(lines) > 3
    assert whole(lines) == text
    assert all(line_width(line) <= 300 for line in lines)


def test_wrap_ends_with_an_ellipsis_where_there_is_more():
    lines, is_whole = wrap([("one two three four five six, seven " * 9, STYLE)], 300, 2)
    assert not is_whole
    assert len(lines) == 2
    assert texts(lines[1])[-1].endswith("…")
    assert line_width(lines[1]) <= 300


def test_wrap_cuts_a_word_wider_than_a_line():
    lines, is_whole = wrap([("w" * 100, STYLE)], 200, 99)
    assert is_whole
    assert "".join("".join(texts(line)) for line in lines) == "w" * 100
    assert all(line_width(line) <= 200 for line in lines)


def test_wrap_keeps_styles_apart():
    lines, _ = wrap([("My dream is", BOLD), (" to go", STYLE)], 900, 1)
    assert [(run.text, run.style) for run in lines[0]] == [("My dream is", BOLD), (" to go", STYLE)]


def test_wrap_of_nothing_is_one_empty_line():
    assert wrap([("", STYLE)], 100, 3) == ([()], True)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(60, 400))
def test_wrap_never_fails_nor_exceeds_the_width(text, width):
    lines, _ = wrap([(text, STYLE)], width, 3)
    assert 1 <= len(lines) <= 3
    image = Image.new("RGB", (width, 40), "#ffffff")
    for line in lines:
        assert line_width(line) <= width or len("".join(texts(line))) <= 2
        draw_line(image, 0, 30, line)


@needs_arabic
def test_right_to_left_text_begins_at_the_right():
    lines, _ = wrap([("محمد", BOLD), (" GPT-2 سلام", STYLE)], 900, 1)
    runs = [(run.text.strip(), run.is_rtl) for run in lines[0] if run.text.strip()]
    assert runs == [("سلام", True), ("GPT-2", False), ("محمد", True)]


@needs_arabic
def test_arabic_within_english_stays_where_it_is():
    lines, _ = wrap([("say سلام twice", STYLE)], 900, 1)
    runs = [(run.text.strip(), run.is_rtl) for run in lines[0] if run.text.strip()]
    assert runs == [("say", False), ("سلام", True), ("twice", False)]


@needs_arabic
def test_digits_go_with_the_letters_before_them():
    lines, _ = wrap([("عام 2030 وأن", STYLE)], 900, 1)
    assert all(run.is_rtl for run in lines[0])


@needs_arabic
@pytest.mark.skipif(not features.check("raqm"), reason="Pillow without raqm joins no letters")
def test_arabic_letters_are_joined():
    together = line_width(wrap([("سلام", STYLE)], 900, 1)[0][0])
    apart = sum(line_width(wrap([(letter, STYLE)], 900, 1)[0][0]) for letter in "سلام")
    assert together < 0.95 * apart


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("בשנת 2024 (סוף)", "(ףוס) 2024 תנשב"),
        ("ב-12:30, 3.14 או ٢٠٢٤.", ".٢٠٢٤ וא 3.14 ,12:30-ב"),
        ("[שלום]", "[םולש]"),
    ],
)
def test_without_raqm_numbers_and_brackets_read_as_they_should(text, shown):
    font = ImageFont.load_default(24)
    if not isinstance(font, ImageFont.FreeTypeFont):
        pytest.skip("Pillow without FreeType")
    font = font.font_variant(layout_engine=ImageFont.Layout.BASIC)
    assert _for_pillow(text, font, True) == (shown, None)
    assert _for_pillow("2024 (end)", font, False) == ("2024 (end)", None)


@pytest.mark.parametrize(
    ("text", "expected"), [("abc אב", False), ("123 אב", True), ("🤖 سلام", True), ("?!", False)]
)
def test_direction_is_that_of_the_first_letter(text, expected):
    assert reads_from_right(text) is expected


@needs_emoji
@pytest.mark.parametrize("emoji", ["🤖", "👩🏽‍💻", "🇩🇪", "1️⃣", "❤️", "🏳️‍🌈", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"], ids=ascii)
def test_emoji_is_drawn_once_and_in_colour(emoji):
    lines, _ = wrap([(emoji, STYLE)], 900, 1)
    assert [(run.text, run.font) for run in lines[0]] == [(emoji, None)]
    assert line_width(lines[0]) < 2 * STYLE.size
    image = Image.new("RGB", (80, 40), "#ffffff")
    draw_line(image, 0, 30, lines[0])
    colours = image.getcolors(maxcolors=100_000) or []
    assert any(max(colour) - min(colour) > 40 for _, colour in colours)


def test_what_no_font_has_is_left_out(font_folders):
    font_folders()
    lines, _ = wrap([("cats 🐈 and 鳩山 \ue000 dogs", STYLE)], 900, 1)
    assert "".join(texts(lines[0])) == "cats and dogs"
    assert not is_drawable("鳩山由紀夫")
    assert is_drawable("Ada Lovelace")


def test_a_broken_font_file_is_passed_over(font_folders, tmp_path: Path):
    (tmp_path / "Inter-Regular.ttf").write_bytes(b"no font")
    (tmp_path / "NotoColorEmoji.ttf").write_bytes(b"")
    font_folders(tmp_path, tmp_path / "missing")
    lines, _ = wrap([("cats 🐈", STYLE)], 900, 1)
    assert "".join(texts(lines[0])) == "cats"


def test_signs_that_never_begin_a_line_do_not():
    text = "世界中の人々が平和に暮らすことです。" * 6
    if not is_drawable(text):
        pytest.skip("no font of this machine has Japanese letters")
    for width in range(200, 260, 7):
        lines, _ = wrap([(text, STYLE)], width, 99)
        assert not any("".join(texts(line)).startswith("。") for line in lines)
