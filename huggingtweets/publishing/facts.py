"""What there is to say about one finished model: the one input of card, preview and report.

Plain values, filled by the pipeline. Names, posts and samples in them are hostile until escaped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingtweets.config.schema import Consent
from huggingtweets.posts.cleaning import CleaningReport
from huggingtweets.training.records import Ending, TrainResult

ENDINGS = {
    Ending.full: "all its steps are taken",
    Ending.heldout: "the held-out loss no longer fell",
    Ending.memorisation: "too much was learnt about the training posts alone",
    Ending.pruned: "pruned by the sweep",
}
"""Why a training ended, in words."""


NOISE_BITS_PER_BYTE = 2.5
"""Of held-out posts. A small base that has read English needs 2.1 to 2.4 (docs/quality.md), SmolLM2
1.5 to 1.8; `model=tiny`, whose text is noise, 5.3 before and 4.8 after an epoch of a real account:
`huggingtweets train user=QueenNoor source=jsonl source.path=posts model=tiny sampling.num=0`."""


@dataclass(frozen=True)
class BaseModel:
    """The model that was fine-tuned."""

    name: str
    """As people know it: `gpt2`, or the last part of a local folder."""
    hub_id: str | None = None
    """None for a base that does not come from the Hub."""
    license: str | None = None
    """The Hub's identifier of its licence; None: not known."""
    is_kept: bool = True
    """Whether the model folder holds the model; False: an adapter to be put on this base."""
    origin: str = ""
    """The file that the base was dequantised from, and how it was stored; empty: it was not."""
    warm_start: str = ""
    """How many posts of how many people the base learnt first; empty: none."""


@dataclass(frozen=True)
class DataCounts:
    """What the kept posts became."""

    train_posts: int
    heldout_posts: int
    train_tokens: int
    heldout_tokens: int
    blocks: int


@dataclass(frozen=True)
class HeldoutFigures:
    """How well the held-out posts are predicted. Loss in nats per token."""

    loss: float
    perplexity: float
    bits_per_byte: float
    base_bits_per_byte: float
    bits_per_byte_interval: tuple[float, float] | None = None
    base_bits_per_byte_interval: tuple[float, float] | None = None
    """Low and high end, where they were estimated."""


@dataclass(frozen=True)
class Sample:
    """One generated post."""

    input: str
    prediction: str
    """With or without the input at its front: `continuation` takes both."""
    copied: tuple[tuple[int, int], ...] = ()
    """Start and end, in characters of `continuation`, of what was copied from training posts."""

    @property
    def continuation(self) -> str:
        """What the model wrote after the input, with the space between them if there is one."""
        if self.prediction.startswith(self.input):
            return self.prediction[len(self.input) :]
        first = self.prediction[:1]
        return f" {self.prediction}" if first.isascii() and first.isalnum() else self.prediction


@dataclass(frozen=True)
class Artifact:
    """One thing the model was made of, or made into, and what it was made from."""

    name: str
    type: str
    inputs: tuple[str, ...] = ()
    """Names of other artifacts."""


@dataclass(frozen=True)
class Table:
    """Further figures: memorisation, diversity, attribution. Shown in the report as they are."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Metric:
    """A further held-out figure for the card's `model-index`."""

    type: str
    name: str
    value: float


@dataclass(frozen=True)
class Links:
    """Pages of the W&B runs, where there are some."""

    preprocess_run: str | None = None
    train_run: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """All that card, preview and report tell."""

    slug: str
    people: tuple[CleaningReport, ...]
    base: BaseModel
    recipe: Mapping[str, object]
    data: DataCounts
    train: TrainResult
    """Without the scores of single posts."""
    engine: str
    versions: Mapping[str, str]
    command: str
    """What to type to train this model again, quoted for a shell; of local paths the last names."""
    consent: Consent = Consent.unstated
    heldout: HeldoutFigures | None = None
    """None when nothing was held out."""
    samples: tuple[Sample, ...] = ()
    human_lengths: tuple[int, ...] = ()
    machine_lengths: tuple[int, ...] = ()
    """Characters per post, of kept posts and of samples."""
    lineage: tuple[tuple[Artifact, ...], ...] = ()
    """In columns, each made of what stands to its left."""
    links: Links = field(default_factory=Links)
    languages: tuple[str, ...] = ("en",)
    """Codes as the Hub takes them (ISO 639-1), most used first."""
    finished_at: str = ""
    """UTC, `2026-11-03T12:00:00Z`."""
    tables: tuple[Table, ...] = ()
    metrics: tuple[Metric, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Profile pictures of some people, by handle: square PNG files, made by us."""

    @property
    def is_cyborg(self) -> bool:
        """Whether several people are merged into one voice."""
        return len(self.people) > 1

    @property
    def is_noise(self) -> bool:
        """Whether the model surely has not learnt the language of the posts."""
        return self.heldout is not None and self.heldout.bits_per_byte > NOISE_BITS_PER_BYTE

    @property
    def is_worse(self) -> bool:
        """Whether the model predicts posts that it has not seen worse than its base does."""
        found = self.heldout
        return found is not None and found.bits_per_byte > found.base_bits_per_byte
