"""Texts to token ids. What stands in a post stays text: it never becomes a special id."""

from collections.abc import Sequence
from typing import Any


def encode_documents(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Encode each text alone, without bos, eos or any other special id.

    A literal `<|endoftext|>` is split like other text; lone surrogates become U+FFFD. Ids that
    are special all the same (an unknown-token id) are left out. A text may give no ids.

    Args:
        tokenizer: of transformers, fast or not.
        texts: cleaned posts.
    """
    if not texts:
        return []
    encoded = tokenizer(
        [to_encodable(text) for text in texts],
        add_special_tokens=False,
        split_special_tokens=True,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    special = frozenset(tokenizer.all_special_ids)
    return [
        [id for id in ids if id not in special] if not special.isdisjoint(ids) else ids
        for ids in encoded
    ]


def to_encodable(text: str) -> str:
    """Replace lone surrogates by U+FFFD, join paired ones: UTF-8 takes the rest."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
