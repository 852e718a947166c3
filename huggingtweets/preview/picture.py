"""The preview picture of a model: who it imitates, a prompt, and what it made of it."""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw

from huggingtweets.posts.cleaning import CleaningReport
from huggingtweets.preview.lettering import (
    Line,
    Span,
    Style,
    draw_line,
    is_drawable,
    line_width,
    reads_from_right,
    wrap,
)
from huggingtweets.publishing.facts import ModelFacts, Sample
from huggingtweets.publishing.mark import picture_mark
from huggingtweets.publishing.names import (
    avatar_colour,
    display_name,
    hex_colour,
    hue,
    initials,
    joined,
    joined_handles,
    plain_text,
    written_handle,
)

SIZE = (1200, 630)
_MARGIN = 64
_BUBBLE = (_MARGIN, 196, SIZE[0] - _MARGIN, 540)
_PADDING = 48
_TITLE_Y = 118
"""The middle of the row of avatars, names and badge."""
_QUOTE_SIZES = (58, 52, 46, 41, 37, 33, 30)
_LEADING = 1.32
_MAX_AVATARS = 6
_MAX_NAMES = 12
_MAX_QUOTE_CHARS = 600
_SMOOTH = 4
"""Shapes are drawn this many times larger and scaled down."""
_NOTE = "Machine-made, not the person"


def draw_preview(facts: ModelFacts) -> Image.Image:
    """Return the picture, RGB, `SIZE` pixels. Needs no network and no particular font."""
    tint = hue(facts.slug)
    image = _background(tint).copy()
    right = _draw_badge(image, "AI CYBORG" if facts.is_cyborg else "AI BOT")
    left = _draw_avatars(image, facts)
    _draw_title(image, facts, left, right - left - 28)
    _draw_bubble(image, facts, tint)
    _draw_footer(image)
    return image


def preview_png(facts: ModelFacts) -> bytes:
    """Return the picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    draw_preview(facts).save(buffer, "PNG", pnginfo=picture_mark())
    return buffer.getvalue()


def choose_sample(samples: Sequence[Sample]) -> Sample | None:
    """Return the first sample of a length that reads well, else the longest.

    None without samples, or when this machine's fonts lack their letters.
    """
    drawable = [one for one in samples if is_drawable(one.input + one.continuation)]
    for sample in drawable:
        if 40 <= len(plain_text(sample.continuation)) <= 200:
            return sample
    return max(drawable, key=lambda sample: len(sample.continuation), default=None)


@lru_cache(maxsize=10)
def _background(tint: float) -> Image.Image:
    """Return a dark ground with a glow in two corners."""
    ground = Image.new("RGB", SIZE, hex_colour(tint, 0.14, 0.5))
    for (x, y), radius, colour in (
        ((1100, -40), 780, hex_colour(tint + 0.07, 0.42, 0.62)),
        ((40, 700), 620, hex_colour(tint - 0.07, 0.36, 0.62)),
    ):
        glow = ImageChops.invert(Image.radial_gradient("L")).point(_soften)
        glow = glow.resize((2 * radius, 2 * radius), Image.Resampling.BICUBIC)
        ground.paste(Image.new("RGB", glow.size, colour), (x - radius, y - radius), glow)
    return ground


def _soften(value: int) -> int:
    """Return how much of a glow there is: none at the rim of the gradient, and no edge there."""
    share = max(0.0, (value - 75) / 180)
    return round(235 * share * share * (3 - 2 * share))


def _paste(
    image: Image.Image,
    mask: Image.Image,
    at: tuple[int, int],
    fill: str | bytes,
    opacity: float = 1,
) -> None:
    """Paste a colour, or a PNG file, through a mask that was drawn `_SMOOTH` times too large."""
    size = (mask.width // _SMOOTH, mask.height // _SMOOTH)
    small = mask.resize(size, Image.Resampling.LANCZOS).point(lambda value: value * opacity)
    if isinstance(fill, str):
        image.paste(Image.new("RGB", size, fill), at, small)
        return
    with Image.open(io.BytesIO(fill), formats=("PNG",)) as picture:
        image.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), at, small)


def _rounded(width: int, height: int, radius: int) -> Image.Image:
    """Return the mask of a rounded rectangle."""
    mask = Image.new("L", (width * _SMOOTH, height * _SMOOTH))
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * _SMOOTH, fill=255)
    return mask


def _draw_avatars(image: Image.Image, facts: ModelFacts) -> int:
    """Draw pictures or initials in overlapping circles; return where the title may begin."""
    people = facts.people
    shown = people if len(people) <= _MAX_AVATARS else people[: _MAX_AVATARS - 1]
    faces = [
        (_letters(person), avatar_colour(person.handle), facts.pictures.get(person.handle))
        for person in shown
    ]
    if len(shown) < len(people):
        faces.append((f"+{len(people) - len(shown)}", "#2b2f3a", None))
    size, step = (104, 0) if len(faces) == 1 else (88, 70)
    top = _TITLE_Y - size // 2
    for index, (letters, colour, picture) in enumerate(faces):
        x = _MARGIN + index * step
        _paste(image, _rounded(size, size, size // 2), (x, top), "#ffffff")
        inner = _rounded(size - 8, size - 8, size // 2 - 4)
        _paste(image, inner, (x + 4, top + 4), picture or colour)
        if picture:
            continue
        style = Style(round(size * 0.36), "#ffffff", is_bold=True)
        line = wrap([(letters, style)], size, 1)[0][0]
        draw_line(image, x + size / 2 - line_width(line) / 2, _TITLE_Y + style.size * 0.36, line)
    return _MARGIN + step * (len(faces) - 1) + size + 26


def _letters(person: CleaningReport) -> str:
    letters = initials(person)
    return letters if is_drawable(letters) else person.handle[:1].upper()


def _draw_badge(image: Image.Image, text: str) -> int:
    """Draw the robot and what it is at the right; return the left end."""
    style = Style(25, "#ffffff", is_bold=True)
    line = wrap([(text, style)], 400, 1)[0][0]
    robot = 62
    width = round(line_width(line)) + robot + 62
    x, y = SIZE[0] - _MARGIN - width, _TITLE_Y - 38
    _paste(image, _rounded(width, 76, 38), (x, y), "#ffffff", opacity=36 / 255)
    _paste(image, _robot(robot), (x + 22, y + 4), "#ffffff")
    draw_line(image, x + robot + 34, y + 47, line)
    return x


@lru_cache(maxsize=2)
def _robot(size: int) -> Image.Image:
    """Return the mask of a robot's head, drawn on a grid of 64."""
    unit = size * _SMOOTH / 64
    mask = Image.new("L", (size * _SMOOTH, size * _SMOOTH))
    draw = ImageDraw.Draw(mask)

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
        return (left * unit, top * unit, right * unit, bottom * unit)

    draw.ellipse(box(28, 5, 36, 13), fill=255)
    draw.rectangle(box(30.6, 11, 33.4, 20), fill=255)
    draw.rounded_rectangle(box(3, 30, 9, 44), 3 * unit, fill=255)
    draw.rounded_rectangle(box(55, 30, 61, 44), 3 * unit, fill=255)
    draw.rounded_rectangle(box(11, 18, 53, 56), 11 * unit, fill=255)
    draw.ellipse(box(20, 28, 29, 37), fill=0)
    draw.ellipse(box(35, 28, 44, 37), fill=0)
    draw.rounded_rectangle(box(22, 44, 42, 48.4), 2.2 * unit, fill=0)
    return mask


def _draw_title(image: Image.Image, facts: ModelFacts, x: int, width: int) -> None:
    """Draw names, large and in one line or smaller and in two, and handles below."""
    handles = [written_handle(person) for person in facts.people]
    names = [
        name if is_drawable(name := display_name(person)) else handle
        for person, handle in zip(facts.people, handles, strict=True)
    ]
    title = _title(names, width)
    below = _shortened(handles, Style(27, hex_colour(hue(facts.slug), 0.86, 0.6)), width, 1)
    leading = title[0][0].style.size * 1.16 if title[0] else 0
    y = _TITLE_Y - 4 - (len(title) - 1) * (leading - 12)
    for index, line in enumerate(title):
        draw_line(image, x, y + index * leading, line)
    if names != handles:  # those without a name are called by their handles already
        draw_line(image, x, y + (len(title) - 1) * leading + 40, below[0])


def _title(names: Sequence[str], width: int) -> list[Line]:
    for size in (46, 40, 36):
        style = Style(size, "#ffffff", is_bold=True)
        lines, is_whole = wrap([(joined(names), style)], width, 1)
        if is_whole:
            return lines
    return _shortened(names, Style(33, "#ffffff", is_bold=True), width, 2)


def _shortened(names: Sequence[str], style: Style, width: int, max_lines: int) -> list[Line]:
    """Set as many names as go in, `A, B & 3 more`."""
    for shown in range(min(len(names), _MAX_NAMES), 0, -1):
        lines, is_whole = wrap([(joined(names, shown), style)], width, max_lines)
        if is_whole:
            break
    return lines


def _draw_bubble(image: Image.Image, facts: ModelFacts, tint: float) -> None:
    left, top, right, bottom = _BUBBLE
    width, height = right - left, bottom - top
    mask = _rounded(width, height, 40)
    tail = Image.new("L", (44 * _SMOOTH, 26 * _SMOOTH))
    ImageDraw.Draw(tail).polygon([(0, tail.height), (tail.width, tail.height), (0, 0)], fill=255)
    _paste(image, mask, (left, top), "#fdfcf9")
    _paste(image, tail, (left + 38, top - 25), "#fdfcf9")
    spans = _quote(facts, tint)
    lines, size = _set_quote(spans, width - 2 * _PADDING, height - 2 * _PADDING + 16)
    is_rtl = reads_from_right("".join(text for text, _ in spans))
    leading = size * _LEADING
    # The middle of small letters lies about a third of their size above the baseline.
    y = top + (height - leading * (len(lines) - 1)) / 2 + size * 0.34
    for index, line in enumerate(lines):
        x = right - _PADDING - line_width(line) if is_rtl else left + _PADDING
        draw_line(image, x, y + index * leading, line)


def _quote(facts: ModelFacts, tint: float) -> list[Span]:
    """Return prompt and continuation, each in its style, of any size."""
    plain, accent = Style(0, "#1d2129"), Style(0, hex_colour(tint, 0.34, 0.7), is_bold=True)
    sample = choose_sample(facts.samples)
    if facts.is_noise:
        people = joined_handles(facts.people)
        return [(f"Trained on posts of {people}, on a base that knows too little to speak.", plain)]
    if sample is None:
        return [(f"A language model that writes like {joined_handles(facts.people)}.", plain)]
    continuation = sample.continuation[:_MAX_QUOTE_CHARS]
    space = " " if continuation[:1].isspace() else ""
    return [
        (plain_text(sample.input[:_MAX_QUOTE_CHARS]), accent),
        (space + plain_text(continuation), plain),
    ]


def _set_quote(spans: Sequence[Span], width: int, height: int) -> tuple[list[Line], int]:
    """Set text as large as it goes in; the smallest size cuts it."""
    for size in _QUOTE_SIZES:
        sized = [(text, replace(style, size=size)) for text, style in spans]
        lines, is_whole = wrap(sized, width, int(height / (size * _LEADING)))
        if is_whole:
            break
    return lines, size


def _draw_footer(image: Image.Image) -> None:
    note = wrap([(_NOTE, Style(24, "#ffffff"))], 700, 1)[0][0]
    mark = wrap([("huggingtweets", Style(24, "#ffffff", is_bold=True))], 400, 1)[0][0]
    draw_line(image, _MARGIN, 594, note)
    draw_line(image, SIZE[0] - _MARGIN - line_width(mark), 594, mark)
