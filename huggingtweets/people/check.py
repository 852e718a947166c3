"""What one would train on, before anything is trained: counts, language, size, examples."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingtweets.config.bases import MULTILINGUAL, known_base
from huggingtweets.config.posts_schema import SourceKind
from huggingtweets.config.results_schema import DEFAULT_PROMPTS
from huggingtweets.config.schema import Consent, TrainConfig
from huggingtweets.data.estimate import Estimate, estimate_training
from huggingtweets.data.language import detect_languages
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.handles import Job
from huggingtweets.posts.cleaning import CleaningReport, check_enough, clean_timeline
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.posts.records import Timeline
from huggingtweets.posts.sources.load import load_timeline
from huggingtweets.publishing.names import plain_text, rough_duration

NUM_EXAMPLES = 10
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class Example:
    """A post before and after cleaning, fit to be shown on a terminal."""

    original: str
    cleaned: str


@dataclass(frozen=True)
class Check:
    """What is known of a job before its training."""

    slug: str
    reports: tuple[CleaningReport, ...]
    languages: tuple[str, ...]
    estimate: Estimate | None
    """None: there is nothing to train on."""
    warnings: tuple[str, ...]
    problem: str
    """Why training would refuse; empty: it would not."""
    examples: tuple[Example, ...]
    how: tuple[tuple[str, str], ...]
    """What the posts were taken for: author, marks of retweets, text, links."""


def check_job(config: TrainConfig, job: Job) -> Check:
    """Read and clean the posts of a job, and say what its training would be like.

    Raises:
        ConfigError: reading would cost money, which training would cost once more.
        HuggingtweetsError: the posts cannot be read.
    """
    if config.source.kind is SourceKind.x_api:
        raise ConfigError(
            "check: got source=x_api, where looking costs as much as training; expected posts on "
            f"disk; run `huggingtweets import x_api {' '.join(job.handles)} --to posts/ ...` once, "
            "then use source=jsonl source.path=posts/"
        )
    check_opted_out(job.handles, config.optout_file)
    timelines = [load_timeline(config.source, handle, config.optout_file) for handle in job.handles]
    cleaned = [clean_timeline(timeline, config.cleaning) for timeline in timelines]
    reports = tuple(report for _, report in cleaned)
    texts = [post.text for user, _ in cleaned for post in user.posts]
    languages = detect_languages(texts) if texts else ()
    estimate = None
    if texts:
        estimate = estimate_training(
            texts, _balance(reports), config.model, config.recipe, languages[0]
        )
    warnings = [note for timeline in timelines for note in timeline.notes]
    problem = "" if texts else "no post is left after cleaning"
    try:
        warnings += check_enough(reports, config.cleaning)
    except HuggingtweetsError as err:
        problem = str(err)
    warnings += _advice(config, languages[0]) if languages else []
    if config.consent is Consent.unstated and config.source.kind is not SourceKind.demo:
        warnings.append(
            "consent=unstated: say on what ground these posts are used, as consent=own-archive does"
        )
    kept = [{post.id: post.text for post in user.posts} for user, _ in cleaned]
    how = [*dict.fromkeys(one for each in timelines for one in each.how), _links(timelines)]
    return Check(
        slug=job.slug,
        reports=reports,
        languages=languages,
        estimate=estimate,
        warnings=tuple(warnings),
        problem=problem,
        examples=_examples(timelines, kept),
        how=tuple((name, what) for name, _, what in (one.partition(": ") for one in how)),
    )


def _advice(config: TrainConfig, language: str) -> list[str]:
    """Say so where base or prompts hardly know the language of the posts."""
    if language == "en":
        return []
    found = []
    known = known_base(config.model.path)
    if known is not None and not known.is_multilingual:
        found.append(
            f"the posts are in {language}, and {known.option} was trained on English; "
            f"{MULTILINGUAL} knows many languages"
        )
    if tuple(config.sampling.prompts) == DEFAULT_PROMPTS:
        found.append(
            f"samples begin with English words, and English may follow; for {language}, give its "
            "own with sampling.prompts=[...]"
        )
    return found


_LINK_STYLES = {
    "t.co": re.compile(r"https?://t\.co/"),
    "others with https://": re.compile(r"(?i)https?://(?!t\.co/)"),
    "pic.twitter.com": re.compile(r"pic\.(?:twitter|x)\.com/"),
    "t.co without https://": re.compile(r"(?<!://)\bt\.co/\w"),
}


def _links(timelines: Sequence[Timeline]) -> str:
    """Say which styles of links there are, and in how many posts."""
    texts = [post.text for timeline in timelines for post in timeline.posts]
    counts = {
        style: sum(bool(pattern.search(text)) for text in texts)
        for style, pattern in _LINK_STYLES.items()
    }
    found = ", ".join(f"{style} in {count:,}" for style, count in counts.items() if count)
    return f"links: {found or 'none'}"


def _balance(reports: Sequence[CleaningReport]) -> float:
    """How much longer an epoch is than the posts: everyone is repeated up to the longest."""
    total = sum(report.kept_chars for report in reports)
    return len(reports) * max(report.kept_chars for report in reports) / max(1, total)


def _examples(timelines: Sequence[Timeline], kept: Sequence[dict[str, str]]) -> tuple[Example, ...]:
    """Ten kept posts, evenly spread; only such that cleaning changed, where these are ten."""
    pairs = [
        (post.text, texts[post.id])
        for timeline, texts in zip(timelines, kept, strict=True)
        for post in timeline.posts
        if post.id in texts
    ]
    changed = [pair for pair in pairs if pair[0] != pair[1]]
    pool = changed if len(changed) >= NUM_EXAMPLES else pairs
    step = max(1, len(pool) // NUM_EXAMPLES)
    return tuple(Example(*map(_cut, pair)) for pair in pool[::step][:NUM_EXAMPLES])


def describe(check: Check) -> list[str]:
    """Return the lines to show."""
    lines = [check.slug]
    for report in check.reports:
        lines += [
            f"  @{report.handle} ({_cut(report.display_name)})",
            f"    {report.downloaded:>8,} posts received",
            f"    {-report.retweets:>8,} retweets",
            f"    {-report.short:>8,} too short or nothing but links",
            f"    {-report.repeats:>8,} repeats",
            f"    {report.kept:>8,} kept, {report.kept_chars:,} characters, "
            f"something masked in {report.masked:,}",
        ]
    lines += [f"  {name:<10} {plain_text(what)}" for name, what in check.how]
    lines.append(f"  language   {', '.join(check.languages) or 'none'}")
    if check.estimate:
        lines += _estimate_lines(check.estimate)
    lines += [f"  warning    {plain_text(warning)}" for warning in check.warnings]
    if check.problem:
        lines.append(f"  refused    {plain_text(check.problem)}")
    for example in check.examples:
        lines += [f"  original   {example.original}", f"  cleaned    {example.cleaned}"]
    return lines


def table_lines(checks: Sequence[Check], refused: Mapping[str, str]) -> list[str]:
    """Return the lines of a table: one per job, their sum, and what it leaves out.

    Args:
        checks: of jobs whose posts could be read.
        refused: per slug of the others the reason.
    """
    rows: list[tuple[str, ...]] = [_HEAD]
    for check in checks:
        author = dict(reversed(check.how)).get("author", "")  # that of the first person
        remarks = [f"refused: {check.problem}"] if check.problem else []
        remarks += [warning for warning in check.warnings if not warning.startswith("consent=")]
        more = f" (and {len(remarks) - 1} more)" if len(remarks) > 1 else ""
        seconds = check.estimate.seconds if check.estimate else None
        time = "" if seconds is None else rough_duration(seconds)
        languages = "+".join(check.languages[:3])
        remark = _cut(remarks[0], 90 - len(more)) + more if remarks else ""
        rows.append(
            (check.slug, *_counts(check.reports), languages, time, _cut(author, 30), remark)
        )
    empty = [""] * (len(_HEAD) - 2)
    rows += [(slug, *empty, _cut(f"refused: {reason}", 90)) for slug, reason in refused.items()]
    reports = [report for check in checks for report in check.reports]
    known = [c.estimate.seconds for c in checks if c.estimate and c.estimate.seconds is not None]
    num_refused = len(refused) + sum(bool(check.problem) for check in checks)
    jobs, time = f"{len(checks) + len(refused)} jobs", rough_duration(sum(known))
    rows.append((jobs, *_counts(reports), "", time, "", f"{num_refused} refused"))
    widths = [max(len(row[index]) for row in rows) for index in range(len(_HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < index <= _NUM_COUNTS else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [
        *lines,
        *_how_lines(checks),
        "time: one after the other, give or take a factor of three; --show tells all of each",
    ]


_NUMBERS = re.compile(r" \(\d+ marked\)| in \d+(?:,\d{3})*|;.*")


def _how_lines(checks: Sequence[Check]) -> list[str]:
    """Return what the posts of all jobs were taken for, a line per question."""
    said: dict[str, Counter[str]] = {}
    for check in checks:
        for name, what in check.how:
            said.setdefault(name, Counter())[_NUMBERS.sub("", what)] += 1
    return [
        _cut(f"{name}: {'; '.join(f'{what} ({num})' for what, num in counts.most_common(4))}", 160)
        for name, counts in said.items()
    ]


_HEAD = (
    *("job", "received", "retweets", "short", "repeats", "kept", "characters", "masked"),
    *("language", "time", "author", "remarks"),
)
_NUM_COUNTS = 7


def _cut(text: str, most: int = _SHOWN_CHARS) -> str:
    """Text from outside that cannot take over a terminal."""
    text = plain_text(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _counts(reports: Sequence[CleaningReport]) -> list[str]:
    keys = ("downloaded", "retweets", "short", "repeats", "kept", "kept_chars", "masked")
    return [f"{sum(getattr(report, key) for report in reports):,}" for key in keys]


def _estimate_lines(estimate: Estimate) -> list[str]:
    how = "counted" if estimate.is_counted else "estimated; the tokenizer is not on this machine"
    lines = [
        f"  tokens     {estimate.tokens:,} to train on ({how})",
        f"  steps      about {estimate.steps:,}",
    ]
    if estimate.seconds is None or estimate.memory_gib is None:
        return [*lines, "  time       not known for this base; nor is memory"]
    return [
        *lines,
        f"  time       about {rough_duration(estimate.seconds)} on {estimate.device}, give or take "
        "a factor of three",
        f"  memory     about {max(0.1, estimate.memory_gib):.1f} GiB, one block per micro-batch",
    ]
