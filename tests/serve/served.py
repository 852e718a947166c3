"""A folder of finished jobs, made without training, and a real server over it."""

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import uvicorn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from huggingtweets.bases.lora import adapter_state, add_lora, save_adapters
from huggingtweets.bases.tiny import tiny_base
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.serve.app import Door, build_app
from huggingtweets.serve.engine import Engine
from huggingtweets.serve.metrics import Metrics
from huggingtweets.serve.people import People

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "huggingtweets" / "publishing" / "templates" / "report.html.jinja"
SHAPE = ModelConfig(
    path=None, num_layers=2, width=32, num_heads=2, vocab_size=400, max_positions=128
)
PLAIN = ("ann", "bob", "cy", "dee.example.com")
STACKED = (*PLAIN, "wide", "lama", "ada", "leo", "liv")
"""GPT-2s, one of which sees 600 tokens, a Llama, and adapters: of a GPT-2, and two of the Llama."""
LONE = ("neo", "zoe")
"""Of a family that is not stacked: a whole model, and adapters."""
COPIED = "the quick brown fox jumps over the lazy dog while it rains"


def write_job(folder: Path, slug: str, posts: list[str]) -> Path:
    """Write what lies around a model; return the folder for the model."""
    job = folder / slug
    (job / "model").mkdir(parents=True)
    rows = [{"user": slug, "text": post, "side": "train"} for post in posts]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (job / "dataset.jsonl.gz").write_bytes(gzip.compress(data))
    sample = {"input": "My", "prediction": f"My machine-made words of {slug}, quite a few of them"}
    (job / "predictions.jsonl").write_text(json.dumps(sample) + "\n")
    # The head of a real report: its styles stand within it, and so does its policy.
    [style] = re.findall("<meta http-equiv.*?</style>", REPORT.read_text(), re.DOTALL)
    (job / "report.html").write_text(f"<!doctype html>{style}<main>report</main>")
    (job / "model" / "README.md").write_text("# card")
    result = {
        "slug": slug,
        "handles": [slug],
        "tweets": {"kept": len(posts)},
        "data": {"train_tokens": 1000},
        "eval": {"bits_per_byte": 2.0, "base_bits_per_byte": 2.5},
    }
    (job / "result.json").write_text(json.dumps(result))
    return job / "model"


def shaken(model: torch.nn.Module, seed: int) -> None:
    """Move all weights by a function of the seed, so that everybody writes something else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def write_people(folder: Path) -> None:
    """Write people whose models are stacked and people whose models are not."""
    base = tiny_base(SHAPE)
    tokenizer = AutoTokenizer.from_pretrained(base)
    posts = [
        COPIED,
        "a long one of many words, " * 12,
        *(f"post number {at} about the weather in this town" for at in range(30)),
    ]
    for seed, slug in enumerate((*PLAIN, "wide")):
        model = GPT2LMHeadModel.from_pretrained(base)
        if slug == "wide":
            model = GPT2LMHeadModel(GPT2Config(**model.config.to_dict() | {"n_positions": 600}))
        shaken(model, seed)
        place = write_job(folder, slug, posts)
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
    write_adapters(write_job(folder, "ada", posts), base, 5)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
        "bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    families = {
        "lama": (LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2)), ("leo", "liv")),
        "neo": (GPTNeoXForCausalLM(GPTNeoXConfig(**shape)), ("zoe",)),
    }
    for slug, (model, adapted) in families.items():
        shaken(model, 3)
        place = write_job(folder, slug, posts)
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        for seed, name in enumerate(adapted):
            write_adapters(write_job(folder, name, posts), place, seed)


def write_adapters(place: Path, base: Path, seed: int) -> None:
    """Write adapters of a base, moved from where they begin."""
    adapted = AutoModelForCausalLM.from_pretrained(base)
    add_lora(adapted, RecipeConfig(), seed=1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2, generator=generator)
    state = adapter_state(dict(adapted.named_parameters()))
    plain = AutoModelForCausalLM.from_pretrained(base)
    save_adapters(place, state, plain, RecipeConfig(), base_name=str(base), revision=None)
    AutoTokenizer.from_pretrained(base).save_pretrained(place)


def write_poet(folder: Path, prompt: str, text: str) -> None:
    """Write a person whose model says this text after this prompt, and may copy."""
    base = tiny_base(SHAPE)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = GPT2LMHeadModel.from_pretrained(base)
    begun = [tokenizer.eos_token_id, *tokenizer(prompt)["input_ids"]]
    said = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        for block in model.transformer.h:  # nothing is added to what the embeddings say
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight.zero_()
                layer.bias.zero_()
        words = torch.randn(model.transformer.wte.weight.shape)
        words = torch.nn.functional.normalize(words - words.mean(1, keepdim=True))
        model.transformer.wte.weight.copy_(words)
        places = range(len(begun) - 1, len(begun) - 1 + len(said))
        model.transformer.wpe.weight[places] = 100 * words[said]
    place = write_job(folder, "poet", [COPIED, "a long one of many words, " * 12])
    (folder / "poet" / "config.yaml").write_text("sampling: {block_copies: 0}")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


@dataclass
class Serving:
    """A server under way."""

    url: str
    folder: Path
    engine: Engine
    metrics: Metrics
    people: People


def serving(
    folder: Path, *, token: str | None = None, per_minute: int = 0, max_bytes: int = 64 << 20
) -> Iterator[Serving]:
    """Run a server in threads of this process, on a free port."""
    people, metrics = People(folder), Metrics()
    engine = Engine(people, metrics, torch.device("cpu"), max_bytes=max_bytes, max_waiting=256)
    app = build_app(people, engine, metrics, Door(token, per_minute))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", lifespan="off", access_log=False,
        server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Serving(f"http://127.0.0.1:{port}", folder, engine, metrics, people)
    finally:
        server.should_exit = True
        thread.join(20)
        engine.close()
