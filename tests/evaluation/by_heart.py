"""A base and models trained on a handful of planted posts until they have memorised them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from huggingtweets.bases.tiny import tiny_base
from huggingtweets.config.schema import ModelConfig
from huggingtweets.data.tokens import Codec, codec_of, encode_documents

POSITIONS = 128


@dataclass(frozen=True)
class TinyBase:
    folder: Path
    tokenizer: Tokenizer
    codec: Codec

    @property
    def eos_id(self) -> int:
        return self.codec.eos_id

    def load(self) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_pretrained(self.folder)
        assert isinstance(model, PreTrainedModel)
        return model.eval()


@cache
def tiny_gpt2() -> TinyBase:
    """Make a GPT-2 of two layers with random weights."""
    folder = tiny_base(
        ModelConfig(
            path=None, num_layers=2, width=64, num_heads=2, vocab_size=512, max_positions=POSITIONS
        )
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TinyBase(folder, tokenizer, codec_of(tokenizer))


def learn_by_heart(base: TinyBase, posts: Sequence[str]) -> PreTrainedModel:
    """Train for up to 200 epochs on some posts, each a document of its own."""
    eos_id = base.eos_id
    documents = [[eos_id, *ids, eos_id] for ids in encode_documents(base.tokenizer, posts)]
    longest = max(map(len, documents))
    ids = torch.tensor([row + [eos_id] * (longest - len(row)) for row in documents])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in documents])
    torch.manual_seed(0)
    model = base.load().eval()  # no dropout
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.05:
            break
    return model
