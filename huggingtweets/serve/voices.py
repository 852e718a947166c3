"""Models in memory: loaded when asked for, the least recently used let go, bounded in bytes."""

import hashlib
import itertools
import logging
import threading
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from huggingtweets.bases.model import find_base, load_model
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import ModelConfig, RecipeConfig
from huggingtweets.data.copying import CopyIndex
from huggingtweets.data.tokens import Codec, codec_of
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.generation.guards import Guards, build_guards
from huggingtweets.model_folder import job_config, settle, train_posts
from huggingtweets.models.adapter_rows import adapters_of
from huggingtweets.models.families import layout_of, shape_of, why_not_fused
from huggingtweets.models.layout import Layout
from huggingtweets.serve.people import Person
from huggingtweets.storage.files import read_json

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_UNREADABLE = (
    HuggingtweetsError, OSError, ValueError, KeyError, ArithmeticError, SafetensorError,
    RuntimeError,
)  # fmt: skip
_WEIGHTS = "model.safetensors"
_CONFIG, _ADAPTERS = "adapter_config.json", "adapter_model.safetensors"
MAX_POSITIONS = 512
"""Of a model that is decoded beside others: prompt and answer together, see `serve/limits.py`."""


@dataclass
class SharedBase:
    """A base that adapters of several people share."""

    codec: Codec
    max_positions: int
    num_bytes: int
    layout: Layout | None = None
    row: Tensor | None = None
    """(N,) fp32: the weights of a base whose people are decoded side by side."""
    model: PreTrainedModel | None = None
    """A base of another family, with people's adapters in it."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Of whoever computes with `model`, or changes its adapters."""
    numbers: Iterator[int] = field(default_factory=itertools.count)
    """Of adapters: each load has a name of its own, so that who was trained again is another one,
    and the old ones stay as long as somebody writes with them."""
    voices: "weakref.WeakValueDictionary[str, Voice]" = field(
        default_factory=weakref.WeakValueDictionary
    )
    """By the names of their adapters: those that somebody may still write with."""

    def sweep(self) -> None:
        """Take adapters out of `model` with which nobody writes any more; only by turn."""
        for name in set(getattr(self.model, "peft_config", ())) - set(self.voices):
            assert self.model is not None
            self.model.delete_adapter(name)


@dataclass(frozen=True)
class Voice:
    """One person's model, ready to write."""

    person: Person
    codec: Codec
    sampling: SamplingConfig
    guards: Guards
    copies: CopyIndex
    max_positions: int
    num_bytes: int
    """Of its own weights."""
    layout: Layout | None = None
    row: Tensor | None = None
    """Of a model that is decoded beside others, fp32: its weights (N,), see `Layout`; with a base,
    its adapters (n,)."""
    rank: int = 0
    scale: float = 1.0
    """Of the adapters."""
    model: PreTrainedModel | None = None
    """A model of another family, or a shared base with the person's adapters in it."""
    base: SharedBase | None = None
    """What the adapters belong to."""
    adapter: str = ""
    """What peft calls them within the model of the base."""


class Voices:
    """A cache of voices; threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        """Start with none.

        Args:
            max_bytes: of all weights and posts kept.
        """
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._codecs: dict[str, Codec] = {}
        self._bases: weakref.WeakValueDictionary[str, SharedBase] = weakref.WeakValueDictionary()
        self._base_turn = threading.Lock()
        self.num_loaded = 0
        """Loads so far."""

    @property
    def num_bytes(self) -> int:
        """Bytes kept."""
        with self._lock:
            return self._num_bytes()

    def _num_bytes(self) -> int:
        """Return the bytes kept; a base that several share counts once."""
        voices = list(self._voices.values())
        bases = {id(voice.base): voice.base.num_bytes for voice in voices if voice.base}
        return sum(one.num_bytes + one.copies.num_bytes for one in voices) + sum(bases.values())

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._voices)

    def get(self, person: Person) -> Voice:
        """Return a voice, loading it where it is not kept; threads wait for each other.

        Raises:
            ConfigError: it cannot be loaded, or is larger than all that may be kept.
        """
        with self._lock:
            own = self._loading[person.slug]
        with own:
            with self._lock:
                voice = self._voices.get(person.slug)
                if voice is not None and voice.person == person:
                    self._voices.move_to_end(person.slug)
                    return voice
            try:
                voice = self._load(person)
            except _UNREADABLE as err:
                what = type(err).__name__
                logger.error("person=%s cannot be loaded: %s: %s", person.slug, what, err)
                raise ConfigError(  # what was raised may name a path: for the log alone
                    f"{person.slug}: the model cannot be loaded; expected a finished job and room "
                    "for its model; see the server's log"
                ) from err
            with self._lock:
                self._voices[voice.person.slug] = voice
                self._voices.move_to_end(voice.person.slug)
                self.num_loaded += 1
                while len(self._voices) > 1 and self._num_bytes() > self._max_bytes:
                    self._voices.popitem(last=False)
            return voice

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """Let go of those whose person is gone."""
        with self._lock:
            for slug in [slug for slug in self._voices if is_gone(slug)]:
                del self._voices[slug]
        for base in list(self._bases.values()):
            with base.turn:
                base.sweep()

    def _load(self, person: Person) -> Voice:
        folder = person.paths.model
        has_adapters = (folder / _CONFIG).is_file() and not (folder / "config.json").is_file()
        base = self._base(folder) if has_adapters else None
        codec = self._codec(folder, base)
        job, train = job_config(person.paths), train_posts(person.paths)
        sampling = settle(job.sampling, codec, folder, train)
        # The index, which marks copies too, stands for the training posts.
        guards = build_guards(sampling, mask_pii=job.cleaning.mask_pii, train=())
        voice = partial(Voice, person, codec, sampling, guards, CopyIndex(train))
        if base is not None and base.layout is not None:
            adapters = read_json(folder / _CONFIG)
            rank = int(adapters["r"])
            row = adapters_of(base.layout, rank).row_of(load_file(folder / _ADAPTERS))
            return voice(
                min(base.max_positions, MAX_POSITIONS), row.nbytes, layout=base.layout, row=row,
                rank=rank, scale=adapters["lora_alpha"] / rank, base=base,
            )  # fmt: skip
        if base is not None:
            size = (folder / _ADAPTERS).stat().st_size
            assert base.model is not None
            with base.turn:
                base.sweep()  # also of what a load that failed has left
                name = f"p{next(base.numbers)}"
                base.model.load_adapter(str(folder), adapter_name=name)
                found = voice(base.max_positions, size, model=base.model, base=base, adapter=name)
                base.voices[name] = found
            return found
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        if size > self._max_bytes:
            raise ConfigError(
                f"{person.slug}: the model takes {size / 2**30:.1f} GiB; expected at most the "
                f"{self._max_bytes / 2**30:.1f} GiB kept for models; start with a larger "
                "--memory-gib"
            )
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if why_not_fused(config) is None and (folder / _WEIGHTS).is_file():
            layout = layout_of(shape_of(config))
            row = layout.pack(load_file(folder / _WEIGHTS))
            positions = min(layout.shape.num_positions, MAX_POSITIONS)
            return voice(positions, row.nbytes, layout=layout, row=row)
        whole = find_base(ModelConfig(path=str(folder)))
        model = load_model(whole, RecipeConfig()).eval()
        return voice(whole.max_positions, _size_of(model), model=model)

    def _codec(self, folder: Path, base: SharedBase | None) -> Codec:
        """Return how posts are written; people of one base share a tokenizer."""
        if base is not None and not (folder / "tokenizer_config.json").is_file():
            return base.codec
        digest = hashlib.sha256()
        for name in _TOKENIZER_FILES:
            if (folder / name).is_file():
                digest.update(name.encode() + (folder / name).read_bytes())
        key = digest.hexdigest()
        if key not in self._codecs:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._codecs[key] = codec_of(tokenizer)
        return self._codecs[key]

    def _base(self, folder: Path) -> SharedBase:
        """Return the base of a folder of adapters, loading it where nobody has it."""
        path = str(read_json(folder / _CONFIG)["base_model_name_or_path"])
        with self._base_turn:
            shared = self._bases.get(path)
            if shared is None:
                found = replace(find_base(ModelConfig(path=str(folder))), adapter=None)
                model = load_model(found, RecipeConfig()).eval()
                shared = SharedBase(found.codec, found.max_positions, _size_of(model))
                if why_not_fused(model.config) is None:
                    shared.layout = layout_of(shape_of(model.config))
                    shared.row = shared.layout.pack(model.state_dict())
                else:
                    shared.model = model
                self._bases[path] = shared
        return shared


def _size_of(model: PreTrainedModel) -> int:
    return sum(tensor.nbytes for tensor in model.parameters())
