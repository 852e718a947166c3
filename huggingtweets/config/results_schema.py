"""What comes after training, as knobs: samples, records, and where a model goes."""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from huggingtweets.config.checks import AUTO, check, check_autos, check_least, check_positive

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
        check_least("sampling", self, num=0, block_copies=0)
        check(0 < self.top_p <= 1, "sampling.top_p", self.top_p, "above 0, at most 1")
        check_positive("sampling", self, "temperature")
        check_autos("sampling", self, max_new_tokens=1, max_chars=0)
        check(
            0 <= self.min_new_tokens <= self.token_limit,
            "sampling.min_new_tokens",
            self.min_new_tokens,
            f"0 to sampling.max_new_tokens={self.token_limit}",
        )
        check(1 <= self.best_of <= 100, "sampling.best_of", self.best_of, "1 to 100")

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
            check(
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
