"""Llama and its like in the fused engine: the weights that transformers' own class would have."""

from dataclasses import replace

import pytest
import torch
from stacked_reference import CPU, EOS, LLAMA, PLAIN, Plain, T, build_job, train_plainly
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import Keep
from huggingtweets.models.families import layout_of, shape_of
from huggingtweets.models.stack import build_stack
from huggingtweets.training.progress import TrainingJob
from huggingtweets.training.stacked.loop import train_stacked
from huggingtweets.training.stacked.sample import sample_stacked
from huggingtweets.training.stacked.tuning import FullTuning, StackedSettings

# Transformers begins the padding's embedding with zeros and never trains it: where no head shares
# it, norms of zeros blow rounding up a thousandfold.
CONFIGS: dict[str, PreTrainedConfig] = {
    "smollm2": LlamaConfig(**LLAMA, tie_word_embeddings=True, pad_token_id=EOS),
    "llama": LlamaConfig(**LLAMA, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**LLAMA, head_dim=8),
}
RECIPES = {
    "joined": PLAIN,
    "isolated": replace(PLAIN, isolate_documents=True, global_batch_size=2),
    "decayed": replace(PLAIN, epochs=3, weight_decay=0.1),
    "best": replace(PLAIN, epochs=3, isolate_documents=True, keep=Keep.best, lr=6e-3),
    "short": replace(PLAIN, max_steps=2, max_grad_norm=0.1),
}

# See test_stacked_loop.py, whose bounds these are.
SINGLE_WEIGHT = 0.1
ALL_WEIGHTS = 3e-4
LOSS_RTOL = 2e-5


def build(config: PreTrainedConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(config)
    model.get_input_embeddings().padding_idx = None  # as `load_model`: what pads is learnt too
    return model.eval()


Alone = tuple[PreTrainedConfig, list[TrainingJob], list[Plain]]


@pytest.fixture(scope="module", params=CONFIGS)
def trained_alone(request: pytest.FixtureRequest) -> Alone:
    config = CONFIGS[request.param]
    jobs = [
        build_job(slug, recipe, posts=9 + 4 * index, seed=index)
        for index, (slug, recipe) in enumerate(RECIPES.items())
    ]
    return config, jobs, [train_plainly(job, lambda: build(config)) for job in jobs]


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_weights_equal_those_of_transformers_trained_alone(
    trained_alone: Alone, slots: int
) -> None:
    """With three slots the jobs are refilled in the middle of the others' training."""
    config, jobs, expected = trained_alone
    layout = layout_of(shape_of(config))
    base = layout.pack(build(config).state_dict())
    settings = StackedSettings(slots=slots, micro_batch_size=1, block_size=T)
    results = train_stacked(FullTuning(layout, base), iter(jobs), settings=settings, device=CPU)
    found = {result.slug: result for result in results}
    for job, plain in zip(jobs, expected, strict=True):
        result = found[job.slug]
        assert result.error is None
        assert result.trained is not None
        assert result.weights is not None
        assert result.weights.keys() == plain.weights.keys()
        ours, theirs = layout.pack(result.weights), layout.pack(plain.weights)
        assert float((ours - theirs).abs().max()) <= SINGLE_WEIGHT * job.recipe.lr
        assert float((ours - theirs).norm()) <= ALL_WEIGHTS * float((theirs - base).norm())
        nats = [line.heldout.nats for line in result.trained.evals]
        assert nats == pytest.approx(plain.heldout, rel=LOSS_RTOL)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_likeliest_continuation_is_that_of_transformers(name: str) -> None:
    config = CONFIGS[name]
    layout = layout_of(shape_of(config))
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(AutoModelForCausalLM.from_config(config).eval())
    rows = torch.stack([layout.pack(model.state_dict()) for model in models])
    prompts = [[[EOS, 5, 6, 7], [EOS, 9]], [[EOS, 3], [EOS, 8, 8]]]
    sampling = SamplingConfig(top_p=1e-9, temperature=1.0, min_new_tokens=0, max_new_tokens=12)
    drawn = sample_stacked(
        build_stack(layout, rows, torch.float32),
        prompts,
        config=sampling,
        eos_id=EOS,
        seeds=[1, 2],
    )
    for model, own, found in zip(models, prompts, drawn, strict=True):
        for prompt, ids in zip(own, found, strict=True):
            said = model.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=12, pad_token_id=EOS
            )[0, len(prompt) :].tolist()
            expected = said[: said.index(EOS)] if EOS in said else said
            assert ids == expected
