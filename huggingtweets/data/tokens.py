"""Texts to token ids and back. What stands in a post stays text: it never becomes a special id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingtweets.errors import ConfigError


@dataclass(frozen=True)
class Codec:
    """Turns posts into token ids and back, the way one base expects them."""

    tokenizer: Any
    """Of transformers, fast or not."""
    bos_id: int
    """Begins a post: the token that the tokenizer itself puts in front, else EOS."""
    eos_id: int
    """Ends a post."""
    pad_id: int
    """Fills up what is shorter; never looked at."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode posts; see `encode_documents`."""
        return encode_documents(self.tokenizer, texts)

    def begin(self, prompts: Sequence[str]) -> list[list[int]]:
        """Encode the beginnings of posts, each after BOS."""
        return [[self.bos_id, *ids] for ids in self.encode(prompts)]

    def whole_texts(
        self, prompts: Sequence[str], begun: Sequence[list[int]], new: Sequence[list[int]]
    ) -> list[str]:
        """Return prompts and what was drawn after them as whole posts.

        Decoded together: what is decoded alone loses the space that SentencePiece and WordPiece
        tokenizers strip from the start of a text.

        Args:
            prompts: as people wrote them.
            begun: their ids, by `begin`.
            new: the ids drawn after each, without EOS.
        """

        def decode(rows: list[list[int]]) -> list[str]:
            texts: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
            return texts

        wholes = decode([[*row, *more] for row, more in zip(begun, new, strict=True)])
        heads = decode([list(row) for row in begun])
        # A tokenizer may write the prompt otherwise (lower case, NFKC): the person's own stays.
        return [
            prompt + whole[len(head) :] if whole.startswith(head) else whole
            for prompt, head, whole in zip(prompts, heads, wholes, strict=True)
        ]


def codec_of(tokenizer: Any) -> Codec:
    """Return how posts are written for the base that a tokenizer belongs to.

    Where a tokenizer puts a token in front of a text by itself, the base was trained with it there
    (Llama, Gemma; `[CLS]` of a WordPiece tokenizer), and says nonsense without it. The tokenizer
    itself is made to say so of BOS and EOS, and to pad on the left, by EOS if by nothing else, so
    that one that is saved beside a model serves `pipeline(..., batch_size=8)`.

    Raises:
        ConfigError: there is no end-of-text token.
    """
    text = "a"
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    places = range(len(whole) - len(plain) + 1)
    start = next((at for at in places if whole[at : at + len(plain)] == plain), 0)
    front, back = whole[:start], whole[start + len(plain) :]
    eos_id = tokenizer.eos_token_id
    if eos_id is None:
        if not back:
            raise ConfigError(
                f"model.path: the tokenizer of {tokenizer.name_or_path!r} has no end-of-text "
                "token; expected one, as posts are told apart by it; choose another base"
            )
        eos_id = back[-1]
    pad_id = tokenizer.pad_token_id
    bos_id = front[0] if front else eos_id
    pad_id = eos_id if pad_id is None else pad_id
    for name, id in (("bos_token", bos_id), ("eos_token", eos_id), ("pad_token", pad_id)):
        if getattr(tokenizer, f"{name}_id") != id:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(id))
    tokenizer.padding_side = "left"
    return Codec(tokenizer, bos_id, eos_id, pad_id)


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
