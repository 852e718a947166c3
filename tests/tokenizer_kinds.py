"""Small tokenizers of every kind that bases come with, trained on invented posts."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from huggingtweets.posts.sources.demo import demo_corpus

VOCAB_SIZE = 400


@cache
def _posts() -> tuple[str, ...]:
    return tuple(demo_corpus(seed=0))[:400]


def _add_front(tokenizer: Tokenizer, front: str, back: str = "") -> None:
    words = [(word, tokenizer.token_to_id(word)) for word in (front, back) if word]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{front} $A {back}".strip(), special_tokens=words
    )


def byte_level(special: Sequence[str] = ("<|endoftext|>",), *, front: str = "") -> Tokenizer:
    """As GPT-2's, and with a token in front as Llama 3's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_posts(), trainer)
    if front:
        _add_front(tokenizer, front)
    return tokenizer


def sentencepiece(special: Sequence[str], *, front: str = "", has_dummy: bool = True) -> Tokenizer:
    """A BPE of SentencePiece with bytes to fall back on: as Llama 2's, without dummy as Gemma's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    dummy = [normalizers.Prepend("▁")] if has_dummy else []
    tokenizer.normalizer = normalizers.Sequence([*dummy, normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE + 256, show_progress=False, limit_alphabet=100,
        special_tokens=[*special, *bytes_],
    )  # fmt: skip
    tokenizer.train_from_iterator(_posts(), trainer)
    strip = [decoders.Strip(" ", 1, 0)] if has_dummy else []
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(parts)
    if front:
        _add_front(tokenizer, front)
    return tokenizer


def unigram(special: Sequence[str], unk: str, *, back: str = "") -> Tokenizer:
    """As those of T5 and of many Japanese GPT-2s; NFKC, spaces as metaspaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=list(special), unk_token=unk, show_progress=False
    )
    tokenizer.train_from_iterator(_posts(), trainer)
    if back:
        _add_front(tokenizer, "", back)
    return tokenizer


def wordpiece() -> Tokenizer:
    """As BERT's, which some Chinese GPT-2s have: lower case, [CLS] in front, [SEP] behind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    )
    tokenizer.train_from_iterator(_posts(), trainer)
    _add_front(tokenizer, "[CLS]", "[SEP]")
    return tokenizer


def _wrap(tokenizer: Tokenizer, **tokens: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def _gpt2() -> PreTrainedTokenizerFast:
    end = "<|endoftext|>"
    return _wrap(byte_level(), bos_token=end, eos_token=end, unk_token=end)


def _with_added() -> PreTrainedTokenizerFast:
    tokenizer = _gpt2()
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.add_tokens(["#teatime", "@nobody"])
    return tokenizer


LLAMA = ("<unk>", "<s>", "</s>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>")
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt2": _gpt2,
    "pad-is-eos": lambda: _wrap(
        byte_level(), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ),
    "qwen": lambda: _wrap(byte_level(QWEN), eos_token="<|im_end|>", pad_token="<|endoftext|>"),
    "llama3": lambda: _wrap(
        byte_level(("<|begin|>", "<|end|>"), front="<|begin|>"),
        bos_token="<|begin|>", eos_token="<|end|>",
    ),
    "llama2": lambda: _wrap(
        sentencepiece(LLAMA, front="<s>"), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ),
    "sentencepiece-no-bos": lambda: _wrap(
        sentencepiece(LLAMA), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ),
    "gemma": lambda: _wrap(
        sentencepiece(GEMMA, front="<bos>", has_dummy=False),
        bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
    ),
    "unigram": lambda: _wrap(
        unigram(("[PAD]", "<unk>", "<s>", "</s>"), "<unk>"),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="[PAD]",
    ),
    "unigram-eos-behind": lambda: _wrap(
        unigram(("[PAD]", "<unk>", "</s>"), "<unk>", back="</s>"),
        eos_token="</s>", unk_token="<unk>", pad_token="[PAD]",
    ),
    "wordpiece": lambda: _wrap(
        wordpiece(), cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    ),
    "added-tokens": _with_added,
}  # fmt: skip
