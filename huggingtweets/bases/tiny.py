"""`model=tiny`: a small GPT-2 with a byte-level vocabulary of its own, made on the spot.

From then on it is a local folder like any other base. Its weights are random but fixed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, PreTrainedTokenizerFast

from huggingtweets.bases.folder import for_other_readers
from huggingtweets.config.schema import ModelConfig
from huggingtweets.posts.sources.demo import demo_corpus
from huggingtweets.storage.cache import cached_folder

EOS = "<|endoftext|>"
_FORMAT = 2
"""Raised when the folder's content changes for an equal ModelConfig."""


def tiny_base(config: ModelConfig) -> Path:
    """Return the folder of the tiny base of this shape, making it first where it is not cached."""
    shape = asdict(config) | {"format": _FORMAT}
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        tokenizer = _train_tokenizer(config)
        tokenizer.save_pretrained(folder)
        _random_model(config, len(tokenizer), tokenizer.eos_token_id).save_pretrained(folder)
        for_other_readers(folder)

    return cached_folder(f"tiny-{digest}", make)


def _train_tokenizer(config: ModelConfig) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(demo_corpus(seed=0), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=EOS,
        padding_side="left",
        model_max_length=config.max_positions,
    )


def _random_model(
    config: ModelConfig, vocab_size: int, eos_id: int
) -> transformers.GPT2LMHeadModel:
    with torch.random.fork_rng():  # a job's own random numbers go on as if nothing was made
        torch.manual_seed(0)
        return transformers.GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_positions=config.max_positions,
                n_embd=config.width,
                n_layer=config.num_layers,
                n_head=config.num_heads,
                bos_token_id=eos_id,
                eos_token_id=eos_id,
                pad_token_id=eos_id,
            )
        )
