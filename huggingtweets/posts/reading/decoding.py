"""Is it text: what people's tools left encoded, told by the file as a whole and undone.

A single post may look like anything; that half of a file does is no accident. Between a few and
half, nobody can tell, and the file is refused with the key that decides.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from urllib.parse import unquote, unquote_plus

from huggingtweets.config.posts_schema import Decode
from huggingtweets.errors import SourceError
from huggingtweets.posts.reading.by_handle import show
from huggingtweets.posts.reading.json_values import parse_python
from huggingtweets.posts.reading.rich_text import html_to_text

_BYTES = re.compile(r"\s*b(?P<quote>['\"]).+", re.DOTALL)
_QUOTED = re.compile(r"\s*u?(?P<quote>['\"]).*(?P=quote)\s*\Z", re.DOTALL)
_LISTED = re.compile(r"\s*[\[(]\s*[ub]?(?P<quote>['\"]).*(?P=quote)\s*,?\s*[\])]\s*\Z", re.DOTALL)
_ESCAPES = re.compile(r"\\(?:u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[nrt\"'\\])")
_SURE_ESCAPES = re.compile(r"\\(?:u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|x[0-9a-fA-F]{2})")
_R_ESCAPE = re.compile(r"<U\+([0-9A-Fa-f]{4,8})>")
_R_BYTES = re.compile(r"(?:<[0-9a-f]{2}>){2,}")
_HTML = re.compile(
    r"<(?:p|br|a|span|div|strong|em|blockquote|ul|li)(?:\s[^<>]*)?/?>|</(?:p|a|span|div)>", re.I
)
_BYTE_OF = {
    **{chr(code): code for code in range(0x80, 0x100)},
    **{bytes([code]).decode("cp1252", "ignore") or chr(code): code for code in range(0x80, 0x100)},
}
"""By what a byte from 0x80 on becomes, read as Latin-1 or as cp1252."""
_RUN = re.compile(f"[{re.escape(''.join(_BYTE_OF))}]+")
_LOST_QUOTE = re.compile("â€(?=[\\s.,!?;:)]|$)")
"""A closing quotation mark whose third byte, 0x9d, means nothing in cp1252 and was dropped."""
_PERCENT = re.compile("(?:%[0-9A-Fa-f]{2})+")
_WITHOUT_LINKS = re.compile(r"(?:https?://|www\.)\S+")
_CYRILLIC = re.compile("[РС][\x98\xa0-\xbb\u0401-\u045f\u0490-\u0491\u2013-\u2122]")
"""A letter of Cyrillic in UTF-8, D0 or D1 and a byte from 0x80 to 0xbf, read as cp1251."""
_PIECES = re.compile(r'\s*\{"text":\s?".*\}\s*\Z', re.DOTALL)
_SURE_SHARE, _DOUBTFUL_SHARE, _DOUBTFUL_NUM = 0.5, 0.1, 3


@dataclass(frozen=True)
class _Kind:
    """One way in which text is left encoded."""

    key: Decode
    what: str
    is_one: Callable[[str], bool]
    undo: Callable[[str], str] | None
    """None: it is not undone here, since posts may have been cut in two; `way` says what to do."""
    may_be: Callable[[str], bool] = lambda text: True
    """Which posts count: emoji escapes stand only where there were emoji."""
    sure_share: float = _SURE_SHARE
    sure_num: int = _DOUBTFUL_NUM
    doubtful_share: float = _DOUBTFUL_SHARE
    evidence: Callable[[Sequence[str]], bool] = lambda texts: True
    """What else must hold of the posts that look like it."""
    way: str = ""


def decode_texts(texts: list[str], decode: Decode, where: str) -> tuple[list[str], list[str]]:
    """Undo what the texts of a file have in common; return them and what was done, in words.

    Args:
        texts: of all posts that were read.
        decode: as configured: `auto` finds out, `none` leaves all as it is, a kind is applied to
            each text that it can be applied to.
        where: the file, for messages.

    Raises:
        SourceError: some look encoded, too many for an accident and too few to be sure.
    """
    done: list[str] = []
    if decode == Decode.none:
        return texts, done
    for _ in range(2):  # a printed list of printed bytes
        before = texts
        for kind in _KINDS:
            if decode in (Decode.auto, kind.key):
                texts = _undo(texts, kind, where, done, is_told=decode == kind.key)
        if texts == before:
            break
    return texts, list(dict.fromkeys(done))


def _undo(
    texts: list[str], kind: _Kind, where: str, done: list[str], *, is_told: bool
) -> list[str]:
    hits = [text for text in texts if kind.is_one(text)]
    if not hits:
        return texts
    undo = kind.undo
    if not is_told or undo is None:
        num = sum(map(kind.may_be, texts))
        share = len(hits) / max(1, num)
        is_many = len(hits) >= min(kind.sure_num, _DOUBTFUL_NUM) and kind.evidence(hits)
        is_sure = is_many and len(hits) >= kind.sure_num and share >= kind.sure_share
        if is_many and share >= kind.doubtful_share and (undo is None or not is_sure):
            way = kind.way or f"set source.decode={kind.key} to decode them or"
            raise SourceError(
                f"{where}: got {len(hits)} of {num} posts that look like {kind.what}, such as "
                f"{show(hits[0], 80)}; expected {'text' if kind.way else 'all or hardly any'}; "
                f"{way} source.decode=none to leave them"
            )
        if undo is None or not is_sure:
            return texts
    decoded = [undo(text) if kind.is_one(text) else text for text in texts]
    changed = sum(old != new for old, new in zip(texts, decoded, strict=True))
    if changed:
        done.append(f"{changed} posts were {kind.what} and were decoded")
    return decoded


def _undo_bytes(text: str) -> str:
    match = _BYTES.fullmatch(text)
    assert match is not None
    body = text.strip()
    quote = match["quote"]
    for attempt in (body, body + quote, body.rstrip("….") + quote):
        value = parse_python(attempt)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
    return _unescape(body[2:].removesuffix(quote))


def _undo_quoted(text: str) -> str:
    try:
        value = json.loads(text.strip())
    except ValueError:
        value = parse_python(text)
    return value if isinstance(value, str) else _unescape(text.strip()[1:-1])


def _undo_list(text: str) -> str:
    value = parse_python(text)
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return " ".join(
            one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in value
        )
    return text


def _undo_pieces(text: str) -> str:
    try:
        pieces = json.loads(f"[{text}]")
    except ValueError:
        return text
    return "".join(str(one.get("text", "")) for one in pieces if isinstance(one, dict))


def _unescape(text: str) -> str:
    r"""Undo `\n`, `\u2615`, `\ud83d\ude00` and `\xe2\x98\x95` (bytes of UTF-8) in a text."""

    def one(match: re.Match[str]) -> str:
        sign, digits = match[0][1], match[0][2:]
        if sign in "uU":
            code = int(digits, 16)
            return chr(code) if code < 0x110000 else match[0]
        if sign == "x":
            return chr(int(digits, 16))
        return {"n": "\n", "r": "\r", "t": "\t"}.get(sign, sign)

    text = _ESCAPES.sub(one, text)
    return _undo_mojibake(_join_surrogates(text))


def _join_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _undo_r(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = int(match[1], 16)
        return chr(code) if code < 0x110000 else match[0]

    def characters(match: re.Match[str]) -> str:
        data = bytes(int(pair, 16) for pair in re.findall("[0-9a-f]{2}", match[0]))
        try:
            return _join_surrogates(data.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            return match[0]

    return _join_surrogates(_R_BYTES.sub(characters, _R_ESCAPE.sub(character, text)))


def _undo_run(match: re.Match[str]) -> str:
    data = bytes(_BYTE_OF[char] for char in match[0])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _undo_mojibake(text: str) -> str:
    for _ in range(2):  # some files were spoilt twice: `Ã¢â‚¬â„¢`
        before, text = text, _LOST_QUOTE.sub("”", _RUN.sub(_undo_run, text))
        if text == before:
            break
    return text


def _is_mojibake(text: str) -> bool:
    return not text.isascii() and _undo_mojibake(text) != text


def _is_percent(text: str) -> bool:
    return bool(_PERCENT.search(_WITHOUT_LINKS.sub("", text))) and " " not in text.strip()


def _undo_percent(text: str) -> str:
    return unquote_plus(text) if "%20" not in text else unquote(text)


def _undo_cyrillic(text: str) -> str:
    def letter(match: re.Match[str]) -> str:
        try:
            return b"".join(
                char.encode("cp1251") if char != "\x98" else b"\x98" for char in match[0]
            ).decode("utf-8")
        except UnicodeError:
            return match[0]

    return _CYRILLIC.sub(letter, text)


_UTF7 = re.compile(r"\+(?=[0-9a-z/]*[A-Z])[A-Za-z0-9+/]{3,}")
_QUOTED_PRINTABLE = re.compile(r"(?:=[0-9A-F]{2}){2,}|=\n")
_ARMOUR = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){8,}")


def _is_utf7(text: str) -> bool:
    """Whether there are runs that decode to what is not ASCII, mostly signs of alphabets."""
    if "+" not in text or not text.isascii():
        return False
    found = ""
    for match in _UTF7.finditer(text):
        with suppress(UnicodeDecodeError):
            found += f"{match[0]}-".encode().decode("utf-7")
    usual = sum(
        0xA0 <= ord(char) < 0x800 or 0xE00 <= ord(char) < 0x1000 or 0x2000 <= ord(char) < 0x2400
        or 0x3000 <= ord(char) < 0x3100 or ord(char) > 0xFF00
        for char in found
    )  # fmt: skip
    return 2 * usual > len(found)


def _is_quoted_printable(text: str) -> bool:
    return "=" in text and any(
        match[0] == "=\n" or _is_utf8_text(bytes.fromhex(match[0].replace("=", "")))
        for match in _QUOTED_PRINTABLE.finditer(_WITHOUT_LINKS.sub("", text))
    )


def _is_armoured(text: str) -> bool:
    """Whether a text is one word that holds text in base64 or hexadecimal digits."""
    word = text.strip()
    if _HEX.fullmatch(word):
        return _is_utf8_text(bytes.fromhex(word))
    if not _ARMOUR.fullmatch(word):
        return False
    try:
        return _is_utf8_text(urlsafe_b64decode(word.translate(_SAFE) + "=" * (-len(word) % 4)))
    except ValueError:
        return False


_SAFE = str.maketrans("+/", "-_")


def _is_utf8_text(data: bytes) -> bool:
    """Whether bytes are UTF-8, but for a sign cut in two at either end, and can be shown."""
    text = data.decode("utf-8", "replace").strip("\ufffd").replace("\n", "").replace("\r", "")
    return bool(text) and text.isprintable() and "\ufffd" not in text


def _both_quotes_or_escapes(texts: Sequence[str]) -> bool:
    """Whether what is quoted was printed by a program, not by somebody fond of quotations."""
    bodies = [text.strip() for text in texts]
    return len({body[0] for body in bodies}) > 1 or any(_ESCAPES.search(body) for body in bodies)


_DECODE_FIRST = "decode the file before, with the program that encodes so, or set"
_KINDS = (
    _Kind(Decode.repr, "lists printed as text", lambda t: bool(_LISTED.fullmatch(t)), _undo_list),
    _Kind(
        Decode.repr, "pieces of JSON (YouTube)", lambda t: bool(_PIECES.match(t)),
        _undo_pieces,
    ),
    _Kind(
        Decode.bytes, "bytes printed as text (b'...')", lambda t: bool(_BYTES.fullmatch(t)),
        _undo_bytes,
    ),
    _Kind(
        Decode.repr, "texts printed in quotes",
        lambda t: len(t.strip()) > 1 and bool(_QUOTED.fullmatch(t)),
        _undo_quoted, sure_share=0.9, doubtful_share=0.5, evidence=_both_quotes_or_escapes,
    ),
    _Kind(
        Decode.escapes, r"escaped texts (\u2615, \xe2)",
        lambda t: bool(_SURE_ESCAPES.search(t)), _unescape,
        may_be=lambda t: not t.isascii() or bool(_SURE_ESCAPES.search(t)),
    ),
    _Kind(
        Decode.escapes, "R's escapes (<U+2615>)",
        lambda t: bool(_R_ESCAPE.search(t) or _R_BYTES.search(t)), _undo_r,
        sure_share=0.0, sure_num=1,
    ),
    _Kind(
        Decode.mojibake, "UTF-8 read as Windows-1252 or Latin-1 (â€™)",
        _is_mojibake, _undo_mojibake,
        may_be=lambda t: not t.isascii(), doubtful_share=0.2,
    ),
    _Kind(
        Decode.mojibake, "UTF-8 read as Windows-1251 (РїСЂ)",
        lambda t: len(_undo_cyrillic(t)) < 0.8 * len(t), _undo_cyrillic,
        may_be=lambda t: not t.isascii(), doubtful_share=0.2,
    ),
    _Kind(
        Decode.escapes, "UTF-7 (caf+AOk-)", _is_utf7, None,
        may_be=lambda t: not t.isascii() or _is_utf7(t), way="set source.encoding=utf-7, or",
    ),
    _Kind(
        Decode.escapes, "quoted-printable (caf=C3=A9)", _is_quoted_printable, None,
        may_be=lambda t: not t.isascii() or _is_quoted_printable(t), way=_DECODE_FIRST,
    ),
    _Kind(
        Decode.bytes, "base64 or hexadecimal digits", _is_armoured, None, way=_DECODE_FIRST,
    ),
    _Kind(Decode.escapes, "encoded as in an address (%C3%A9)", _is_percent, _undo_percent),
    _Kind(
        Decode.html, "HTML", lambda t: bool(_HTML.search(t)),
        lambda t: escape(html_to_text(t), quote=False),
    ),
)  # fmt: skip
