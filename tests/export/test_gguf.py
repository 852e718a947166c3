"""GGUF files: read back by transformers, and run by a real llama.cpp where npm gave one."""

import gzip
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN

from huggingtweets.bases.lora import adapter_state, add_lora, save_adapters
from huggingtweets.cli import main as cli
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.tokens import codec_of
from huggingtweets.errors import ConfigError
from huggingtweets.export.finished import finished_jobs
from huggingtweets.export.gguf_file import Kind, export_gguf
from huggingtweets.export.gguf_names import splitting_of

HERE = Path(__file__).parent
NODE = Path(os.environ.get("HUGGINGTWEETS_NODE_MODULES", HERE / "node_modules"))
EOS = "<|endoftext|>"
POSTS = [
    "My dream is",
    "I think that 2,345 people — été 東京 😀 — it's FINE!!",
    "  two  spaces\there",
]


def tokenizer_of(shared: Path, kind: str) -> PreTrainedTokenizerFast:
    """Return GPT-2's own tokenizer, or a small one that splits digits as SmolLM2's does."""
    if kind == "gpt2":
        return AutoTokenizer.from_pretrained(shared / "gpt2-tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[EOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["the weather in this town is fine today " * 5], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)


def model_of(kind: str, num_tokens: int) -> torch.nn.Module:
    torch.manual_seed(1)
    shape: dict[str, Any] = {
        "vocab_size": num_tokens, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    if kind == "gpt2":
        # 1,024 positions: transformers 5.23 does not read the number of a GGUF GPT-2.
        config = GPT2Config(vocab_size=num_tokens, n_embd=64, n_layer=2, n_head=4)
        model: torch.nn.Module = GPT2LMHeadModel(config)
    elif kind == "qwen3":
        # Every Qwen3 has heads of 128; transformers reads no other width from a GGUF file.
        model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=128, tie_word_embeddings=True))
    else:
        rope = None
        if kind == "llama3":
            rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0,
                    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32}  # fmt: skip
        model = LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=rope))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def write_job(folder: Path, shared: Path, kind: str) -> Path:
    job = folder / kind
    (job / "model").mkdir(parents=True)
    tokenizer = tokenizer_of(shared, "gpt2" if kind == "gpt2" else "smollm")
    # A few rows more than there are tokens, as in models whose table was rounded up.
    model_of(kind, len(tokenizer) + 7).save_pretrained(job / "model")
    tokenizer.save_pretrained(job / "model")
    (job / "result.json").write_text(json.dumps({"slug": kind, "handles": [kind]}))
    return job


def logits(folder: Path, ids: list[int], **options: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return found


@pytest.mark.parametrize(
    "kind", [pytest.param("gpt2", marks=pytest.mark.slow), "llama", "llama3", "qwen3"]
)
def test_file_read_back_is_the_model(kind: str, shared: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, shared, kind)
    path = export_gguf(finished_jobs(tmp_path)[0], Kind.f32)
    ids = [0, *range(5, 40)]
    theirs = logits(path.parent, ids, gguf_file=path.name)
    ours = logits(job / "model", ids)
    if kind == "llama3":  # transformers does not read the rotary factors of a GGUF file
        return
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=0)


def test_modelfile_samples_as_the_job_does(shared: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, shared, "gpt2")
    settings = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 77}
    (job / "model" / "generation_config.json").write_text(json.dumps(settings))
    assert cli.main(["export", "gguf", str(tmp_path), "--type", "q8_0"]) == 0
    text = (job / "export" / "Modelfile-q8_0").read_text()
    for line in ("FROM ./gpt2-q8_0.gguf", "temperature 0.7", "top_p 0.9", "num_predict 77",
                 "top_k 0", f'stop "{EOS}"'):  # fmt: skip
        assert line in text
    # As Ollama's parser has it: a quoted value ends at its quote, and has no escapes.
    stops = re.findall(r'^PARAMETER stop "([^"]*)"$', text, re.MULTILINE)
    assert stops == [EOS, "\n"]
    sizes = {path.suffix: path.stat().st_size for path in (job / "export").glob("*.gguf")}
    whole = (job / "model" / "model.safetensors").stat().st_size
    assert sizes[".gguf"] < 0.6 * whole


def test_what_llama_cpp_would_read_otherwise_is_refused(shared: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, shared, "llama")
    path = job / "model" / "tokenizer.json"
    raw = json.loads(path.read_text())
    raw["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="splits text by Whitespace in a way of its own"):
        export_gguf(finished_jobs(tmp_path)[0], Kind.f16)
    assert not list((job / "export").glob("*")) if (job / "export").exists() else True


LLAMA_3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("pattern", "ignores_merges", "behaviour", "found"),
    [
        (QWEN, False, "isolated", "qwen2"),
        (LLAMA_3, True, "isolated", "llama-bpe"),
        (QWEN, True, "isolated", None),
        (LLAMA_3, False, "isolated", None),
        (LLAMA_3, True, "merged_with_next", None),
        (GPT_4O, True, "isolated", None),
        (r"\s+|\S+", False, "isolated", None),
    ],
)
def test_the_way_to_split_text_is_that_of_llama_cpp_or_refused(
    pattern: str, ignores_merges: bool, behaviour: str, found: str | None
) -> None:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behaviour),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    if found:
        assert splitting_of(wrapped) == found
    else:
        with pytest.raises(ConfigError, match=r"expected that of GPT-2, .*own converter"):
            splitting_of(wrapped)


def llama(path: Path, texts: list[str], prompts: list[list[int]], num: int) -> dict[str, Any]:
    """Ask llama.cpp."""
    if shutil.which("node") is None or not (NODE / "node-llama-cpp").is_dir():
        pytest.skip("no llama.cpp: npm install --ignore-scripts --prefix tests/export")
    script = NODE.parent / "llama.mjs"  # beside node_modules: that is where node looks
    if not script.exists():
        script = NODE.parent / "huggingtweets-llama.mjs"
        shutil.copyfile(HERE / "llama.mjs", script)
    asked = {"path": str(path), "texts": texts, "prompts": prompts, "num": num}
    # By a file: node reads a pipe that is not ready yet as an error.
    (path.parent / "asked.json").write_text(json.dumps(asked))
    done = subprocess.run(
        ["node", str(script), str(path.parent / "asked.json")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def real_posts(shared: Path) -> list[str]:
    texts: list[str] = []
    for path in sorted((shared / "tweets").glob("*.gz"))[:20]:
        rows = gzip.decompress(path.read_bytes()).decode().split("\n")[:60]
        texts += [json.loads(row)["text"] for row in rows if row]
    return [*POSTS, *texts][:1000]


def check_llama_cpp(
    path: Path, model: Any, tokenizer: Any, posts: list[str], prompts: list[list[int]], bound: float
) -> None:
    """Compare llama.cpp on a file with transformers: ids, log-probabilities, greedy text."""
    found = llama(path, posts, prompts, 20)
    assert found["eos"] == tokenizer.eos_token_id
    assert found["bos"] == codec_of(tokenizer).bos_id  # what began each post in training
    ours = [tokenizer(post, add_special_tokens=False)["input_ids"] for post in posts]
    wrong = [post for post, a, b in zip(posts, ours, found["ids"], strict=True) if a != b]
    assert wrong == []
    for prompt, next_, generated in zip(prompts, found["next"], found["generated"], strict=True):
        with torch.no_grad():
            row = model(torch.tensor([prompt])).logits[0, -1].double()
        theirs = dict(next_["probabilities"])
        assert next_["token"] == int(row.argmax())
        # Probabilities are all that comes out; their logarithms are logits except for a constant.
        shown = torch.tensor([theirs[at] for at in sorted(theirs)]).double().log()
        own = row[sorted(theirs)].log_softmax(0)
        torch.testing.assert_close(shown - shown.logsumexp(0), own, atol=bound, rtol=0)
        more = model.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0
        )[0, len(prompt) :].tolist()
        if tokenizer.eos_token_id in more:
            more = more[: more.index(tokenizer.eos_token_id)]
        assert generated[: len(more)] == more


@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama3", "qwen3"])
def test_llama_cpp_reads_and_writes_the_same(kind: str, shared: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, shared, kind)
    path = export_gguf(finished_jobs(tmp_path)[0], Kind.f32)
    tokenizer = AutoTokenizer.from_pretrained(job / "model")
    posts = real_posts(shared)
    assert len(posts) == 1000
    prompts = [[0, *range(5, 30)], [0, 30, 17, 200]]
    if kind == "gpt2":
        prompts = [[tokenizer.eos_token_id, *tokenizer(post)["input_ids"]] for post in POSTS[:2]]
    model = AutoModelForCausalLM.from_pretrained(job / "model").eval()
    # ggml looks GELU up in a table of half precision, so GPT-2 cannot agree any closer.
    check_llama_cpp(path, model, tokenizer, posts, prompts, 2e-3 if kind == "gpt2" else 1e-3)


@pytest.mark.slow
@pytest.mark.real_base
def test_llama_cpp_speaks_with_a_real_merged_voice(
    real_base_dir: Path, shared: Path, tmp_path: Path
) -> None:
    """A person's adapters on SmolLM2 are merged into the file; checked against peft's merge."""
    job = tmp_path / "ann"
    (job / "model").mkdir(parents=True)
    adapted = AutoModelForCausalLM.from_pretrained(real_base_dir, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(real_base_dir, dtype=torch.float32)
    recipe = RecipeConfig(lora_rank=8)
    add_lora(adapted, recipe, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.01, generator=generator)
    save_adapters(
        job / "model", adapter_state(dict(adapted.named_parameters())), plain, recipe,
        base_name=str(real_base_dir), revision=None,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(real_base_dir)
    tokenizer.save_pretrained(job / "model")
    (job / "result.json").write_text(json.dumps({"slug": "ann", "handles": ["ann"]}))
    path = export_gguf(finished_jobs(tmp_path)[0], Kind.f32)
    prompts = [[tokenizer.bos_token_id, *tokenizer(post)["input_ids"]] for post in POSTS[:2]]
    check_llama_cpp(path, adapted.eval(), tokenizer, real_posts(shared), prompts, 1e-3)
