from typing import Any

import pytest
from tokenizer_kinds import KINDS
from transformers import PreTrainedTokenizerFast

from huggingtweets.data.tokens import Codec, codec_of
from huggingtweets.errors import ConfigError

PROMPTS = ["My dream is", "I don't like", "I want"]
ENDS = {  # kind -> what begins and ends a post, and pads
    "gpt2": ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "pad-is-eos": ("<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "qwen": ("<|im_end|>", "<|im_end|>", "<|endoftext|>"),
    "llama3": ("<|begin|>", "<|end|>", "<|end|>"),
    "llama2": ("<s>", "</s>", "</s>"),
    "sentencepiece-no-bos": ("</s>", "</s>", "</s>"),
    "gemma": ("<bos>", "<eos>", "<pad>"),
    "unigram": ("</s>", "</s>", "[PAD]"),
    "unigram-eos-behind": ("</s>", "</s>", "[PAD]"),
    "wordpiece": ("[CLS]", "[SEP]", "[PAD]"),
    "added-tokens": ("<|endoftext|>", "<|endoftext|>", "<|pad|>"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def codec(kind: str) -> Codec:
    return codec_of(KINDS[kind]())


def test_a_post_begins_and_ends_as_its_base_expects(kind: str, codec: Codec) -> None:
    ids = [codec.bos_id, codec.eos_id, codec.pad_id]
    assert tuple(codec.tokenizer.convert_ids_to_tokens(ids)) == ENDS[kind]


def test_texts_come_back_whole_with_the_space_after_the_prompt(codec: Codec) -> None:
    begun = codec.begin(PROMPTS)
    assert all(ids[0] == codec.bos_id for ids in begun)
    continued = codec.encode([f"{prompt} to drink tea" for prompt in PROMPTS])
    new = [ids[len(start) - 1 :] for ids, start in zip(continued, begun, strict=True)]
    texts = codec.whole_texts(PROMPTS, begun, new)
    assert texts == [f"{prompt} to drink tea" for prompt in PROMPTS]


def test_what_the_tokenizer_decodes_is_what_is_shown(codec: Codec) -> None:
    """For text that a tokenizer gives back as it was, the whole post is its own decoding."""
    begun = codec.begin(["my dream is"])
    for number in range(5, 200, 7):
        new = [[number, number + 1, number + 2]]
        whole = codec.tokenizer.decode([*begun[0], *new[0]], skip_special_tokens=True)
        assert codec.whole_texts(["my dream is"], begun, new) == [whole]


def test_a_prompt_that_the_tokenizer_changes_stays_as_it_was_written() -> None:
    codec = codec_of(KINDS["wordpiece"]())
    begun = codec.begin(["My Dream IS"])
    [tea] = codec.encode(["tea"])
    assert codec.whole_texts(["My Dream IS"], begun, [tea]) == ["My Dream IS tea"]


def test_a_tokenizer_without_an_end_is_refused() -> None:
    inner: Any = KINDS["gpt2"]().backend_tokenizer
    with pytest.raises(ConfigError, match="no end-of-text token"):
        codec_of(PreTrainedTokenizerFast(tokenizer_object=inner))
