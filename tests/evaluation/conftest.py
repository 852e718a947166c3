"""A base and models trained on a handful of planted posts until they know them by heart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from huggingtweets.config.schema import ModelConfig
from huggingtweets.data.tokens import encode_documents
from huggingtweets.training.tiny import tiny_base

POSITIONS = 128


@dataclass(frozen=True)
class TinyBase:
    folder: Path
    tokenizer: Tokenizer
    eos_id: int

    def load(self) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_pretrained(self.folder)
        assert isinstance(model, PreTrainedModel)
        return model.eval()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBase:
    config = ModelConfig(
        path=None, num_layers=2, width=64, num_heads=2, vocab_size=512, max_positions=POSITIONS
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGGINGTWEETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tiny_base(config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TinyBase(folder, tokenizer, tokenizer.eos_token_id)


@pytest.fixture(scope="session")
def learn_by_heart(tiny: TinyBase) -> Callable[[Sequence[str]], PreTrainedModel]:
    """Train the tiny base for up to 200 epochs on some posts, each a document of its own."""

    def learn(posts: Sequence[str]) -> PreTrainedModel:
        eos_id = tiny.eos_id
        documents = [[eos_id, *ids, eos_id] for ids in encode_documents(tiny.tokenizer, posts)]
        longest = max(map(len, documents))
        ids = torch.tensor([row + [eos_id] * (longest - len(row)) for row in documents])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for row in documents])
        torch.manual_seed(0)
        model = tiny.load().eval()  # no dropout
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

    return learn
