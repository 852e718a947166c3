"""Posts sampled from a trained model."""

from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from huggingtweets.config.schema import SamplingConfig


@dataclass(frozen=True)
class Prediction:
    """One sampled post."""

    input: str
    """The prompt."""
    prediction: str
    """The whole post, prompt included, cut at the first line break."""


def generation_config(config: SamplingConfig, eos_id: int) -> GenerationConfig:
    """Return what is saved with the model, so that a plain pipeline samples the same way."""
    return GenerationConfig(
        do_sample=True,
        top_p=config.top_p,
        top_k=0,
        temperature=config.temperature,
        min_new_tokens=config.min_new_tokens,
        max_new_tokens=config.max_new_tokens,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
        pad_token_id=eos_id,
    )


def sample_posts(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    config: SamplingConfig,
    *,
    eos_id: int,
    max_positions: int,
    seed: int,
) -> list[Prediction]:
    """Sample `config.num` posts a prompt, all in one batch, from `<|endoftext|>` + prompt.

    Args:
        model: on any device.
        tokenizer: of the model.
        config: prompts, number and sampling parameters.
        eos_id: begins and ends a post, and pads.
        max_positions: of the model; longer posts are cut there.
        seed: of the sampling alone; the global random state is left as it was.
    """
    if not config.num or not config.prompts:
        return []
    prompts = [prompt for prompt in config.prompts for _ in range(config.num)]
    ids = tokenizer(list(config.prompts), add_special_tokens=False).input_ids
    ids = [[eos_id, *row] for row in ids for _ in range(config.num)]
    longest = max(map(len, ids))
    padded = torch.tensor([[eos_id] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    settings = generation_config(config, eos_id)
    settings.max_new_tokens = min(config.max_new_tokens, max_positions - longest)
    settings.min_new_tokens = min(config.min_new_tokens, settings.max_new_tokens)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        output = model.generate(
            padded.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
        )
    texts = tokenizer.batch_decode(output[:, longest:].cpu(), skip_special_tokens=True)
    return [
        Prediction(prompt, (prompt + text).split("\n", 1)[0].strip())
        for prompt, text in zip(prompts, texts, strict=True)
    ]
