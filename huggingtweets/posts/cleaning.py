"""From posts as received to the texts a model learns. Text to text: no tokens, no files."""

import html
import html.entities
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from huggingtweets.config.posts_schema import CleaningConfig, WordRule
from huggingtweets.errors import TooFewPostsError
from huggingtweets.posts.masking import MASKS, mask_pii
from huggingtweets.posts.own_words import own_words
from huggingtweets.posts.records import Post, Timeline

JOIN_CHARS = len("<|endoftext|>")
"""Characters the separator adds between two posts where the original measures a user's text."""

_BORING = ("http", "@", "#")


@dataclass(frozen=True)
class CleanPost:
    """One kept post."""

    id: str
    text: str
    """Cleaned: one line, single spaces, not empty."""
    created_at: str | None = None


@dataclass(frozen=True)
class CleanPosts:
    """The kept posts of one person, in the order of the timeline."""

    handle: str
    display_name: str
    posts: tuple[CleanPost, ...]


@dataclass(frozen=True)
class CleaningReport:
    """What became of one person's posts: `downloaded` is the sum of the next four."""

    handle: str
    display_name: str
    downloaded: int
    retweets: int
    short: int
    repeats: int
    kept: int
    kept_chars: int
    masked: int = 0
    """Kept posts in which something was masked."""
    written: str = ""
    """The handle as people write it, `TheOnion`, where that is known."""

    @property
    def joined_chars(self) -> int:
        """Characters of the kept posts joined by `<|endoftext|>`: what limits are compared with."""
        return self.kept_chars + JOIN_CHARS * max(0, self.kept - 1)


def clean_timeline(timeline: Timeline, config: CleaningConfig) -> tuple[CleanPosts, CleaningReport]:
    """Drop retweets, short posts and repeats; clean and mask the text of the rest.

    Words of others in a post go first, unless the cleaning is the original's: what is nothing else
    counts as a retweet.

    Of several posts with one cleaned text the first of the timeline, the newest, is kept.
    """
    kept: list[CleanPost] = []
    seen: set[str] = set()
    retweets = short = repeats = masked = 0
    for post in timeline.posts:
        shown = _reveal(post.text, config)
        own = shown if _is_original(config) else own_words(shown)
        # Own words behind somebody else's are kept; what has none left is a retweet by hand.
        if is_retweet(post) or (shown.strip() and not own.strip()):
            retweets += 1
            continue
        text = _flatten(own, config)
        text = mask_pii(text) if config.mask_pii else text
        if not text or count_words(text, config.word_rule) < config.min_words:
            short += 1
        elif config.drop_repeats and text in seen:
            repeats += 1
        else:
            seen.add(text)
            kept.append(CleanPost(post.id, text, post.created_at))
            masked += config.mask_pii and any(mask in text for mask in MASKS)
    report = CleaningReport(
        handle=timeline.handle,
        display_name=timeline.display_name,
        downloaded=len(timeline.posts),
        retweets=retweets,
        short=short,
        repeats=repeats,
        kept=len(kept),
        kept_chars=sum(len(post.text) for post in kept),
        masked=masked,
    )
    return CleanPosts(timeline.handle, timeline.display_name, tuple(kept)), report


def mask_timeline(timeline: Timeline, config: CleaningConfig) -> Timeline:
    """Mask posts as received, all of them, where training masks: so that none is kept otherwise.

    Nearly always only what is masked changes. Where it shows only once entities and invisible
    noise are gone, the cleaned text is kept.
    """
    if not config.mask_pii:
        return timeline
    return replace(timeline, posts=tuple(_mask_received(one, config) for one in timeline.posts))


def _mask_received(post: Post, config: CleaningConfig) -> Post:
    text = mask_pii(post.text)
    if "&" in text or not text.isprintable():
        cleaned = clean_text(text, config)
        public = mask_pii(cleaned)
        text = text if public == cleaned else public
    return post if text == post.text else replace(post, text=text)


def is_retweet(post: Post) -> bool:
    """Whether a post is somebody else's: by the source's word, else by a leading `RT @`."""
    if post.is_retweet is None:
        return post.text.startswith("RT @")
    return post.is_retweet


def _is_original(config: CleaningConfig) -> bool:
    """Whether a text is cleaned as the original does, which knows retweets by their mark alone."""
    return not (config.all_entities or config.strip_controls or config.all_links)


def clean_text(text: str, config: CleaningConfig) -> str:
    """Unescape, drop links and invisible noise, fold white space to single spaces.

    With everything off in `config` this is the original's cleaning, character for character.
    """
    return _flatten(_reveal(text, config), config)


def _reveal(text: str, config: CleaningConfig) -> str:
    text = _unescape_all(text) if config.all_entities else _unescape_three(text)
    if config.strip_controls:
        text = strip_noise(text)
    elif config.all_entities:
        text = _SURROGATE.sub("\ufffd", text)
    return text


def _flatten(text: str, config: CleaningConfig) -> str:
    if config.all_links:
        text = _find_all_links(text)
    for scheme in ("http:", "https:"):
        text = _drop_links(text, scheme)
    return " ".join(text.split())


# --- HTML entities


def _unescape_three(text: str) -> str:
    """Unescape what X escapes, in the original's order: `&amp;lt;` becomes `<`."""
    return text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")


_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")


_SURROGATE = re.compile("[\ud800-\udfff]")


def _unescape_all(text: str) -> str:
    """Unescape every complete entity once: `&amp;lt;` becomes `&lt;`, `R&D&copy` stays.

    Halves of a pair (`&#55357;&#56834;`) become surrogates, which `strip_noise` joins or removes.
    """
    return _ENTITY.sub(_unescape_entity, text) if "&" in text else text


def _unescape_entity(match: re.Match[str]) -> str:
    entity = match[0]
    if entity[1] != "#":
        return html.entities.html5.get(entity[1:], entity)
    digits = entity[2:-1]
    code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    return chr(code) if 0xD800 <= code <= 0xDFFF else html.unescape(entity)


# --- Links


def _drop_links(text: str, scheme: str) -> str:
    r"""Remove what begins with a scheme, up to white space, as the original's five passes do.

    Its second pass, `scheme\S+ `, takes quadratic time on a long run of schemes that no space
    follows: where the run does not end in a space, no part of it can match, so it is skipped whole.
    """
    if scheme not in text:
        return text
    text = re.sub(rf" {scheme}\S+", "", text)
    text = re.sub(rf"{scheme}\S++( ?)", lambda match: "" if match[1] else match[0], text)
    text = re.sub(rf"\n{scheme}\S++ ", "", text)
    text = re.sub(rf"\n{scheme}\S+", "", text)
    return re.sub(rf"{scheme}\S+", "", text)


_SPACELESS = "\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f"
_SPACELESS += "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"
"""Han, kana and their punctuation, Thai to Khmer: what follows a link needs no space there."""
_NO_SCHEME = re.compile(
    # scrapers' pic.twitter.com/aB3dE0001, often glued to the last word
    r"pic\.(?:twitter|x)\.com/\w{1,20}"
    # t.co/aB3dE00012 alone; glued to a word only where the rest looks drawn at random
    r"|(?<![\w.@/-])t\.co/[A-Za-z0-9]{6,12}\b"
    r"|(?<!://)t\.co/(?=[A-Za-z]*[A-Z0-9])[A-Za-z0-9]{10}(?![A-Za-z0-9])"
    # other services that shorten links, and www.example.org/a
    r"|(?i:(?<![\w.@/-])(?:bit\.ly|j\.mp|goo\.gl|ow\.ly|buff\.ly|tinyurl\.com|tiny\.cc|is\.gd|v\.gd"
    r"|fb\.me|youtu\.be|dlvr\.it|ift\.tt|trib\.al|wp\.me|lnkd\.in|amzn\.to|a\.co|cutt\.ly|rb\.gy"
    r"|t\.ly|shorturl\.at|nyti\.ms|wapo\.st|bbc\.in|cnn\.it|on\.fb\.me|instagr\.am|flic\.kr|su\.pr"
    r"|twitpic\.com|yfrog\.com|hubs\.ly|adf\.ly|snip\.ly|mzl\.la|eepurl\.com|gph\.is|redd\.it"
    r"|www\.(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,24})/[!-~]*[a-z0-9/_=-])",
    re.ASCII,
)
_SPLIT_LINK = re.compile(r"(https?://) (?=(?:t\.co|pic\.twitter\.com|www\.)[./])", re.IGNORECASE)
_CAPITALS = re.compile(r"\bHTTPS?:(?=//)|\bHttps?:(?=//)")
_CUT_SCHEME = re.compile(r"(?<!\S)(?:htt|http|https|https?:/{0,2})(?=…\s*\Z)")
_EMOJI = (
    "\u00a9\u00ae\u203c-\u2bff\u3030\u303d\u3297\u3299\ufe0f"
    "\U0001f000-\U0001faff\U000e0020-\U000e007f"
)
"""Symbols, the emoji variation selector, and the tags that spell out flags."""
_LINK = (
    r"https?://(?:t\.co/[A-Za-z0-9]{1,10}(?:\?[a-z]{1,4}=\w{1,9}|…)?|(?:"
    # In other addresses than X's, letters of a script without spaces may belong to the path:
    # behind a `/`, `=` or `_` they do. So may what is in brackets, and a mask.
    rf"[^\s()\[\]{{}}<>\"“”«»{_EMOJI}{_SPACELESS}]|(?<![A-Za-z0-9])[{_SPACELESS}]"
    rf"|\([^\s()]{{0,200}}\)|\[[^\s\[\]]{{0,200}}\]|{'|'.join(MASKS)}"
    r")+(?<![.,:;!?'’])(?:\.{3})?)"
)
_WHOLE_LINK = re.compile(
    rf"\[([^\[\]\n]{{1,200}})\]\({_LINK}\)"  # Markdown: its words stay
    # as it stands in brackets or quotation marks; a stop behind it goes to the word before it
    rf"|(?:((?<=\w) )| )?(?:([(\[{{<\"“«]) ?)?{_LINK}(?(3) ?[)\]}}>\"”»])"
    r"(?:([.,:;!?]+)(?=\s|$)|((?=[)\]}\"”»])))?"
)


def _find_all_links(text: str) -> str:
    """Drop every link, and give what only resembles one the form in which it is dropped."""
    if "htt" in text or "HTT" in text or "Htt" in text:
        text = _CAPITALS.sub(lambda match: match[0].lower(), text)
        text = _SPLIT_LINK.sub(r"\1", text)
        text = _CUT_SCHEME.sub("", text)
    if "/" in text and "." in text:
        text = _NO_SCHEME.sub(lambda match: f" https://{match[0]} ", text)
    return _WHOLE_LINK.sub(_words_of_link, text) if "://" in text else text


def _words_of_link(match: re.Match[str]) -> str:
    title, gap, _, stop, is_in_brackets = match.groups()
    if title or is_in_brackets is not None:
        return title or ""
    return (gap and stop) or (" " if match[0].startswith(" ") else "")


# --- Invisible noise

_JOINING = "\u0590-\u1fff\ufb50-\ufdff\ufe70-\ufefc"
"""Scripts, Hebrew to Khmer, in which joiners change what is read."""
_SPACELESS_SEA = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\uaadf"
"""Thai, Lao, Tibetan, Myanmar, Khmer, Tai scripts, Tai Tham, Tai Viet."""

_CONTROLS = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffc\ufffe\uffff]"
)
"""No white space among them: that is folded."""
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u180e\u200b-\u200d\u202d\u202e\u2060-\u2065\u206a-\u206f\ufeff]"
    r"(?:(?<=[^\u200b-\u200d])"
    rf"|(?<=\u200b)(?:(?<![{_SPACELESS_SEA}]\u200b)|(?![{_SPACELESS_SEA}]))"
    rf"|(?<=[\u200c\u200d])(?:(?<![{_JOINING}{_EMOJI}][\u200c\u200d])"
    rf"|(?<=[{_EMOJI}][\u200c\u200d])(?![{_EMOJI}])))"
)
"""Soft hyphens, byte order marks, overrides; zero-width spaces but between the words of scripts
that write no others; joiners that join nothing."""
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f)|[\U000e0000-\U000e007f]+")
"""Invisible letters: a flag's, which is kept, or hidden text."""
_BIDI = re.compile(r"[\u061c\u200e\u200f\u202a-\u202c\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_BLANKS = str.maketrans({"\u2800": " ", "\u3164": " ", "\uffa0": " "})
"""Characters that show nothing and are not white space to Python."""


def strip_noise(text: str) -> str:
    """Remove control characters, lone surrogates and what is invisible and means nothing.

    Joiners stay in emoji sequences and where a script needs them, directional marks where there is
    right-to-left text. Surrogates that form a pair become their character.
    """
    if text.isascii() and text.isprintable():
        return text
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    text = _TAGS.sub(r"\1", _INVISIBLE.sub("", _CONTROLS.sub("", text))).translate(_BLANKS)
    return text if _RIGHT_TO_LEFT.search(text) else _BIDI.sub("", text)


# --- Words

_EAST_ASIAN = (
    "\u2e80-\u2fdf\u3005-\u3007\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Han and kana; Korean is written with spaces."""
_HAN_KANA = re.compile(f"[{_EAST_ASIAN}]")
_SEA = re.compile(f"[{_SPACELESS_SEA}]")
_MENTION_OR_TAG = re.compile(r"@[A-Za-z0-9_]{1,30}|#[^\s#@]{1,280}|http\S+", re.IGNORECASE)
CHARS_PER_WORD = 2.0
"""Han and kana: dictionary words of running Japanese and Chinese have 1.5 to 2 characters."""
SEA_CHARS_PER_WORD = 4.0
"""Thai, Lao, Khmer and their like: a word has 4 to 5 code points, vowel and tone marks included."""


def count_words(text: str, rule: WordRule) -> float:
    """Count the words of a cleaned post that are free of `http`, `@` and `#`.

    By `WordRule.script`, a word between spaces that is written in a script without spaces counts
    as its characters of that script would make words, at least 1; a name or tag in it does not
    spoil the rest, since in these scripts no space need follow it.
    """
    words = text.split()
    if rule is WordRule.spaces or text.isascii():
        return sum(not _is_boring(word) for word in words) if _is_boring(text) else len(words)
    return sum(_count_in_word(word) for word in words)


def _is_boring(word: str) -> bool:
    lowered = word.lower()
    return any(part in lowered for part in _BORING)


def _count_in_word(word: str) -> float:
    is_boring = _is_boring(word)
    if word.isascii():
        return float(not is_boring)
    rest = _MENTION_OR_TAG.sub("", word) if is_boring else word
    count = (
        len(_HAN_KANA.findall(rest)) / CHARS_PER_WORD + len(_SEA.findall(rest)) / SEA_CHARS_PER_WORD
    )
    return count if is_boring else max(1.0, count)


# --- Limits


def check_enough(reports: Sequence[CleaningReport], config: CleaningConfig) -> list[str]:
    """Compare each person's kept text with the limits; return warnings.

    Every person of a cyborg must have enough alone: balancing repeats the shorter ones up to the
    longest, so a person with very few posts would be memorised.

    Raises:
        TooFewPostsError: somebody has fewer than `cleaning.min_chars` characters.
    """
    lacking = [report for report in reports if report.joined_chars < config.min_chars]
    if lacking:
        raise TooFewPostsError(
            f"{'; '.join(_describe(report) for report in lacking)}; expected at least "
            f"{config.min_chars:,} characters; add posts or lower cleaning.min_chars"
        )
    return [
        f"fewer than {config.warn_chars:,} characters make a weak model; {_describe(report)}"
        for report in reports
        if report.joined_chars < config.warn_chars
    ]


def _describe(report: CleaningReport) -> str:
    return (
        f"@{report.written or report.handle}: got {report.joined_chars:,} characters in "
        f"{report.kept:,} kept posts, joints included ({report.downloaded:,} received, "
        f"{report.retweets:,} retweets, {report.short:,} short, {report.repeats:,} repeats)"
    )
