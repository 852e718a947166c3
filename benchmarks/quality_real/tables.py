"""The rows as Markdown tables."""

from collections.abc import Sequence
from statistics import fmean

from harness import markdown

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.evaluation.attribution import Voice, measure_attribution
from quality_real.plan import COPIES, Design, Row, Run
from quality_real.rows import Rows
from quality_real.statistics import Difference, base_posts_of, difference, posts_of
from quality_real.work import Workshop

CHOICE_STEPS = ("rates", "epochs", "blocks", "ranks", "details", "all", "small batch")


def write(difference: Difference | None) -> str:
    """Write a difference with its interval; a star where that leaves out 0."""
    if difference is None:
        return ""
    star = " *" if difference.low > 0 or difference.high < 0 else ""
    low, high = difference.low, difference.high
    return f"{difference.percent:+.1f} % ({low:+.3f} to {high:+.3f}){star}"


def mean(rows: Sequence[Row], key: str, group: str = "figures") -> float | None:
    """Return the mean of a figure over the rows that have it."""
    return mean_known([row.get(group, {}).get(key) for row in rows])


def number(value: float | None, digits: int = 3, factor: float = 1.0, unit: str = "") -> str:
    """Write a figure; nothing where there is none."""
    return "" if value is None else f"{factor * value:,.{digits}f}{unit}"


def complete(rows: Rows, step: str, accounts: Sequence[str]) -> dict[str, list[Row]]:
    """Return the settings of a step that all of these accounts have, and their rows alone."""
    found = {
        name: [row for row in own if row["run"]["account"] in accounts]
        for name, own in rows.settings(step).items()
    }
    return {
        name: own
        for name, own in found.items()
        if {row["run"]["account"] for row in own} == set(accounts)
    }


def choice_table(rows: Rows, accounts: Sequence[str]) -> str:
    """Return what decided: every setting that all accounts have against the first of them."""
    settings = {
        name: own for step in CHOICE_STEPS for name, own in complete(rows, step, accounts).items()
    }
    if not settings:
        return ""
    first = next(iter(settings))
    lines = []
    for name, own in settings.items():
        against = None if name == first else difference(posts_of(own), posts_of(settings[first]))
        lines.append([
            name,
            number(mean(own, "bits")),
            write(against),
            number(mean(own, "train_bits")),
            number(last(own, "prefix"), 1, 100, " %"),
            number(mean(own, "kept_epoch"), 1),
            number(mean(own, "tokens"), 0),
            number(mean(own, "seconds"), 0),
        ])  # fmt: skip
    base = mean(settings[first], "base")
    heads = [
        f"mean over {len(accounts)} accounts", f"bits/byte (base {number(base)})",
        f"against {first}", "training posts", "completed", "epoch kept", "tokens", "CPU s",
    ]  # fmt: skip
    return markdown(heads, lines)


def last(rows: Sequence[Row], key: str) -> float | None:
    """Return the mean over rows of a figure of the last evaluation."""
    return mean_known([row["evals"][-1][key] for row in rows])


def test_table(rows: Rows, workshop: Workshop, accounts: Sequence[str]) -> str:
    """Return the recipes on the accounts that chose nothing, a column each."""
    settings = complete(rows, "test", accounts)
    if "huggingtweets" not in settings:
        return ""
    original = posts_of(settings["huggingtweets"])
    columns = []
    for name, own in settings.items():
        sampled = [row for row in own if row.get("samples")]
        against = None if name == "huggingtweets" else difference(posts_of(own), original)
        columns.append([
            f"`recipe={name}`",
            f"{number(mean(own, 'bits'))}",
            number(mean(own, "base")),
            write(against),
            f"{against.wins} of {against.num}" if against else "",
            number(mean(own, "train_bits")),
            number(last(own, "extracted"), 1, 100, " %"),
            number(last(own, "prefix"), 1, 100, " %"),
            number(mean(sampled, "equal", "texts"), 1, 100, " %"),
            number(mean(sampled, "copied", "texts"), 2, 100, " %"),
            str(sum(sum(row["refused"].values()) for row in sampled)),
            number(mean(sampled, "runs", "texts"), 3, 100, " %"),
            number(mean(sampled, "unseen_runs", "texts"), 3, 100, " %"),
            *attributed(sampled, workshop),
            number(mean(sampled, "distinct_2", "texts"), 1, 100, " %"),
            number(mean(sampled, "human_distinct_2", "texts"), 1, 100, " %"),
            number(mean(own, "tokens"), 0),
            number(mean(own, "seconds"), 0),
            str(len({row["run"]["seed"] for row in own})),
        ])  # fmt: skip
    names = [
        f"mean over {len(original)} accounts", "held-out bits per byte", "of the base",
        "against the original", "accounts better", "bits per byte of training posts",
        "training posts extracted", "rest completed before the first mistake",
        "samples equal to a training post", "samples with 5 words or more from a training post",
        "samples refused and drawn again",
        "runs of 4 to 8 words that stand in a training post",
        "the same runs in posts that no model has seen", "samples attributed to their voice",
        "held-out posts attributed to theirs", "distinct-2 of samples", "of as many human posts",
        "tokens trained",
        "CPU seconds, evaluations included", "seeds",
    ]  # fmt: skip
    lines = list(zip(names, *columns, strict=True))
    return markdown(lines[0], lines[1:])


def attributed(rows: Sequence[Row], workshop: Workshop) -> tuple[str, str]:
    """Return the shares of samples and of held-out posts that are told to be of their voice."""
    voices = {}
    for row in rows:
        split = workshop.split(run_of(row))
        drawn = tuple(text.removeprefix(prompt).strip() for prompt, text in row["samples"])
        voices[row["run"]["account"]] = Voice(split.train[0], split.heldout[0], drawn)
    if len(voices) < 2:
        return "", ""
    found = measure_attribution(voices, seed=0)
    return number(found.samples_frac, 1, 100, " %"), number(found.heldout_frac, 1, 100, " %")


def run_of(row: Row) -> Run:
    """Return the run of a row."""
    return Run(**row["run"] | {"words": tuple(row["run"]["words"])})


def posts_table(rows: Rows) -> str:
    """Return what few posts give, from the base and from the crowd."""
    settings, lines = rows.settings("posts"), []
    for num in sorted({row["run"]["num_train"] for own in settings.values() for row in own}):
        plain, warm = (settings.get(f"{num} posts, {base}", []) for base in ("base", "crowd"))
        against = difference(posts_of(warm), posts_of(plain)) if warm and plain else None
        gain = difference(posts_of(plain), base_posts_of(plain)) if plain else None
        lines.append([
            str(num), number(mean(plain, "base")), number(mean(plain, "bits")), write(gain),
            number(mean(warm, "base")), number(mean(warm, "bits")), write(against),
            f"{against.wins} of {against.num}" if against else "",
        ])  # fmt: skip
    heads = ["training posts", "base", "trained from the base", "gain", "crowd", "trained from it",
             "against from the base", "accounts better"]  # fmt: skip
    return markdown(heads, lines) if lines else ""


def memory_table(rows: Rows) -> str:
    """Return what the longest training learns by heart, epoch by epoch."""
    settings = rows.settings("epochs")
    longest = max(settings.values(), key=lambda own: own[0]["figures"]["steps"], default=[])
    lines = []
    for index in range(min((len(row["evals"]) for row in longest), default=0)):
        evals = [(row["evals"][0], row["evals"][index]) for row in longest]
        gaps = [(first["train_bits"] - now["train_bits"]) - (first["bits"] - now["bits"])
                for first, now in evals]  # fmt: skip
        lines.append([
            f"{fmean(now['epoch'] for _, now in evals):.0f}",
            *(number(fmean(now[key] for _, now in evals)) for key in ("bits", "train_bits")),
            number(fmean(gaps)),
            f"{sum(gap > RecipeConfig.max_gap for gap in gaps)} of {len(gaps)}",
            *(number(mean_known([now[key] for _, now in evals]), 1, 100, " %")
              for key in ("extracted", "prefix")),
        ])  # fmt: skip
    heads = ["epoch", "held-out posts", "training posts", "learnt by heart",
             "ended by `stop=memorisation`", "extracted", "completed"]  # fmt: skip
    return markdown(heads, lines) if lines else ""


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def canary_table(rows: Rows) -> str:
    """Return the exposure of each form, by how often it was planted."""
    lines = []
    for name, own in rows.settings("canaries").items():
        for row in own:
            for form in dict.fromkeys(one["form"] for one in row["canaries"]):
                found = {
                    one["copies"]: one["exposure"] for one in row["canaries"] if one["form"] == form
                }
                seen = sum(one["seen"] for one in row["canaries"] if one["form"] == form)
                lines.append([
                    f"{name}: {form}", str(seen), *(number(found[copies], 1) for copies in COPIES)
                ])  # fmt: skip
    heads = ["training, secret", "in training posts"]
    return markdown([*heads, *(f"planted {copies}" for copies in COPIES)], lines) if lines else ""


def account_table(rows: Rows, steps: Sequence[str]) -> str:
    """Return every run of some steps by itself."""
    lines = [
        [
            f"{row['run']['account']}, {name}",
            str(row["run"]["num_train"]),
            number(row["figures"]["tokens_per_byte"], 2),
            number(row["figures"]["base"]),
            number(row["figures"]["bits"]),
            write(difference(posts_of([row]), base_posts_of([row]))),
            number(row["figures"]["tokens"], 0),
            number(row["figures"]["seconds"], 0),
        ]
        for step in steps
        for name, own in rows.settings(step).items()
        for row in own
    ]
    heads = ["account, setting", "posts", "tokens per byte", "base", "trained", "against the base",
             "tokens", "CPU s"]  # fmt: skip
    return markdown(heads, lines) if lines else ""


def report(rows: Rows, workshop: Workshop, design: Design) -> str:
    """Return all tables that have rows, each with its heading."""
    parts = {
        "Choice": choice_table(rows, design.choice),
        "Many posts": account_table(rows, ["many posts"]),
        "Test": test_table(rows, workshop, design.test),
        "Test, account by account": account_table(rows, ["test"]),
        "Memorised": memory_table(rows),
        "Few posts": posts_table(rows),
        "Canaries": canary_table(rows),
        "Languages, tiny": account_table(rows, ["languages", "tiny"]),
    }
    return "\n\n".join(f"### {name}\n\n{text}" for name, text in parts.items() if text)
