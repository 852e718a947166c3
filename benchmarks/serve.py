"""Serving many people's models: stacked, against one model at a time behind a plain web framework.

    python benchmarks/serve.py --people 200 --clients 32 --posts 256
    python benchmarks/serve.py --people 200 --kind adapters --posts 64
    python benchmarks/serve.py --people 1000 --memory --posts 10000

Servers in processes of their own are asked by the same clients for posts of people drawn at random,
alternately within one run: `huggingtweets serve`; the same, asked for one post at a time; and
`transformers.generate` behind Starlette. Everybody's first post, which loads the model, is timed
apart; of adapters 32 people are asked. Models are made on the spot:
a tiny GPT-2 each, or rank-8 adapters of one base (`--base`, default a small Llama). CPU seconds are
those of the server's process, so that a busy machine blurs them less than the clock.
"""

import argparse
import gzip
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from huggingtweets.bases.lora import adapter_state, add_lora, save_adapters
from huggingtweets.bases.tiny import tiny_base
from huggingtweets.config.schema import ModelConfig, RecipeConfig

MAX_TOKENS = 48
PLAIN = """
import sys, threading
from collections import OrderedDict
from pathlib import Path
import torch, uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, port, keep = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
models, turn, tokenizers = OrderedDict(), threading.Lock(), []
def write(body):
    with turn:
        path = folder / body["model"] / "model"
        if (path / "adapter_config.json").exists():  # one base, one person's adapters at a time
            if not models:
                models["base"] = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
                models["base"].eval().names = set()
            model = models["base"]
            if body["model"] not in model.names:
                model.load_adapter(str(path), adapter_name=body["model"])
                model.names.add(body["model"])
            model.set_adapter(body["model"])
        else:
            if body["model"] not in models:
                models[body["model"]] = AutoModelForCausalLM.from_pretrained(path).eval()
                while len(models) > keep:
                    models.popitem(last=False)
            models.move_to_end(body["model"])
            model = models[body["model"]]
        if not tokenizers:
            tokenizers.append(AutoTokenizer.from_pretrained(path))
        tokenizer = tokenizers[0]
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(body["prompt"])["input_ids"]]])
        with torch.inference_mode():
            new = model.generate(ids, do_sample=True, top_p=0.95, top_k=0, pad_token_id=0,
                                 max_new_tokens=body["max_tokens"],
                                 attention_mask=torch.ones_like(ids))
        return tokenizer.decode(new[0, ids.shape[1]:], skip_special_tokens=True)
async def complete(request):
    body = await request.json()
    return JSONResponse({"choices": [{"text": await run_in_threadpool(write, body)}]})
async def health(request):
    return JSONResponse({})
routes = [Route("/v1/completions", complete, methods=["POST"]), Route("/healthz", health)]
app = Starlette(routes=routes)
uvicorn.run(app, port=port, log_level="error")
"""


@dataclass(frozen=True)
class Server:
    """A server under way."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_s(self) -> float:
        """CPU seconds that its process has taken so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def rss_mib(self) -> float:
        """Memory it holds."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20


def write_people(folder: Path, num: int, kind: str, base: str | None) -> None:
    """Write finished jobs with models that nobody trained; what they say costs the same."""
    shape = ModelConfig(path=None, num_layers=4, width=128, num_heads=4, max_positions=256)
    tiny = tiny_base(shape)
    tokenizer = AutoTokenizer.from_pretrained(base or tiny)
    if kind == "adapters" and base is None:
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=256, intermediate_size=768,
            num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=512, bos_token_id=0, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / ".base")
        tokenizer.save_pretrained(folder / ".base")
        base = str(folder / ".base")
    # Long ones, so that no answer is cut or drawn again as longer than this person's posts.
    posts = [{"text": f"post {at} about the weather " * 40, "side": "train"} for at in range(100)]
    data = gzip.compress("".join(json.dumps(post) + "\n" for post in posts).encode())
    model = GPT2LMHeadModel.from_pretrained(tiny)
    plain = LlamaForCausalLM.from_pretrained(base) if base else model
    adapted = LlamaForCausalLM.from_pretrained(base) if base else model
    if base:
        add_lora(adapted, RecipeConfig(), seed=0)
    for number in range(num):
        job = folder / f"person_{number:04d}"
        place = job / "model"
        place.mkdir(parents=True)
        tokenizer.save_pretrained(place)
        if base:
            adapters = adapter_state(dict(adapted.named_parameters()))
            save_adapters(place, adapters, plain, RecipeConfig(), base_name=base, revision=None)
        else:
            with torch.no_grad():
                model.transformer.ln_f.bias.add_(0.01)
            model.save_pretrained(place)
        (job / "dataset.jsonl.gz").write_bytes(data)
        result = {"slug": job.name, "handles": [job.name], "tweets": {"kept": 100},
                  "data": {"train_tokens": 1000}}  # fmt: skip
        (job / "result.json").write_text(json.dumps(result))


def start(words: Sequence[str], port: int) -> Server:
    """Start a server and wait until it answers."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            httpx.get(f"{url}/healthz", timeout=10).raise_for_status()
            return Server(process, url)
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"{words[0]}: the server ended with code {process.returncode}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Row:
    """What one way took."""

    name: str
    posts: int
    seconds: float
    cpu_s: float
    first_s: float
    """Median until the first text of a stream; of a plain server the whole post."""
    rss_mib: float


def measure(
    name: str, server: Server, models: Sequence[str], clients: int, *, is_streamed: bool,
    max_tokens: int = MAX_TOKENS,
) -> Row:  # fmt: skip
    """Have posts written, each by the model named, by this many clients at once."""
    firsts: list[float] = []
    local = threading.local()

    def ask(model: str) -> None:
        if not hasattr(local, "client"):
            local.client = httpx.Client(timeout=600)
        body = {"model": model, "prompt": "My dream is", "max_tokens": max_tokens}
        begun = time.monotonic()
        if not is_streamed:
            local.client.post(f"{server.url}/v1/completions", json=body).raise_for_status()
            firsts.append(time.monotonic() - begun)
            return
        with local.client.stream(
            "POST", f"{server.url}/v1/completions", json=body | {"stream": True}
        ) as answer:
            answer.raise_for_status()
            for number, _ in enumerate(answer.iter_lines()):
                if number == 0:
                    firsts.append(time.monotonic() - begun)

    before, begun = server.cpu_s(), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, models))
    seconds, cpu = time.monotonic() - begun, server.cpu_s() - before
    return Row(name, len(models), seconds, cpu, statistics.median(firsts), server.rss_mib())


def show(rows: Sequence[Row]) -> None:
    """Print one line per way; of several turns the median."""
    print(f"{'':34}{'posts/s':>10}{'CPU s/post':>12}{'first text s':>14}{'RSS MiB':>10}")
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        rate = statistics.median(row.posts / row.seconds for row in own)
        cpu = statistics.median(row.cpu_s / row.posts for row in own)
        first = statistics.median(row.first_s for row in own)
        print(f"{name:34}{rate:10.2f}{cpu:12.3f}{first:14.2f}{own[-1].rss_mib:10.0f}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--posts", type=int, default=128, help="a turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--kind", choices=("tiny", "adapters"), default="tiny")
    parser.add_argument("--base", help="adapters: a folder, such as SmolLM2's")
    parser.add_argument("--memory-gib", type=float, default=4, help="of ours (4)")
    parser.add_argument("--memory", action="store_true", help="only ours: is memory flat?")
    options = parser.parse_args()
    luck = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_people(folder, options.people, options.kind, options.base)
        (folder / "plain.py").write_text(PLAIN)
        everybody = [f"person_{number:04d}" for number in range(options.people)]
        ports = [free_port() for _ in range(2)]
        ours = start(["-m", "huggingtweets.cli", "serve", name, "--port", str(ports[0]),
                      "--rate", "0", "--memory-gib", str(options.memory_gib)],
                     ports[0])  # fmt: skip
        servers = [ours]
        try:
            if options.memory:
                for part in range(10):
                    models = [luck.choice(everybody) for _ in range(options.posts // 10)]
                    row = measure("ours", ours, models, options.clients, is_streamed=False)
                    print(
                        f"{(part + 1) * len(models):>8} posts: {row.rss_mib:8.0f} MiB", flush=True
                    )
                return
            plain = start([str(folder / "plain.py"), name, str(ports[1]), str(options.people)],
                          ports[1])  # fmt: skip
            servers.append(plain)
            few = everybody[: options.people if options.kind == "tiny" else 32]
            for title, server in (("ours", ours), ("transformers", plain)):
                row = measure(title, server, few, 2, is_streamed=False, max_tokens=1)
                print(f"first post of each of {len(few)} people, {title}: {row.seconds:.1f} s")
            rows: list[Row] = []
            for _ in range(options.turns):
                models = [luck.choice(few) for _ in range(options.posts)]
                ways = (
                    ("stacked, all people at once", ours, options.clients, False),
                    ("stacked, streamed", ours, options.clients, True),
                    ("ours, one post at a time", ours, 1, False),
                    ("transformers behind Starlette", plain, options.clients, False),
                )
                for title, server, clients, is_streamed in ways:
                    some = models if clients > 1 and server is ours else models[: len(models) // 4]
                    rows.append(measure(title, server, some, clients, is_streamed=is_streamed))
            show(rows)
        finally:
            for server in servers:
                server.process.kill()
                server.process.wait()
            shutil.rmtree(folder / ".base", ignore_errors=True)


if __name__ == "__main__":
    main()
