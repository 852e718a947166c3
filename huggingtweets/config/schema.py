"""Every knob there is: the frozen dataclasses that Hydra composes `conf/` into.

Values are checked one by one here (`__post_init__`), across fields in `config/plan.py`. No I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from huggingtweets.config.checks import (
    check,
    check_autos,
    check_fracs,
    check_least,
    check_positive,
)
from huggingtweets.config.posts_schema import CleaningConfig, SourceConfig
from huggingtweets.config.results_schema import (
    AdapterExport,
    HubConfig,
    PublishConfig,
    SamplingConfig,
    TrackingConfig,
)


@dataclass(frozen=True)
class ModelConfig:
    """The base model."""

    path: str | None = "gpt2"
    """A name on the Hub, a local folder of any causal LM, or a GGUF file; null: a tiny GPT-2 made
    on the spot."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    hub_id: str | None = None
    """Of a base in a folder or file: its name on the Hub, for cards, and for adapters that others
    put on it."""
    num_layers: int = 4
    """The shape of the tiny GPT-2, used only without a path."""
    width: int = 128
    num_heads: int = 4
    vocab_size: int = 1024
    max_positions: int = 256

    def __post_init__(self) -> None:
        check_least("model", self, num_layers=1, width=1, num_heads=1, max_positions=1)
        check_least("model", self, vocab_size=300)
        check(
            self.width % self.num_heads == 0,
            "model.width",
            self.width,
            f"a multiple of model.num_heads={self.num_heads}",
        )


class Schedule(StrEnum):
    """Learning rate after warm-up."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class Adapter(StrEnum):
    """What is trained: all weights, or low-rank additions."""

    none = "none"
    lora = "lora"


class SplitKind(StrEnum):
    """Which posts are held out."""

    random = "random"
    time = "time"
    """The newest."""


class Keep(StrEnum):
    """Which weights become the model."""

    best = "best"
    """Those of the epoch with the lowest held-out loss."""
    last = "last"


class Stop(StrEnum):
    """What may end a training before its last step; asked after each epoch."""

    never = "never"
    heldout = "heldout"
    """The held-out loss no longer falls; never where nothing is held out."""
    memorisation = "memorisation"
    """That, or more is learnt about the training posts alone than `recipe.max_gap`."""


BATCH = "batch"
"""Of `recipe.warm_start`: the people of the batch itself."""
CROWD_FOLDER = ".crowd"
"""Where that crowd lies, in the output_dir of the batch."""


@dataclass(frozen=True)
class RecipeConfig:
    """Hyperparameters: all that decides what the weights become, beside base and posts."""

    epochs: int = 4
    max_steps: int = 0
    """End training after this many optimizer steps; 0: no limit."""
    lr: float = 1.372e-4
    """Peak learning rate, per optimizer step."""
    schedule: Schedule = Schedule.cosine
    warmup_frac: float = 0.0
    """Share of the optimizer steps over which the rate grows from zero."""
    weight_decay: float = 0.0
    """AdamW's decoupled decay, on matrices only."""
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 1e-8
    max_grad_norm: float = 1.0
    """Clip the global gradient norm; 0: never."""
    dropout: float | None = None
    """For every dropout of the model; null: the base's own."""
    block_size: int = 1024
    """T, tokens per block."""
    global_batch_size: int = 1
    """Blocks per optimizer step, over all processes and micro-batches."""
    isolate_documents: bool = False
    """Each post its own document: no attention over `<|endoftext|>`, positions restart."""
    adapter: Adapter = Adapter.none
    lora_rank: int = 8
    lora_alpha: int = 16
    split: SplitKind = SplitKind.random
    heldout_frac: float = 0.1
    """Share of the posts held out; 0: none, and no held-out figures."""
    keep: Keep = Keep.last
    stop: Stop = Stop.never
    patience: int = 1
    """Epochs in a row without a lower held-out loss that end the training."""
    max_gap: float = 0.3
    """Bits per byte by which training posts may get better beyond what held-out posts do."""
    replay: float = 0.0
    """Where model.path is an earlier model of the same people: the share of the posts it was
    trained on that are learnt again beside the new ones."""
    warm_start: str | None = None
    """Begin from a model of other people's posts: `batch`, of some posts of the people of the
    batch; `auto`, the same where they donated these to the public (`consent=public-donation`); or
    a folder `.crowd` that a batch left in its `output_dir`; null: from the base."""

    def __post_init__(self) -> None:
        check(0 <= self.replay <= 1, "recipe.replay", self.replay, "0 to 1")
        check(0 < self.lr < 10, "recipe.lr", self.lr, "a number above 0 and below 10")
        check_least("recipe", self, epochs=1, global_batch_size=1, lora_rank=1, patience=1)
        check_least("recipe", self, max_steps=0, weight_decay=0, max_grad_norm=0, block_size=8)
        check_positive("recipe", self, "adam_eps", "lora_alpha", "max_gap")
        check_fracs("recipe", self, warmup_frac=1, beta1=1, beta2=1, dropout=1, heldout_frac=0.9)


class EngineKind(StrEnum):
    """How jobs are trained."""

    auto = "auto"
    single = "single"
    """One model over all processes."""
    fused = "fused"
    """Many models side by side in each process."""


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass; master weights are always fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


@dataclass(frozen=True)
class EngineConfig:
    """How it is computed. Changes no result beyond rounding."""

    kind: EngineKind = EngineKind.auto
    precision: Precision = Precision.auto
    """Auto: bf16 where the device computes in it; else fp16 on a GPU, fp32 on a CPU."""
    tf32: bool = True
    """On a GPU: compute products of fp32 numbers in TF32, which keeps 10 of 23 bits of each factor
    and is several times as fast; false: all of them. Matters with `precision=fp32` alone."""
    compile: bool = False
    """`torch.compile` the model; pays for itself only on long runs. What it makes is kept in the
    cache for the next."""
    cuda_graphs: bool = True
    """On one GPU: replay a step as one CUDA graph."""
    micro_batch_size: int | str = "auto"
    """B, blocks that a process computes at once; auto: what measures fastest, remembered; in short
    trainings as many as the global batch gives it."""
    slots: int | str = "auto"
    """K, models trained side by side by the fused engine."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more arithmetic."""
    save_every_s: float = 120.0
    """Seconds between checkpoints."""
    wait_for_room_s: float = 60.0
    """Seconds that a batch waits for room when its disk is full, before it ends for now (exit code
    75)."""
    hang_after_s: float = 600.0
    """Seconds without a finished step after which all processes are ended, to be started again."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    profile: bool = False
    """Write a torch profiler trace and a table of the most expensive operators."""
    peak_tflops: float | None = None
    """Peak of one device for the MFU; null: by the device's name."""

    def __post_init__(self) -> None:
        check_autos("engine", self, micro_batch_size=1, slots=1)
        check_least("engine", self, wait_for_room_s=0, log_every=1)
        check_positive("engine", self, "save_every_s", "hang_after_s", "peak_tflops")


# Not a class, because Hydra takes members by name alone, and these names have hyphens.
Consent = StrEnum(
    "Consent",
    {
        "unstated": "unstated",
        "own-archive": "own-archive",
        "permission": "permission",
        "public-figure-research": "public-figure-research",
        "public-donation": "public-donation",
    },
)
"""On what ground a person's posts are used."""


@dataclass(frozen=True)
class TrainConfig:
    """The root: what `train.py` composes."""

    user: Any = None
    """A handle, a list of handles, or `file:PATH`; text only, see jobs/selection.py."""
    shard: str | None = None
    """`i/n`: the jobs of shard i of n."""
    job_index: int | None = None
    """Only the job of this 0-based entry of the users file."""
    retry_failed: bool = False
    """Try again also what failed for a reason that a rerun does not cure."""
    only_curable: bool = False
    """Run only the jobs of a batch that failed for a reason that a rerun may cure."""
    overwrite: bool = False
    """Replace jobs with other settings that lie in output_dir; without it they are refused."""
    output_dir: str = "output"
    seed: int = 42
    consent: Consent = Consent.unstated
    optout_file: str | None = None
    """Hashes of the handles of people who want no model; null: $HUGGINGTWEETS_OPTOUT, else
    optout.txt in the user's settings."""
    source: SourceConfig = field(default_factory=SourceConfig)
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    hub: HubConfig = field(default_factory=HubConfig)

    def __post_init__(self) -> None:
        check(bool(self.output_dir), "output_dir", self.output_dir, "a folder")
        check(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")

    @property
    def leaves_adapter(self) -> bool:
        """Whether a model folder holds an adapter, to be put on its base, instead of a model."""
        is_lora = self.recipe.adapter is Adapter.lora
        return is_lora and self.publish.lora is AdapterExport.adapter


def group_names() -> Sequence[str]:
    """Config groups, one folder of `conf/` each."""
    return ("source", "cleaning", "model", "recipe", "engine", "sampling", "tracking", "publish")
