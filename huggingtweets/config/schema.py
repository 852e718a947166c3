"""Every knob there is: the frozen dataclasses that Hydra composes `conf/` into.

Values are checked one by one here (`__post_init__`), across fields in `config/plan.py`. No I/O.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

AUTO = "auto"


def _check(is_valid: bool, key: str, value: object, expected: str) -> None:
    if not is_valid:
        raise ValueError(f"{key}: got {value!r}; expected {expected}")


def _check_least(group: str, config: object, **least: float) -> None:
    """Refuse values of these keys that are smaller; None may stand for a number."""
    for key, number in least.items():
        value = getattr(config, key)
        _check(value is None or value >= number, f"{group}.{key}", value, f"{number} or more")


def _check_positive(group: str, config: object, *keys: str) -> None:
    for key in keys:
        value = getattr(config, key)
        _check(value > 0, f"{group}.{key}", value, "a number above 0")


def _check_fracs(group: str, config: object, **below: float) -> None:
    for key, number in below.items():
        value = getattr(config, key)
        is_valid = value is None or 0 <= value < number
        _check(is_valid, f"{group}.{key}", value, f"a number from 0 to below {number:g}")


def _check_autos(group: str, config: object, **least: int) -> None:
    for key, number in least.items():
        value = getattr(config, key)
        is_valid = value == AUTO or (isinstance(value, int) and value >= number)
        _check(is_valid, f"{group}.{key}", value, f"auto or a number of {number} or more")


def _is_encoding(name: str) -> bool:
    """Whether Python decodes text by this name; it also has codecs such as `zip`."""
    try:
        return isinstance(b"x".decode(name, "ignore"), str)
    except (LookupError, ValueError, TypeError):
        return False


class SourceKind(StrEnum):
    """Where posts come from."""

    demo = "demo"
    x_archive = "x_archive"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    text = "text"
    hub = "hub"
    x_api = "x_api"
    bluesky = "bluesky"
    mastodon = "mastodon"
    mastodon_archive = "mastodon_archive"
    bluesky_archive = "bluesky_archive"


SERVICES = (SourceKind.x_api, SourceKind.bluesky, SourceKind.mastodon)
"""Sources that are asked over the network."""
ARCHIVES = (SourceKind.x_archive, SourceKind.mastodon_archive, SourceKind.bluesky_archive)
"""Sources that say themselves whose they are."""


class Decode(StrEnum):
    """What tools did to texts that has to be undone."""

    auto = "auto"
    """Found out from the file as a whole, or refused."""
    none = "none"
    bytes = "bytes"
    """`b'...'`: bytes as Python prints them."""
    repr = "repr"
    """`'...'`, `["..."]`: texts and lists as Python or JSON print them."""
    escapes = "escapes"
    r"""`\u2615`, R's `<U+2615>`."""
    mojibake = "mojibake"
    """UTF-8 that was read as Windows-1252 or Latin-1."""
    html = "html"


class Terms(StrEnum):
    """Whether the terms of a service were read."""

    unread = "unread"
    accepted = "accepted"


@dataclass(frozen=True)
class SourceConfig:
    """Where posts come from."""

    kind: SourceKind = SourceKind.demo
    path: str | None = None
    """A file or folder of posts, or the name of a dataset on the Hub; a service has none."""
    text_column: str | None = None
    """Column names, dotted where nested (`user.screen_name`); null: the usual ones are known."""
    user_column: str | None = None
    """Empty: every post is by the user asked for, whatever other columns say."""
    id_column: str | None = None
    date_column: str | None = None
    retweet_column: str | None = None
    encoding: str | None = None
    """Of a file, such as `cp1252`; null: UTF-8 or UTF-16, or Windows-1252 where that is plain."""
    decode: Decode = Decode.auto
    """What was done to the texts that has to be undone."""
    hub_split: str = "train"
    api_url: str | None = None
    """Address of a service, or of the Mastodon server to ask; null: the usual one."""
    terms: Terms = Terms.unread
    """`accepted`: you have read the terms of the service, and they allow you what you are doing."""
    max_posts: int = 3200
    """At most this many of a person's newest posts are asked of a service; X gives no more."""
    max_cost_usd: float | None = None
    """Most that may be spent on posts, all people and processes of a batch together, however often
    it is started; null: ask on the terminal."""

    def __post_init__(self) -> None:
        _check(
            self.encoding is None or _is_encoding(self.encoding),
            "source.encoding",
            self.encoding,
            "a text encoding that Python knows, such as utf-8, utf-16, cp1252, latin-1, shift_jis",
        )
        _check_least("source", self, max_posts=1, max_cost_usd=0)
        _check(
            self.kind is SourceKind.demo or self.kind in SERVICES or bool(self.path),
            "source.path",
            self.path,
            f"where the posts of source={self.kind} lie; add source.path=...",
        )


class WordRule(StrEnum):
    """How the words of a post are counted."""

    spaces = "spaces"
    """Runs between spaces, as the original does."""
    script = "script"
    """The same, but scripts written without spaces count by characters."""


@dataclass(frozen=True)
class CleaningConfig:
    """Which posts are kept and how their text is changed."""

    word_rule: WordRule = WordRule.script
    min_words: int = 3
    """A post needs this many words free of `http`, `@` and `#`."""
    all_entities: bool = True
    """Unescape every HTML entity, not only `&amp;`, `&lt;` and `&gt;`."""
    strip_controls: bool = True
    """Remove control characters, lone surrogates and other invisible noise."""
    all_links: bool = True
    """Drop links without a scheme and in capitals too, and keep the text right behind a link in
    scripts without spaces."""
    drop_repeats: bool = True
    """Keep one of several equal posts."""
    mask_pii: bool = True
    """Replace e-mail and IP addresses, phone, card and bank account numbers, and keys."""
    min_chars: int = 6000
    """Fewer characters, kept posts joined, are an error."""
    warn_chars: int = 40000
    """Fewer are a warning."""

    def __post_init__(self) -> None:
        _check_least("cleaning", self, min_words=0, min_chars=0)


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
        _check_least("model", self, num_layers=1, width=1, num_heads=1, max_positions=1)
        _check_least("model", self, vocab_size=300)
        _check(
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

    def __post_init__(self) -> None:
        _check(0 <= self.replay <= 1, "recipe.replay", self.replay, "0 to 1")
        _check(0 < self.lr < 10, "recipe.lr", self.lr, "a number above 0 and below 10")
        _check_least("recipe", self, epochs=1, global_batch_size=1, lora_rank=1, patience=1)
        _check_least("recipe", self, max_steps=0, weight_decay=0, max_grad_norm=0, block_size=8)
        _check_positive("recipe", self, "adam_eps", "lora_alpha", "max_gap")
        _check_fracs("recipe", self, warmup_frac=1, beta1=1, beta2=1, dropout=1, heldout_frac=0.9)


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
        _check_autos("engine", self, micro_batch_size=1, slots=1)
        _check_least("engine", self, wait_for_room_s=0, log_every=1)
        _check_positive("engine", self, "save_every_s", "hang_after_s")


DEFAULT_PROMPTS = ("My dream is", "I think that", "I like", "I don't like", "I want")
PICTURE_HOSTS = ("pbs.twimg.com", "cdn.bsky.app", "files.mastodon.social")


@dataclass(frozen=True)
class SamplingConfig:
    """How posts are sampled from a trained model."""

    num: int = 10
    """Samples per prompt; 0: none."""
    prompts: list[str] = field(default_factory=lambda: list(DEFAULT_PROMPTS))
    top_p: float = 0.95
    temperature: float = 1.0
    min_new_tokens: int = 10
    max_new_tokens: int | str = AUTO
    """Auto: as many as all but a hundredth of the person's posts have."""
    max_chars: int | str = AUTO
    """Of a sample; 0: no limit; auto: as for tokens. A longer one is cut at a word."""
    block_copies: int = 4
    """Draw again what copies more training words in a row than this; 0: never. Three letters of
    a script without spaces count as a word."""
    banned_words: list[str] = field(default_factory=list)
    """Draw again what has one of these words or phrases, in any case."""
    best_of: int = 1
    """Keep the likeliest of this many samples."""

    def __post_init__(self) -> None:
        _check_least("sampling", self, num=0, block_copies=0)
        _check(0 < self.top_p <= 1, "sampling.top_p", self.top_p, "above 0, at most 1")
        _check_positive("sampling", self, "temperature")
        _check_autos("sampling", self, max_new_tokens=1, max_chars=0)
        _check(
            0 <= self.min_new_tokens <= self.token_limit,
            "sampling.min_new_tokens",
            self.min_new_tokens,
            f"0 to sampling.max_new_tokens={self.token_limit}",
        )
        _check(1 <= self.best_of <= 100, "sampling.best_of", self.best_of, "1 to 100")

    @property
    def token_limit(self) -> int:
        """Most new tokens, or what is usual as long as nobody's posts are known."""
        return 160 if isinstance(self.max_new_tokens, str) else self.max_new_tokens

    def settled(self, *, tokens: int, chars: int) -> "SamplingConfig":
        """Return these settings with what was left to the person's own posts filled in.

        Args:
            tokens: of a long post, its end included.
            chars: of a long post.
        """
        most = self.max_new_tokens
        return replace(
            self,
            max_new_tokens=max(tokens, self.min_new_tokens, 1) if most == AUTO else most,
            max_chars=chars if self.max_chars == AUTO else self.max_chars,
        )

    @property
    def char_limit(self) -> int:
        """Most characters of a sample, likewise; 0: no limit."""
        return 280 if isinstance(self.max_chars, str) else self.max_chars


class TrackingKind(StrEnum):
    """Where metrics go, beside metrics.jsonl."""

    local = "local"
    wandb = "wandb"
    tensorboard = "tensorboard"
    none = "none"


class WandbMode(StrEnum):
    """Whether W&B is reached; null in the config: online with an API key, else offline."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass(frozen=True)
class TrackingConfig:
    """Where metrics and artifacts are recorded, beside the job folder."""

    kind: TrackingKind = TrackingKind.local
    mode: WandbMode | None = None
    project: str = "huggingtweets"
    entity: str | None = None
    per_user: bool = True
    """Of a batch in W&B: a pair of runs per user, grouped by the output folder; false: one run with
    a table of all results, written at the end."""
    upload_posts: bool = True
    """Put the posts into the W&B artifacts made of them; false: names and counts alone."""


class PublishKind(StrEnum):
    """Where a finished model goes."""

    local = "local"
    hub = "hub"
    none = "none"


class AdapterExport(StrEnum):
    """What a LoRA job leaves."""

    merged = "merged"
    """A whole model, which anything loads."""
    adapter = "adapter"
    """A peft adapter folder, some hundred times smaller; loading it needs the base and peft."""


class StoredDtype(StrEnum):
    """What published weights are stored in."""

    auto = "auto"
    """As the base's."""
    bf16 = "bf16"
    """Half the size of fp32; what most programs compute in."""
    fp32 = "fp32"


@dataclass(frozen=True)
class PublishConfig:
    """Where a finished model goes."""

    kind: PublishKind = PublishKind.local
    """none: only what trains and samples the model again; no card, preview or report, and no figure
    beyond the held-out loss."""
    known: bool = True
    """Score some training posts at every evaluation too, which tells what is memorised; false with
    publish=none. recipe.stop=memorisation scores them in any case."""
    lora: AdapterExport = AdapterExport.merged
    """What `recipe.adapter=lora` leaves in the model folder."""
    dtype: StoredDtype = StoredDtype.auto
    """What the weights in the model folder are stored in."""
    pictures: bool = False
    """Fetch profile pictures and show them in preview and report, instead of initials."""
    picture_hosts: list[str] = field(default_factory=lambda: list(PICTURE_HOSTS))
    """They are fetched from these hosts alone, by https."""

    def __post_init__(self) -> None:
        for host in self.picture_hosts:
            _check(
                re.fullmatch(r"[a-z0-9.-]+(:[0-9]+)?", host) is not None,
                "publish.picture_hosts",
                host,
                "names of hosts, in lower case, such as pbs.twimg.com",
            )


@dataclass(frozen=True)
class HubConfig:
    """The Hub repository of `publish=hub`; the token comes from the environment."""

    org: str | None = None
    """User or organisation; null: the token's owner."""
    private: bool = True


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
        _check(bool(self.output_dir), "output_dir", self.output_dir, "a folder")
        _check(0 <= self.seed < 2**31, "seed", self.seed, "0 to 2147483647")


def group_names() -> Sequence[str]:
    """Config groups, one folder of `conf/` each."""
    return ("source", "cleaning", "model", "recipe", "engine", "sampling", "tracking", "publish")
