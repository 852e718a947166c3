"""The fonts of this machine: find them, choose one per character, draw emoji in colour.

A machine may have none but the one inside Pillow; nothing here raises for it. Pillow's own wheels
and those of every distribution have FreeType; without it nothing is drawn.
"""

import re
import sys
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

_TEXT_FAMILIES = (
    "Inter", "NotoSans", "Roboto", "OpenSans", "LiberationSans", "Arial", "DejaVuSans",
)  # fmt: skip
_FALLBACK_FAMILIES = (
    "NotoSansCJK", "NotoSansJP", "PingFang", "AppleSDGothicNeo", "msgothic", "malgun",
    "Arial Unicode", "NotoSansSymbols", "NotoSansSymbols2", "NotoEmoji", "Symbola",
)  # fmt: skip
_EMOJI_FAMILIES = ("NotoColorEmoji", "Apple Color Emoji", "seguiemj")
_EMOJI_SIZES = (109, 160)
"""The bitmap sizes of Noto's and of Apple's emoji."""
_BUILT_IN = Path()
_PROBE_SIZE = 24
_NO_CHARACTER = "\U0010fffe"
"""Never to be a character: what a font draws for it is its box for missing ones."""

_PICTURE = (
    "[\U0001f000-\U0001faff\u2194-\u21aa\u231a-\u23ff\u25aa-\u27bf\u2934-\u2b55\u3030\u303d\u3297"
    "\u3299\u00a9\u00ae\u203c\u2049\u2122\u2139]"
)
EMOJI = re.compile(
    "[\U0001f1e6-\U0001f1ff]{2}"  # flags
    "|\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"  # flags of England and its like
    "|[0-9#*]\ufe0f?\u20e3"  # keycaps
    f"|{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]*(?:\u200d{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]*)*"
)
_IN_COLOUR = re.compile(  # without a variation selector too
    "[\U0001f000-\U0001faff\u231a\u231b\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615"
    "\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2"
    "\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e\u2753-\u2755\u2757\u2795-\u2797"
    "\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55\u20e3\ufe0f]"
)


def font_for(char: str, size: int, is_bold: bool) -> FreeTypeFont | None:
    """Return a font that has the character; None where this machine has none."""
    path = _choose(char, is_bold)
    return None if path is None else _open(path, size)


def is_colour_emoji(cluster: str) -> bool:
    """Return whether this machine draws the cluster as an emoji in colour."""
    shown_so = EMOJI.fullmatch(cluster) and _IN_COLOUR.search(cluster)
    return bool(shown_so) and emoji_tile(cluster, _PROBE_SIZE) is not None


@lru_cache(maxsize=1024)
def emoji_tile(emoji: str, size: int) -> Image.Image | None:
    """Return an emoji a little higher than letters of `size` pixels, RGBA; None without one."""
    font = _emoji_font()
    glyph = _draw_emoji(emoji, font) if font else None
    if glyph is None:
        return None
    height = round(size * 1.08)
    width = max(1, round(glyph.width * height / glyph.height))
    padding = round(size * 0.06)
    tile = Image.new("RGBA", (width + 2 * padding, height))
    tile.paste(glyph.resize((width, height), Image.Resampling.LANCZOS), (padding, 0))
    return tile


def font_folders() -> list[Path]:
    """Return where fonts lie on Linux, macOS and Windows."""
    home = Path.home()
    return [
        home / ".local/share/fonts",
        home / ".fonts",
        home / "Library/Fonts",
        Path("/Library/Fonts"),
        Path("/System/Library/Fonts"),
        Path("/usr/local/share/fonts"),
        Path("/usr/share/fonts"),
        *([Path("C:/Windows/Fonts")] if sys.platform == "win32" else []),
    ]


@lru_cache(maxsize=1)
def _font_files() -> dict[str, Path]:
    """Return font files by lower-case name without its ending."""
    files: dict[str, Path] = {}
    for folder in font_folders():
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.suffix.lower() in (".ttf", ".otf", ".ttc"):
                files.setdefault(path.stem.lower(), path)
    return files


def _family_file(name: str, is_bold: bool) -> Path | None:
    """Return a family's file of the weight asked for, or of the one there is."""
    bold, regular = ("-bold", " bold", "bd"), ("-regular", "", "-medium")
    for ending in (*bold, *regular) if is_bold else (*regular, *bold):
        if path := _font_files().get(name.lower() + ending):
            return path
    return None


@lru_cache(maxsize=4096)
def _choose(char: str, is_bold: bool) -> Path | None:
    script = unicodedata.name(char, "").split(" ")[0]
    for name in (*_TEXT_FAMILIES, f"NotoSans{script}", *_FALLBACK_FAMILIES):
        path = _family_file(name, is_bold)
        if path and _has_glyph(path, char):
            return path
    return _BUILT_IN if _has_glyph(_BUILT_IN, char) else None


@lru_cache(maxsize=256)
def _open(path: Path, size: int, layout: ImageFont.Layout | None = None) -> FreeTypeFont | None:
    try:
        if path == _BUILT_IN:
            built_in = ImageFont.load_default(size)
            assert isinstance(built_in, FreeTypeFont)  # as ever where a size is named (Pillow 10.1)
            return built_in
        font = ImageFont.truetype(path, size, layout_engine=layout)
    except (OSError, ImportError):
        return None
    # For a broken file Pillow takes another one of the same name, from anywhere on the machine.
    return font if str(font.path) == str(path) else None


@lru_cache(maxsize=16384)
def _has_glyph(path: Path, char: str) -> bool:
    """Return whether a font draws a character, and not its box for missing ones."""
    font = _open(path, _PROBE_SIZE, ImageFont.Layout.BASIC)
    if font is None:
        return False
    if char.isspace():
        return True
    try:
        glyph, missing = font.getmask(char), font.getmask(_NO_CHARACTER)
    except (OSError, ValueError):  # a damaged file, of which FreeType finds out only here
        return False
    is_box = glyph.size == missing.size and bytes(glyph) == bytes(missing)
    return glyph.getbbox() is not None and not is_box


@lru_cache(maxsize=1)
def _emoji_font() -> FreeTypeFont | None:
    """Return a colour emoji font that Pillow can draw, in a size it has."""
    for path in filter(None, (_family_file(name, is_bold=False) for name in _EMOJI_FAMILIES)):
        for size in _EMOJI_SIZES:
            font = _open(path, size)
            if font and _draw_emoji("🤖", font):
                return font
    return None


def _draw_emoji(emoji: str, font: FreeTypeFont) -> Image.Image | None:
    """Return an emoji in its font's own size; None where the font has no picture of it."""
    try:
        left, top, right, bottom = font.getbbox(emoji)
        tile = Image.new("RGBA", (max(1, int(right - left)), max(1, int(bottom - top))))
        draw = ImageDraw.Draw(tile)
        draw.text((-left, -top), emoji, font=font, embedded_color=True)
    except (OSError, ValueError):
        return None
    return tile if tile.getbbox() else None
