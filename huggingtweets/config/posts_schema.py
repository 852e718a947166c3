"""Where posts come from, and which of them are kept: the groups `source` and `cleaning`."""

from dataclasses import dataclass
from enum import StrEnum

from huggingtweets.config.checks import check, check_least


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
    """Empty: by their texts alone, whatever columns say."""
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
        check(
            self.encoding is None or _is_encoding(self.encoding),
            "source.encoding",
            self.encoding,
            "a text encoding that Python knows, such as utf-8, utf-16, cp1252, latin-1, shift_jis",
        )
        check_least("source", self, max_posts=1, max_cost_usd=0)
        check(
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
        check_least("cleaning", self, min_words=0, min_chars=0, warn_chars=0)
