"""Posts as words, for comparing what is said: folded, with the place of each word in the text."""

import re
import unicodedata
from dataclasses import dataclass

_MARKS = "".join(
    chr(code) for code in range(0x300, 0xFE30) if unicodedata.category(chr(code))[0] == "M"
)
_SPACELESS = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035"
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
"""Thai to Khmer, Han and kana: scripts written without spaces."""
_LETTER = re.compile(f"[{_SPACELESS}]")
_LETTERS_A_WORD = 3
"""Letters of such a script that say about as much as a word."""
_APOSTROPHES = "'\u2019\u02bc"
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")
_WORD = re.compile(
    rf"[{_SPACELESS}][{_MARKS}]*"
    rf"|(?:(?![{_SPACELESS}])[^\W_][{_MARKS}]*)+"
    rf"(?:[{_APOSTROPHES}](?:(?![{_SPACELESS}])[^\W_][{_MARKS}]*)+)*"
)
_END = re.compile(rf"(?s).*(?:(?= )|(?<=[{_SPACELESS}]))")
_DROPPED = re.compile(f"[{_APOSTROPHES}{_MARKS}]")


@dataclass(frozen=True)
class Words:
    """The words of a text, in order."""

    words: tuple[str, ...]
    """Without case, accents and apostrophes."""
    spans: tuple[tuple[int, int], ...]
    """Start and end of each in the text."""

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.words)

    def weight(self, start: int, length: int) -> float:
        """Return how many words a run is worth; of letters that stand as words, a third each."""
        run = self.words[start : start + length]
        return length - sum(map(bool, map(_LETTER.match, run))) * (1 - 1 / _LETTERS_A_WORD)


def split_words(text: str) -> Words:
    """Find runs of letters and digits; a letter of a script without spaces is a word."""
    if text.isascii():
        matches = list(_ASCII_WORD.finditer(text))
        words = tuple(match[0].lower().replace("'", "") for match in matches)
    else:
        matches = list(_WORD.finditer(text))
        words = tuple(_fold(match[0]) for match in matches)
    return Words(words, tuple(match.span() for match in matches))


def end_of_words(text: str) -> int:
    """Return where the last word ends that no longer text changes; 0: there is none.

    It stands before a space, or is a letter of a script without spaces.
    """
    match = _END.match(text)
    return match.end() if match else 0


def _fold(word: str) -> str:
    return _DROPPED.sub("", unicodedata.normalize("NFKD", word).casefold())
