"""What a user could take instead of train.py, each as its users run it; started by single.py.

    python benchmarks/peers.py trainer spec.json

Reads a base folder and posts from the spec, trains one epoch, saves the model, and prints one line:
the moments at which its steps ended, and how many targets each of them had.
"""

import importlib
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

STEPS: list[tuple[float, int, float]] = []
"""When a step ended (seconds since the epoch), the targets it trained, and CPU seconds so far."""


def end_of_step(num_targets: int) -> None:
    """Note a step."""
    STEPS.append((time.time(), num_targets, time.process_time()))


def run_trainer(spec: dict[str, Any]) -> None:
    """transformers.Trainer over packed blocks, as its run_clm example prepares them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, default_data_collator

    tokenizer = AutoTokenizer.from_pretrained(spec["base"])
    model = AutoModelForCausalLM.from_pretrained(spec["base"], dtype=torch.float32)
    encoded = tokenizer(spec["posts"], add_special_tokens=False)["input_ids"]
    stream = [id for ids in encoded for id in [*ids, tokenizer.eos_token_id]]
    T = spec["block_size"]
    blocks = [stream[at : at + T] for at in range(0, len(stream) - T + 1, T)]
    rows = [{"input_ids": block, "labels": list(block)} for block in blocks]
    trainer = Trainer(
        model,
        arguments(spec, "TrainingArguments"),
        train_dataset=rows,
        data_collator=counting(default_data_collator),
        callbacks=[callback()],
    )
    trainer.train()
    trainer.save_model(spec["out"])
    tokenizer.save_pretrained(spec["out"])


def run_trl(spec: dict[str, Any]) -> None:
    """SFTTrainer of TRL with packing (best-fit decreasing), without gradient checkpointing."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(spec["base"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(spec["base"], dtype=torch.float32)
    own = {
        "packing": True,
        "max_length": spec["block_size"],
        "gradient_checkpointing": False,
        "dataset_num_proc": None,
    }
    trainer = SFTTrainer(
        model,
        args=arguments(spec, "SFTConfig", **own),
        train_dataset=Dataset.from_dict({"text": spec["posts"]}),
        processing_class=tokenizer,
        callbacks=[callback()],
    )
    trainer.data_collator = counting(trainer.data_collator)
    trainer.train()
    trainer.save_model(spec["out"])


PENDING: list[int] = []
"""Targets of batches that were made and are still to be trained."""


def counting(collate: Any) -> Any:
    """Return a collator that notes the targets of each batch; the first label has no input."""

    def collated(rows: Any) -> Any:
        batch = collate(rows)
        PENDING.append(int((batch["labels"][:, 1:] != -100).sum()))
        return batch

    return collated


def callback() -> Any:
    """Return a callback that notes the steps."""
    from transformers import TrainerCallback

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            end_of_step(PENDING.pop(0))

    return Steps()


def arguments(spec: dict[str, Any], kind: str, **own: Any) -> Any:
    """Return the recipe as Trainer and SFTTrainer want it."""
    made = importlib.import_module("trl" if kind == "SFTConfig" else "transformers")
    return getattr(made, kind)(
        output_dir=spec["out"] + ".work",
        per_device_train_batch_size=spec["global_batch_size"],
        num_train_epochs=1,
        learning_rate=spec["lr"],
        lr_scheduler_type="cosine",
        weight_decay=0.0,
        max_grad_norm=1.0,
        bf16=spec["precision"] == "bf16",
        logging_steps=spec["log_every"],
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=spec["device"] == "cpu",
        seed=0,
        **own,
    )


def run_nanogpt_style(spec: dict[str, Any]) -> None:
    """A plain loop around a GPT-2 of one's own, in the manner of nanoGPT's train.py.

    Blocks are drawn at random from one stream; compiled on CUDA, and on a CPU only on request, as
    nanoGPT's own advice for CPUs goes.
    """
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F
    from transformers import AutoTokenizer

    device, T, G = spec["device"], spec["block_size"], spec["global_batch_size"]
    config = json.loads((Path(spec["base"]) / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(spec["base"])
    torch.manual_seed(0)
    model = build_gpt(config, load_file(Path(spec["base"]) / "model.safetensors")).to(device)
    encoded = tokenizer(spec["posts"], add_special_tokens=False)["input_ids"]
    data = torch.tensor([id for ids in encoded for id in [*ids, tokenizer.eos_token_id]])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=spec["lr"], weight_decay=0.0, betas=(0.9, 0.999), fused=True
    )
    run = torch.compile(model) if spec["compile"] or device == "cuda" else model
    is_bf16 = spec["precision"] == "bf16"
    num_steps = max(1, len(data) // (G * T))
    rng = random.Random(0)
    for step in range(num_steps):
        starts = [rng.randrange(max(1, len(data) - T - 1)) for _ in range(G)]
        x = torch.stack([data[at : at + T] for at in starts]).to(device)
        y = torch.stack([data[at + 1 : at + 1 + T] for at in starts]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = spec["lr"] * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        with torch.autocast(device, torch.bfloat16, enabled=is_bf16):
            logits = run(x)
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % spec["log_every"] == 0:
            print(f"step {step}: loss {loss.item():.4f}")
        end_of_step(y.numel())
    Path(spec["out"]).mkdir(parents=True)
    torch.save(model.state_dict(), Path(spec["out"]) / "ckpt.pt")


def build_gpt(config: dict[str, Any], weights: dict[str, Any]) -> Any:
    """Return a GPT-2 of plain PyTorch modules with the weights of a folder of transformers."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    C, heads, rate = config["n_embd"], config["n_head"], config["resid_pdrop"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
            self.drop = nn.Dropout(rate)

        def forward(self, x: Any) -> Any:
            B, T, _ = x.shape
            q, k, v = (
                part.view(B, T, heads, -1).transpose(1, 2)
                for part in self.qkv(self.ln_1(x)).split(C, dim=2)
            )
            p = config["attn_pdrop"] if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
            x = x + self.drop(self.out(y.transpose(1, 2).reshape(B, T, C)))
            hidden = F.gelu(self.up(self.ln_2(x)), approximate="tanh")
            return x + self.drop(self.down(hidden))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte = nn.Embedding(config["vocab_size"], C)
            self.wpe = nn.Embedding(config["n_positions"], C)
            self.drop = nn.Dropout(config["embd_pdrop"])
            self.blocks = nn.ModuleList(Block() for _ in range(config["n_layer"]))
            self.ln_f = nn.LayerNorm(C)

        def forward(self, ids: Any) -> Any:
            x = self.drop(self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device)))
            for block in self.blocks:
                x = block(x)
            return F.linear(self.ln_f(x), self.wte.weight)

    model = GPT()
    ours = {
        "ln_1": "ln_1", "ln_2": "ln_2", "attn.c_attn": "qkv", "attn.c_proj": "out",
        "mlp.c_fc": "up", "mlp.c_proj": "down",
    }  # fmt: skip
    state = {}
    for name, tensor in weights.items():
        parts = name.removeprefix("transformer.").split(".")
        if parts[0] == "h":
            inner, kind = ".".join(parts[2:-1]), parts[-1]
            own = f"blocks.{parts[1]}.{ours[inner]}.{kind}"
            state[own] = tensor.t() if kind == "weight" and tensor.ndim == 2 else tensor
        elif parts[0] in ("wte", "wpe", "ln_f"):
            state[".".join(parts)] = tensor
    model.load_state_dict(state)
    return model.train()


def run_ours(spec: dict[str, Any]) -> None:
    """Run train.py, whose steps are noted from outside."""
    import runpy

    from huggingtweets.training.parallel import loop

    plain: Any = loop.train_step

    def noted(*args: Any, **kwargs: Any) -> Any:
        outcome = plain(*args, **kwargs)
        end_of_step(args[2].num_targets)
        return outcome

    patched: Any = loop
    patched.train_step = noted
    sys.argv = [spec["train"], *spec["arguments"]]
    try:
        runpy.run_path(spec["train"], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


PEERS = {
    "ours": run_ours,
    "trainer": run_trainer,
    "trl": run_trl,
    "nanogpt-style": run_nanogpt_style,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
    print("STEPS " + json.dumps(STEPS), flush=True)
