"""How much text each token of a base adds: so that sampling ends where the text does."""

from functools import lru_cache

import torch
from tokenizers.decoders import ByteLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from huggingtweets.data.tokens import Codec
from huggingtweets.training.stacked.sample import TextEnds

MARGIN_CHARS = 40
"""Beyond the longest post: an address or a number is whole, and masked, before the post is cut."""

NO_LIMIT = 1 << 40


def text_ends(codec: Codec, vocab_size: int, limits: list[list[int]]) -> TextEnds:
    """Return what ends the sequences of several users.

    Args:
        codec: of the base.
        vocab_size: V; a base may have more than its tokenizer.
        limits: user -> sequence -> characters; see `chars_left`.
    """
    texts = _token_texts(codec.tokenizer)[:vocab_size]
    chars = torch.zeros(vocab_size, dtype=torch.int64)
    chars[: len(texts)] = torch.tensor([num for num, _ in texts])
    is_break = torch.zeros(vocab_size, dtype=torch.bool)
    is_break[: len(texts)] = torch.tensor([has_break for _, has_break in texts])
    return TextEnds(chars, is_break, limits)


def chars_left(prompt: str, max_chars: int) -> int:
    """Return after how many characters of new text a post is longer than it may be."""
    return max(1, max_chars + MARGIN_CHARS - len(prompt)) if max_chars else NO_LIMIT


@lru_cache(maxsize=8)
def _token_texts(tokenizer: object) -> list[tuple[int, bool]]:
    """Return for each id how many characters it adds at least, and whether with a line break.

    Tokens of a byte-level tokenizer may hold parts of a character: its first byte counts, those
    that go on (0x80 to 0xBF) do not, so that sums over a text are exact. Of other tokenizers a
    token decoded alone may lose a space: that is a character too few, and a post ends later.
    """
    num = len(tokenizer)  # type: ignore[arg-type]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(getattr(backend, "decoder", None), ByteLevel):
        tokens = tokenizer.convert_ids_to_tokens(list(range(num)))  # type: ignore[attr-defined]
        goes_on, line_break = _byte_letters()
        return [
            (sum(letter not in goes_on for letter in token or ""), line_break in (token or ""))
            for token in tokens
        ]
    texts = tokenizer.batch_decode([[id] for id in range(num)])  # type: ignore[attr-defined]
    return [(len(text.replace("\ufffd", "")), "\n" in text) for text in texts]


def _byte_letters() -> tuple[frozenset[str], str]:
    """Return the letters of bytes that go on with a character, and that of the line break.

    GPT-2 writes a printable byte of Latin-1 as itself, and the others, in order, from U+0100 on.
    """
    letters = bytes_to_unicode()
    return frozenset(letters[byte] for byte in range(0x80, 0xC0)), letters[ord("\n")]
