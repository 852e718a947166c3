"""A finished model as one GGUF file, which llama.cpp and Ollama read, and a Modelfile beside it."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor

from huggingtweets.bases.model import Base, find_base, load_model
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.errors import ConfigError
from huggingtweets.export.finished import Finished
from huggingtweets.export.gguf_names import Array, add_figures, arch_of, splitting_of, tensors
from huggingtweets.storage.files import read_json, replacing_file, write_text

FOLDER = "export"
"""Within the job's folder, so that whoever is purged leaves no copy."""


class Kind(StrEnum):
    """How matrices are kept; vectors are always fp32."""

    f16 = "f16"
    q8_0 = "q8_0"
    f32 = "f32"


_QUANTS = {
    Kind.f32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    Kind.f16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    Kind.q8_0: (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


def export_gguf(job: Finished, kind: Kind) -> Path:
    """Write `<job>/export/<slug>-<kind>.gguf` and its Modelfile; return the path of the first.

    Raises:
        ConfigError: the model cannot be loaded, or is of a family that we cannot write.
    """
    base = find_base(ModelConfig(path=str(job.paths.model)))
    arch = arch_of(base.config)
    pre = splitting_of(base.tokenizer)
    model = load_model(base, RecipeConfig())  # adapters are merged
    folder = job.paths.root / FOLDER
    path = folder / f"{job.slug}-{kind}.gguf"
    # It gets its name once it was read back whole: who looks on never sees half a model.
    with replacing_file(path) as draft:
        writer = gguf.GGUFWriter(draft, gguf.MODEL_ARCH_NAMES[arch])
        _describe(writer, job, kind)
        add_figures(writer, model.config)
        _add_tokenizer(writer, base, pre, model.config.vocab_size, job.paths.model)
        _add_tensors(writer, model.config, model.state_dict(), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _check(draft, model.config, base)
    write_text(folder / f"Modelfile-{kind}", modelfile(path.name, job.paths.model, base))
    return path


def _describe(writer: "gguf.GGUFWriter", job: Finished, kind: Kind) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(job.slug)
    people = " and ".join(f"@{handle}" for handle in job.result["handles"])
    writer.add_description(f"Imitates posts of {people}; whatever it writes is synthetic.")
    writer.add_file_type(_QUANTS[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(
    writer: "gguf.GGUFWriter", base: Base, pre: str, vocab_size: int, folder: Path
) -> None:
    """Write the vocabulary; rows of the embedding that no token has become unused ones."""
    tokenizer = base.tokenizer
    added = tokenizer.added_tokens_decoder
    by_id = {index: text for text, index in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for index in range(vocab_size):
        text = by_id.get(index)
        kind = gguf.TokenType.NORMAL
        if text is None:
            text, kind = f"[PAD{index}]", gguf.TokenType.UNUSED
        elif index in added:
            is_special = added[index].special
            kind = gguf.TokenType.CONTROL if is_special else gguf.TokenType.USER_DEFINED
        tokens.append(text.encode("utf-8", "replace"))
        types.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=vocab_size)
    special.chat_template = None  # posts are no conversation
    # As it was trained: each post after the one token that begins a post.
    special.special_token_ids |= {"bos": base.codec.bos_id, "eos": base.codec.eos_id}
    special.add_special_token |= {"bos": True, "eos": False}
    special.add_to_gguf(writer, quiet=True)


def _add_tensors(
    writer: "gguf.GGUFWriter", config: Any, state: Mapping[str, Tensor], kind: Kind
) -> None:
    for name, values in tensors(config, state):
        quant = _quant_of(name, values, kind)
        if quant is gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, values)
        elif quant is gguf.GGMLQuantizationType.F16:
            writer.add_tensor(name, values.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, quant), raw_dtype=quant)


def _quant_of(name: str, values: Array, kind: Kind) -> "gguf.GGMLQuantizationType":
    """Return how a tensor is kept: vectors and positions in full, as llama.cpp wants them."""
    if values.ndim == 1 or name.startswith("position_embd"):
        return gguf.GGMLQuantizationType.F32
    quant = _QUANTS[kind][0]
    block, _ = gguf.GGML_QUANT_SIZES[quant]
    return quant if values.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _check(path: Path, config: Any, base: Base) -> None:
    """Read a file back: all tokens are there, and every tensor has its size.

    Raises:
        ConfigError: it is not what was meant.
    """
    reader = gguf.GGUFReader(path)
    field = reader.fields["tokenizer.ggml.tokens"]
    count = len(field.data)
    bos = reader.fields["tokenizer.ggml.bos_token_id"].contents()
    embedding = next(one for one in reader.tensors if one.name == "token_embd.weight")
    shape = tuple(int(size) for size in embedding.shape)
    if count != config.vocab_size or shape != (config.hidden_size, config.vocab_size):
        raise ConfigError(
            f"export gguf: the file read back has {count} tokens and an embedding of {shape}; "
            f"expected {config.vocab_size} and {(config.hidden_size, config.vocab_size)}; please "
            "report this"
        )
    if bos != base.codec.bos_id:
        raise ConfigError(
            f"export gguf: the file read back begins posts with token {bos}; expected "
            f"{base.codec.bos_id}; please report this"
        )


def modelfile(name: str, folder: Path, base: Base) -> str:
    """Return the Modelfile for Ollama: the prompt as it is, and the sampling of the job.

    What Ollama adds by itself (the 40 likeliest tokens alone, a penalty on repeats) is taken back.
    """
    try:
        settings = read_json(folder / "generation_config.json")
    except (OSError, ValueError):
        settings = {}
    eos = base.tokenizer.convert_ids_to_tokens(base.codec.eos_id)
    lines = [
        f"FROM ./{name}",
        'TEMPLATE """{{ .Prompt }}"""',
        f"PARAMETER temperature {settings.get('temperature', 1.0)}",
        f"PARAMETER top_p {settings.get('top_p', 0.95)}",
        "PARAMETER top_k 0",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {settings.get('max_new_tokens', 160)}",
        f'PARAMETER stop "{eos}"',
        'PARAMETER stop "\n"',  # a real line break: Ollama knows no escapes
    ]
    return "\n".join(lines) + "\n"
