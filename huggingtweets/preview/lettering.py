"""Text in pictures, whatever the script: wrap it, put it in visual order, draw it.

What no font of this machine has is left out; nothing here raises for it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Literal

from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont, Layout

from huggingtweets.preview.fonts import EMOJI, emoji_tile, font_for, is_colour_emoji

_NEVER_FIRST = frozenset(
    "、。，．・：；？！）］｝〕〉》」』】〙〗〟’”ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々…"
)
"""Signs that no line of Chinese or Japanese begins with (kinsoku)."""

_LETTERS = {"L": False, "R": True, "AL": True}
"""Bidirectional classes of letters, by whether they run from right to left."""
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")


@dataclass(frozen=True)
class Style:
    """How a stretch of text looks."""

    size: int
    """Pixels."""
    colour: str
    is_bold: bool = False


Span = tuple[str, Style]


@dataclass(frozen=True)
class Run:
    """Characters of one style, font and direction."""

    text: str
    style: Style
    font: FreeTypeFont | None
    """None: emoji in colour."""
    is_rtl: bool
    width: float
    """Pixels."""


Line = tuple[Run, ...]
"""Runs from left to right."""


def wrap(spans: Sequence[Span], width: float, max_lines: int) -> tuple[list[Line], bool]:
    """Break text into lines at most `width` pixels wide.

    Returns at most `max_lines` lines, the last one ended by `…` where there would be more, and
    whether all of the text is in them.
    """
    spans = _drawable(spans)
    is_rtl = reads_from_right("".join(text for text, _ in spans))
    lines: list[list[Span]] = [[]]
    used = 0.0
    for piece, style in _pieces(spans, width):
        piece_width = _measure(piece, style)
        if used + piece_width > width and lines[-1] and not piece.isspace():
            if len(lines) > max_lines:
                break
            lines.append([])
            used = 0.0
        if lines[-1] or not piece.isspace():
            lines[-1].append((piece, style))
            used += piece_width
    is_whole = len(lines) <= max_lines
    if not is_whole:
        lines = lines[:max_lines]
        lines[-1] = _with_ellipsis(lines[-1], width)
    return [_visual_order(line, is_rtl) for line in lines], is_whole


def line_width(line: Line) -> float:
    """Return pixels."""
    return sum(run.width for run in line)


def draw_line(image: Image.Image, x: float, baseline: float, line: Line) -> None:
    """Draw a line on an RGB image, its left end at `x`."""
    draw = ImageDraw.Draw(image)
    for run in line:
        if run.font is None:
            _draw_emoji(image, x, baseline, run)
        else:
            text, direction = _for_pillow(run.text, run.font, run.is_rtl)
            draw.text((x, baseline), text, run.style.colour, run.font, "ls", direction=direction)
        x += run.width


def is_drawable(text: str) -> bool:
    """Return whether this machine's fonts have nine tenths of the letters."""
    clusters = [cluster for cluster in _clusters(text) if cluster[0].isalnum()]
    missing = sum(font_for(cluster[0], 24, False) is None for cluster in clusters)
    return missing <= len(clusters) / 10


def reads_from_right(text: str) -> bool:
    """Return whether the first letter belongs to a script written from right to left."""
    directions = (_LETTERS.get(unicodedata.bidirectional(char)) for char in text)
    return next((is_rtl for is_rtl in directions if is_rtl is not None), False)


def _drawable(spans: Sequence[Span]) -> list[Span]:
    """Leave out what no font has, and the second of two spaces that then meet."""
    drawable: list[Span] = []
    last = ""
    for text, style in spans:
        kept = ""
        for one in _clusters(text):
            cluster = " " if one.isspace() else one
            has_font = is_colour_emoji(cluster) or font_for(cluster[0], style.size, style.is_bold)
            if has_font and not (cluster == " " == last):
                kept += cluster
                last = cluster
        drawable.append((kept, style))
    return drawable


def _clusters(text: str) -> list[str]:
    """Cut text into what is seen as one character: an emoji sequence, or a letter and its marks."""
    clusters: list[str] = []
    position = 0
    while position < len(text):
        emoji = EMOJI.match(text, position)
        piece = emoji[0] if emoji else text[position]
        is_mark = unicodedata.category(piece[0]) in ("Mn", "Me", "Mc", "Cf")
        if is_mark and clusters and not clusters[-1].isspace():
            clusters[-1] += piece
        else:
            clusters.append(piece)
        position += len(piece)
    return clusters


def _words(spans: Sequence[Span]) -> list[Span]:
    """Cut spans where a line may end: around white space, and between the signs of East Asia."""
    words: list[Span] = []
    for text, style in spans:
        for kind, group in groupby(_clusters(text), key=_break_kind):
            clusters = list(group)
            words += [(sign, style) for sign in clusters] if kind == "sign" else []
            if kind == "never first" and words and not words[-1][0].isspace():
                words[-1] = (words[-1][0] + "".join(clusters), words[-1][1])
            elif kind != "sign":
                words.append(("".join(clusters), style))
    return words


def _break_kind(cluster: str) -> str:
    first = cluster[0]
    if cluster.isspace():
        return "space"
    if first in _NEVER_FIRST and first > "\u2fff":
        return "never first"
    is_east_asian = "\u2e80" <= first <= "\ua4cf" or "\uac00" <= first <= "\uffef"
    return "sign" if is_east_asian or first > "\uffff" else "word"


def _pieces(spans: Sequence[Span], width: float) -> Iterator[Span]:
    """Yield words, and parts of those that are wider than a line."""
    for word, style in _words(spans):
        part = word if _measure(word, style) <= width else ""
        for cluster in _clusters(word) if not part else ():
            if part and _measure(part + cluster, style) > width:
                yield part, style
                part = ""
            part += cluster
        yield part, style


def _with_ellipsis(line: Sequence[Span], width: float) -> list[Span]:
    """Shorten the last line so that `…` fits behind it."""
    kept = list(line)
    style = kept[-1][1]
    while kept and sum(_measure(*piece) for piece in kept) + _measure("…", style) > width:
        text, text_style = kept.pop()
        if shorter := "".join(_clusters(text)[:-1]):
            kept.append((shorter, text_style))
    while kept and not kept[-1][0].rstrip(" ,.;:-–—"):
        kept.pop()
    if kept:
        kept[-1] = (kept[-1][0].rstrip(" ,.;:-–—"), kept[-1][1])
    return [*kept, ("…", style)]


def _measure(text: str, style: Style) -> float:
    return sum(run.width for run in _runs([(text, style)], is_rtl=False))


def _runs(spans: Sequence[Span], *, is_rtl: bool) -> list[Run]:
    """Cut text into runs, in reading order."""
    clusters = [(cluster, style) for text, style in spans for cluster in _clusters(text)]
    directions = _directions([cluster for cluster, _ in clusters], is_rtl)
    chosen: list[tuple[str, Style, FreeTypeFont | None, bool]] = []
    for (cluster, style), direction in zip(clusters, directions, strict=True):
        if is_colour_emoji(cluster):
            chosen.append((cluster, style, None, direction))
            continue
        font = font_for(cluster[0], style.size, style.is_bold)
        if cluster.isspace() and chosen and chosen[-1][1] == style:
            font = chosen[-1][2] or font
        if font:
            chosen.append((_visible(cluster, style, font), style, font, direction))
    runs = []
    for (style, font, direction), group in groupby(chosen, key=lambda one: one[1:]):
        text = "".join(one[0] for one in group)
        runs.append(Run(text, style, font, direction, _width(text, style, font, direction)))
    return runs


def _visible(cluster: str, style: Style, font: FreeTypeFont) -> str:
    """Return a letter with those of its marks that its font has."""
    marks = (
        mark
        for mark in cluster[1:]
        if mark in "\u200c\u200d" or font_for(mark, style.size, style.is_bold) is font
    )
    return cluster[0] + "".join(marks)


def _width(text: str, style: Style, font: FreeTypeFont | None, is_rtl: bool) -> float:
    if font is None:
        return sum(tile.width for tile in _tiles(text, style.size))
    shown, direction = _for_pillow(text, font, is_rtl)
    return font.getlength(shown, direction=direction)


def _visual_order(line: Sequence[Span], is_rtl: bool) -> Line:
    """Put runs from left to right: two levels of the bidirectional algorithm."""
    pieces = list(line)
    while pieces and pieces[-1][0].isspace():
        pieces.pop()
    stretches = [
        list(group)[:: -1 if run_is_rtl else 1]
        for run_is_rtl, group in groupby(_runs(pieces, is_rtl=is_rtl), key=lambda run: run.is_rtl)
    ]
    return tuple(chain.from_iterable(stretches[:: -1 if is_rtl else 1]))


def _directions(clusters: Sequence[str], base_is_rtl: bool) -> list[bool]:
    """Return for each cluster whether it runs from right to left.

    Digits go with the letters before them; what is neither goes with both sides, or with the text.
    """
    known: list[bool | None] = []
    last: bool | None = None
    for cluster in clusters:
        kind = unicodedata.bidirectional(cluster[0])
        last = _LETTERS.get(kind, last)
        known.append(last if kind in (*_LETTERS, "EN", "AN") else None)
    before = _carried_on(known, base_is_rtl)
    after = _carried_on(known[::-1], base_is_rtl)[::-1]
    return [
        left if left == right else base_is_rtl for left, right in zip(before, after, strict=True)
    ]


def _carried_on(known: Sequence[bool | None], first: bool) -> list[bool]:
    """Return values with what was last known in the place of what is not."""
    whole, last = [], first
    for one in known:
        last = last if one is None else one
        whole.append(last)
    return whole


def _for_pillow(
    text: str, font: FreeTypeFont, is_rtl: bool
) -> tuple[str, Literal["rtl", "ltr"] | None]:
    """Return text and direction; without raqm Pillow neither reorders nor joins letters."""
    # Pillow's wheels have raqm, but look for FriBiDi on the machine, where it may be missing.
    if font.layout_engine == Layout.RAQM:
        return text, "rtl" if is_rtl else "ltr"
    if not is_rtl:
        return text, None
    turned = "".join(reversed(_clusters(text))).translate(_MIRRORED)
    return _NUMBER.sub(lambda number: number[0][::-1], turned), None


def _tiles(text: str, size: int) -> list[Image.Image]:
    tiles = (emoji_tile(cluster, size) for cluster in _clusters(text))
    return [tile for tile in tiles if tile]


def _draw_emoji(image: Image.Image, x: float, baseline: float, run: Run) -> None:
    for tile in _tiles(run.text, run.style.size)[:: -1 if run.is_rtl else 1]:
        # A fifth below the baseline, as letters with tails are.
        image.paste(tile, (round(x), round(baseline - tile.height * 0.8)), tile)
        x += tile.width
