from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from huggingtweets.data.tokens import encode_documents, to_encodable
from huggingtweets.posts.records import Timeline

HOSTILE = [
    "<|endoftext|>",
    "a <|endoftext|> b<|endoftext|><|endoftext|>",
    "<s>[PAD]</s> <pad><unk> [UNK]",
    "lone \ud800 and \udfff, a pair \ud83d\ude00",
    "\ud800",
    "nul \x00 bell \x07",
    "",
    " ",
    "שלום 👨‍👩‍👧 สวัสดี",
    "x" * 5000,
]
WORDS = ("[UNK]", "<s>", "</s>", "<pad>", "a", "b", "c")
CORPUS = ["some words to learn merges from, again and again and again", "<s> </s> | endoftext"] * 20


@pytest.fixture(scope="module")
def gpt2(gpt2_tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(gpt2_tokenizer_dir)


@pytest.fixture(scope="module")
def trained() -> Any:
    """A byte-level BPE of our own, as the tiny model has, with padding and truncation left on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(pad_id=0, pad_token="<|endoftext|>", length=8)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end
    )


@pytest.fixture(scope="module")
def wrapping() -> Any:
    """A word-level tokenizer that adds bos and eos by itself and knows few words."""
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="[UNK]",
    )


@pytest.fixture(params=["gpt2", "trained", "wrapping", "bytes"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """Every kind of tokenizer; `bytes` is one without a fast form."""
    return ByT5Tokenizer() if request.param == "bytes" else request.getfixturevalue(request.param)


def test_no_text_gives_a_special_id(tokenizer: Any) -> None:
    special = set(tokenizer.all_special_ids)
    documents = encode_documents(tokenizer, [*HOSTILE, *tokenizer.all_special_tokens])
    assert len(documents) == len(HOSTILE) + len(tokenizer.all_special_tokens)
    assert all(special.isdisjoint(ids) for ids in documents)


def test_the_tokenizer_still_knows_its_special_tokens_afterwards(tokenizer: Any) -> None:
    encode_documents(tokenizer, HOSTILE)
    eos = tokenizer.eos_token
    assert tokenizer.convert_tokens_to_ids(eos) in tokenizer(eos)["input_ids"]


def test_nothing_is_added_cut_or_padded(wrapping: Any, trained: Any) -> None:
    assert encode_documents(wrapping, ["a b", "c x c", "</s>", ""]) == [[4, 5], [6, 6], [], []]
    (ids,) = encode_documents(trained, ["x" * 100])
    assert trained.decode(ids) == "x" * 100


@pytest.mark.parametrize("name", ["gpt2", "trained"])
def test_byte_level_ids_decode_to_the_text(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    for text, ids in zip(HOSTILE, encode_documents(tokenizer, HOSTILE), strict=True):
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == to_encodable(text)


def test_ids_of_real_posts_are_the_tokenizers_own(
    gpt2: Any, read_account: Callable[[str], Timeline]
) -> None:
    texts = [post.text for post in read_account("AV_Abhisit").posts[:200]]
    assert encode_documents(gpt2, texts) == [gpt2(text)["input_ids"] for text in texts]


@given(st.text(st.characters(codec=None), max_size=30))
def test_to_encodable_changes_only_surrogates(text: str) -> None:
    encodable = to_encodable(text)
    encodable.encode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert encodable == text


@pytest.mark.parametrize(
    ("text", "encodable"),
    [("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\ude00\ud83d", "\ufffd\ufffd")],
    ids=["lone", "pair", "swapped"],
)
def test_to_encodable_joins_pairs_and_replaces_the_rest(text: str, encodable: str) -> None:
    assert to_encodable(text) == encodable


def test_no_text_at_all(gpt2: Any) -> None:
    assert encode_documents(gpt2, []) == []
