"""Compare recipes on real accounts: held-out bits per byte, copying, attribution, time.

    python benchmarks/quality.py choose     # variants of recipe=tweets, on four accounts
    python benchmarks/quality.py compare    # the original and ours, on twelve
    python benchmarks/quality.py compare --samples 200 --lr-scale 30 --rows high.jsonl
    python benchmarks/quality.py real       # on a real base: see quality_real/main.py

For all but `real` the base is the small GPT-2 of `quality_base.py`. A narrow model wants a higher
learning rate than a wide one, in inverse proportion to the width: every `recipe.lr` is raised by
`--lr-scale`.

Short phrases stand in samples and posts alike without having been copied. So samples are also held
against as many older posts of the same account that no model has seen (where it has as many): the
excess of what they share with the training posts is what was memorised.
"""

import argparse
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import quality_real.main
from accelerate import Accelerator
from harness import markdown
from quality_base import CHOICE_ACCOUNTS, TEST_ACCOUNTS, quality_base, read_timeline, unlike
from transformers import PreTrainedModel

from huggingtweets.bases.model import Base, find_base, trained_model
from huggingtweets.config.compose import read_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.schema import ModelConfig
from huggingtweets.data.prepare import Prepared, choose_known, clean_posts, prepare
from huggingtweets.evaluation.attribution import Voice, measure_attribution
from huggingtweets.evaluation.figures import TextQuality, evaluate_text, model_quality
from huggingtweets.evaluation.memorisation import measure_memorisation
from huggingtweets.evaluation.score import score_posts
from huggingtweets.generation.guards import build_guards
from huggingtweets.generation.sample import sample_posts
from huggingtweets.handles import Job
from huggingtweets.pipeline.outcome import kept_and_base_loss
from huggingtweets.storage.lock import acquire_lock
from huggingtweets.training.launch import build_accelerator
from huggingtweets.training.parallel.single import train_single
from huggingtweets.training.progress import Training, training_job
from huggingtweets.training.records import Scores, TrainResult

logger = logging.getLogger("quality")

COMPARED = {
    "huggingtweets": ["recipe=huggingtweets", "sampling=huggingtweets"],
    "tweets": ["recipe=tweets"],
    "tweets, copies let pass": ["recipe=tweets", "sampling.block_copies=0"],
}
CHOICES = {
    "huggingtweets": ["recipe=huggingtweets"],
    "batch 8": ["recipe.global_batch_size=8"],
    "batch 4": ["recipe.global_batch_size=4"],
    "batch 4, joined": ["recipe.global_batch_size=4", "recipe.isolate_documents=false"],
    "batch 2": ["recipe.global_batch_size=2"],
    "batch 4, double lr": ["recipe.global_batch_size=4", "recipe.lr=2.744e-4"],
    "batch 4, 8 epochs": ["recipe.epochs=8"],
    "batch 4, no dropout": ["recipe.dropout=0"],
    "tweets": ["recipe=tweets"],
    "dropout 0.2": ["recipe.dropout=0.2"],
    "dropout 0.3": ["recipe.dropout=0.3"],
    "2 epochs": ["recipe.epochs=2"],
    "3 epochs": ["recipe.epochs=3"],
    "2 epochs, 2 blocks": ["recipe.epochs=2", "recipe.global_batch_size=2"],
    "2 epochs, double lr": ["recipe.epochs=2", "recipe.lr=2.744e-4"],
    "3 epochs, 2 blocks": ["recipe.epochs=3", "recipe.global_batch_size=2"],
}  # fmt: skip
COLUMNS = (
    "bits/byte", "base", "training posts", "equal", "copied", "held-out copied", "4-8-grams",
    "unseen 4-8-grams", "excess",
    "held-out 4-8-grams", "longest run", "extracted", "prefix out", "attributed",
    "held-out attributed", "distinct-2", "human distinct-2", "tokens", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """One account after training by one recipe."""

    prepared: Prepared
    result: TrainResult
    model: PreTrainedModel
    continuations: tuple[str, ...]
    figures: Mapping[str, float]


def plan_of(
    account: str, overrides: Sequence[str], base: Path, lr_scale: float, output_dir: str = "unused"
) -> Plan:
    """Compose the plan of one account."""
    words = [f"user={account}", f"model.path={base}", "engine.save_every_s=1e9", *overrides]
    config = read_config(words)
    recipe = replace(config.recipe, lr=config.recipe.lr * lr_scale)
    config = replace(config, recipe=recipe, output_dir=output_dir)
    return make_plan(config, Job((account.lower(),)))


def train(
    account: str, plan: Plan, base: Base, accelerator: Accelerator, shared: Path, max_posts: int
) -> Trained:
    """Train and measure one account."""
    [everything], reports = clean_posts([read_timeline(shared, account)], plan.config.cleaning)
    users = [replace(everything, posts=everything.posts[:max_posts])]
    prepared = prepare(
        users,
        reports,
        recipe=plan.config.recipe,
        seed=plan.config.seed,
        codec=base.codec,
    )
    start = time.process_time()
    with acquire_lock(plan.paths.root) as lock:
        training = Training(training_job(plan, prepared))
        result, weights = train_single(accelerator, base, training, plan, lock)
    model = trained_model(base, plan.config.recipe, weights)
    seconds = time.process_time() - start
    posts, heldout = prepared.split.train[0], prepared.split.heldout[0]
    sampled = sample_posts(
        model,
        base.codec,
        plan.sampling,
        build_guards(plan.sampling, mask_pii=plan.config.cleaning.mask_pii, train=posts),
        max_positions=base.max_positions,
        seed=plan.config.seed,
    )
    samples = [(one.input, one.prediction) for one in sampled.predictions]
    text, _ = evaluate_text(samples, train=posts, heldout=heldout, seed=plan.config.seed)
    known = choose_known(posts, seed=plan.config.seed)
    scores = score_posts(model, base.codec, known, max_positions=base.max_positions)
    quality = model_quality(Scores((), scores), seed=plan.config.seed)
    unseen = unlike([post.text for post in everything.posts[max_posts:]], posts)
    assert text is not None
    assert quality.extraction is not None
    assert quality.train_bits_per_byte is not None
    figures = figures_of(result, text) | {
        "training posts": quality.train_bits_per_byte,
        "extracted": quality.extraction.verbatim_frac,
        "prefix out": quality.extraction.prefix_frac,
        "seconds": seconds,
    }
    continuations = tuple(whole.removeprefix(prompt).strip() for prompt, whole in samples)
    if len(unseen) >= len(posts):
        copying, _ = measure_memorisation([whole for _, whole in samples], unseen[: len(posts)], ())
        figures["unseen 4-8-grams"] = copying.samples.mean_ngram_frac
        figures["excess"] = figures["4-8-grams"] - copying.samples.mean_ngram_frac
    return Trained(prepared, result, model, continuations, figures)


def figures_of(result: TrainResult, text: TextQuality) -> dict[str, float]:
    """Return the figures that need no other account."""
    kept, before = kept_and_base_loss(result)
    assert kept is not None
    assert before is not None
    copying, human = text.memorisation.samples, text.memorisation.heldout
    assert human is not None
    return {
        "bits/byte": kept.bits_per_byte,
        "base": before.bits_per_byte,
        "equal": copying.equal_frac,
        "copied": copying.copied_frac,
        "held-out copied": human.copied_frac,
        "4-8-grams": copying.mean_ngram_frac,
        "held-out 4-8-grams": human.mean_ngram_frac,
        "longest run": copying.mean_run,
        "distinct-2": text.diversity.samples.distinct[1],
        "human distinct-2": text.diversity.humans.distinct[1],
        "tokens": result.tokens,
    }


def count_own_wins(trained: Mapping[str, Trained], base: Base) -> tuple[int, int]:
    """Count pairs (A, B) in which A's model scores A's held-out posts better than B's does."""
    wins = pairs = 0
    for account, own in trained.items():
        heldout = own.prepared.split.heldout[0]
        nats = {
            other: math.fsum(
                score.nats
                for score in score_posts(
                    one.model,
                    base.codec,
                    heldout,
                    max_positions=base.max_positions,
                )
            )
            for other, one in trained.items()
        }
        wins += sum(nats[account] < nats[other] for other in trained if other != account)
        pairs += len(trained) - 1
    return wins, pairs


def run_variant(
    name: str, overrides: Sequence[str], accounts: Sequence[str], options: argparse.Namespace
) -> dict[str, object]:
    """Train all accounts by one recipe and return its row and every account's figures."""
    folder = quality_base(options.shared)
    accelerator = build_accelerator(plan_of("a", overrides, folder, 1).config.engine.precision)
    trained: dict[str, Trained] = {}
    base = find_base(ModelConfig(path=str(folder)))
    for account in accounts:
        with tempfile.TemporaryDirectory() as output_dir:
            words = [*overrides, f"sampling.num={options.samples}"]
            plan = plan_of(account, words, folder, options.lr_scale, output_dir)
            trained[account] = train(
                account, plan, base, accelerator, options.shared, options.max_posts
            )
        logger.info("%s %s %s", name, account, dict(trained[account].figures))
    voices = {
        account: Voice(
            one.prepared.split.train[0], one.prepared.split.heldout[0], one.continuations
        )
        for account, one in trained.items()
    }
    attribution = measure_attribution(voices, seed=0)
    mean = {}
    for key in {key for one in trained.values() for key in one.figures}:  # not all have all
        values = [one.figures[key] for one in trained.values() if key in one.figures]
        mean[key] = math.fsum(values) / len(values)
    shares = {
        "attributed": attribution.samples_frac,
        "held-out attributed": attribution.heldout_frac,
    }
    mean |= {key: share for key, share in shares.items() if share is not None}
    wins, pairs = count_own_wins(trained, base)
    below = sum(one.figures["bits/byte"] < one.figures["base"] for one in trained.values())
    return {
        "name": name,
        "overrides": list(overrides),
        "mean": mean,
        "own_wins": [wins, pairs],
        "below_base": [below, len(trained)],
        "accounts": {account: dict(one.figures) for account, one in trained.items()},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = []
    for row in rows:
        cells = [_cell(column, row["mean"].get(column)) for column in COLUMNS]
        counts = ["{} of {}".format(*row[key]) for key in ("own_wins", "below_base")]
        lines.append([row["name"], *cells, *counts])
    return markdown(["recipe", *COLUMNS, "own model wins", "below base"], lines)


def _cell(column: str, value: float | None) -> str:
    if value is None:  # no account has as many older posts
        return ""
    if column in ("tokens", "seconds"):
        return f"{value:,.0f}"
    if column in ("copied", "4-8-grams", "unseen 4-8-grams", "excess"):
        return f"{100 * value:.3f} %"
    if column == "longest run":
        return f"{value:.2f}"
    is_share = column not in ("bits/byte", "base", "training posts")
    return f"{100 * value:.1f} %" if is_share else f"{value:.3f}"


def main() -> None:
    """Run what was asked for; finished rows of an earlier run are kept."""
    if sys.argv[1:2] == ["real"]:
        return quality_real.main.main(sys.argv[2:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("choose", "compare", "real"))
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--rows", type=Path, default=Path("quality-rows.jsonl"))
    parser.add_argument("--max-posts", type=int, default=400, help="newest kept posts per account")
    parser.add_argument("--samples", type=int, default=60, help="a prompt, of which there are 5")
    parser.add_argument("--lr-scale", type=float, default=6.0)
    parser.add_argument("--only", nargs="*", default=None, help="names of variants")
    options = parser.parse_args()
    is_choice = options.what == "choose"
    variants = CHOICES if is_choice else COMPARED
    accounts = CHOICE_ACCOUNTS if is_choice else TEST_ACCOUNTS
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for name, overrides in variants.items():
        done = {row["name"] for row in rows}
        if name in done or (options.only is not None and name not in options.only):
            continue
        rows.append(run_variant(name, overrides, accounts, options))
        options.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
