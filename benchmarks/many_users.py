"""Models of many users, end to end: a process per user, or all in one, one by one or side by side.

    python benchmarks/many_users.py --users 6 --ways trainer fused fused-none
    python benchmarks/many_users.py --users 1 --models random-256x4 --ways trainer single
    python benchmarks/many_users.py --users 8 --models tiny --slots 4 8
    python benchmarks/many_users.py --users 64 --max-steps 0 --models gpt2 --device cuda

Four ways make the same models of the same posts, with the same split, blocks, recipe and samples:

- trainer: a fresh process per user, with transformers.Trainer, as one would script it;
- single: a fresh process per user, our single engine;
- turns: one process, our single engine, one user after another;
- fused-K: one process, K users side by side.

Ours leave everything a user gets by default, judged, with card, picture and report, unless a way
ends in `-none`: publish=none; the trainer draws as many samples and saves. Any ending in `-bf16`
computes in bf16 instead of fp32. A model `random-WIDTHxLAYERS` has random weights and GPT-2's own
vocabulary of 50,257 words, which decides what scoring and sampling cost; `tiny` has 1,024.

The ways take turns every `--group` users,
and the table grows by them; users with fewer than ten posts are left out. Wall time is what a user
waits for; CPU time tells more on a busy machine. The split says where the CPU time went: start-up
is that of a process that imports and does nothing, other what no part claims.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from clock import Clock
from harness import (
    SHARED,
    add_training,
    build_parser,
    find_model,
    markdown,
    read_jobs,
    run_python,
    write_report,
)

MODELS = ("random-128x2", "tiny")
DEMO = ("demo", "captain_biscuit", "gran_turbo", "count_decaf")
PARTS = ("load", "data", "train", "evaluate", "sample", "judge", "texts", "save")
"""Judge is what is still scored after training; texts is what helper processes spend."""
MIN_POSTS = 10
"""Of a user; with fewer, not every way has something to hold out."""


def report(clock: Clock) -> None:
    """Print what the parent reads; training is told without the evaluation within it."""
    seconds = dict(clock.seconds)
    seconds["train"] = seconds.get("train", 0.0) - seconds.get("evaluate", 0.0)
    times = os.times()
    seconds["texts"] = times.children_user + times.children_system
    print("CLOCK " + json.dumps(seconds), flush=True)


def child_ours(arguments: list[str]) -> int:
    """Do what train.py does, with a clock at its parts."""
    from huggingtweets.training import stopping

    stopping.install()
    from huggingtweets.runtime.helper import shared_helpers
    from huggingtweets.train import TEXTS, keep_imports, start_helper

    config, jobs = read_jobs(arguments)
    start_helper(config)
    from huggingtweets.jobs import fused, runner
    from huggingtweets.pipeline import stages as pipeline
    from huggingtweets.pipeline import trained
    from huggingtweets.training.parallel import loop, single
    from huggingtweets.training.stacked import grouped as stacked_grouped
    from huggingtweets.training.stacked import pool as stacked_pool
    from huggingtweets.training.stacked import tuning as stacked_tuning

    clock = Clock()
    for module in (pipeline, fused):
        clock.patch("data", module, "begin_job", "prepare_job")
    clock.patch("load", single, "load_model", "open_base")
    for module in (fused, trained):
        clock.patch("load", module, "open_base")
        clock.patch("sample", module, "sample_together")
    clock.patch("load", runner, "find_base")
    clock.patch("train", single, "fit")
    clock.patch_iterator("train", stacked_pool, "train_stacked")
    clock.patch("evaluate", loop, "evaluate_heldout")
    for held in (stacked_tuning.HeldModels, stacked_grouped.HeldAdapters):
        clock.patch("evaluate", held, "score")
    clock.patch("judge", pipeline, "score_job")
    clock.patch("sample", trained.WholeModel, "sample")
    for kind in (trained.WholeModel, trained.StackedModel):
        clock.patch("save", kind, "save")
    keep_imports()
    code = runner.run_jobs(config, jobs)
    shared_helpers(TEXTS).close()  # only then is its CPU time told
    report(clock)
    return code


def child_trainer(arguments: list[str]) -> int:
    """Train one user with transformers.Trainer, as one would script it."""
    clock = Clock()
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        Trainer,
        TrainingArguments,
    )

    from huggingtweets.bases.tiny import tiny_base
    from huggingtweets.config.plan import make_plan
    from huggingtweets.config.schema import Precision
    from huggingtweets.data.prepare import clean_posts, prepare
    from huggingtweets.data.tokens import codec_of
    from huggingtweets.posts.sources.load import load_timeline

    config, [job] = read_jobs(arguments)
    plan, recipe, sampling = make_plan(config, job), config.recipe, config.sampling

    def load() -> tuple[Any, Any]:
        path = str(tiny_base(config.model)) if config.model.path is None else config.model.path
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(path)

    model, tokenizer = clock.around("load", load)()

    def rows(blocks: Any) -> list[dict[str, Any]]:
        """Blocks with labels as Trainer wants them: it shifts them itself."""
        made = []
        for ids, targets in zip(blocks.input_ids, blocks.targets, strict=True):
            labels = torch.full((len(ids),), -100)
            labels[1:] = torch.from_numpy(targets[:-1]).long()
            made.append({"input_ids": torch.from_numpy(ids).long(), "labels": labels})
        return made

    def read() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        users, reports = clean_posts(
            [load_timeline(plan.config.source, handle) for handle in job.handles],
            plan.config.cleaning,
        )
        prepared = prepare(
            users,
            reports,
            recipe=recipe,
            seed=plan.config.seed,
            codec=codec_of(tokenizer),
        )
        heldout = rows(prepared.heldout.blocks) if prepared.heldout else []
        return rows(prepared.training_set.blocks), heldout

    train_rows, heldout_rows = clock.around("data", read)()
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(plan.paths.root),
            per_device_train_batch_size=recipe.global_batch_size,
            per_device_eval_batch_size=8,
            num_train_epochs=1,  # the blocks of all epochs lie one after another
            max_steps=recipe.max_steps or -1,
            learning_rate=recipe.lr,
            lr_scheduler_type=recipe.schedule.value,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            logging_steps=config.engine.log_every,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=plan.config.seed,
            bf16=config.engine.precision is Precision.bf16,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=train_rows,
        eval_dataset=heldout_rows,
    )
    evaluate = clock.around("evaluate", trainer.evaluate)
    evaluate()
    clock.around("train", trainer.train)()
    clock.seconds["train"] += clock.seconds["evaluate"]  # not within it here
    before = clock.seconds["evaluate"]
    evaluate()
    clock.seconds["train"] += clock.seconds["evaluate"] - before

    def sample() -> list[str]:
        prompts = [prompt for prompt in sampling.prompts for _ in range(sampling.num)]
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
        inputs = tokenizer(prompts, return_tensors="pt", padding=True).to(model.device)
        settings = GenerationConfig(
            do_sample=True,
            top_p=sampling.top_p,
            top_k=0,
            min_new_tokens=sampling.min_new_tokens,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        inputs.pop("token_type_ids", None)
        drawn = model.eval().generate(**inputs, generation_config=settings)
        return list(tokenizer.batch_decode(drawn, skip_special_tokens=True))

    def save(texts: list[str]) -> None:
        trainer.save_model(str(plan.paths.model))
        tokenizer.save_pretrained(plan.paths.model)
        plan.paths.predictions.write_text(json.dumps(texts))

    texts = clock.around("sample", sample)() if sampling.num else []
    clock.around("save", save)(texts)
    report(clock)
    return 0


def run_child(kind: str, arguments: list[str], device: str) -> dict[str, float]:
    """Run a child process and return wall, CPU and the split of the CPU seconds."""
    ended = run_python([__file__, kind, *arguments], device=device)
    [line] = [line for line in ended.printed.splitlines() if line.startswith("CLOCK ")]
    split: dict[str, float] = json.loads(line.removeprefix("CLOCK "))
    return split | {"wall": ended.wall_s, "cpu": ended.cpu_s}


def measure(way: str, handles: list[str], common: list[str], device: str) -> dict[str, float]:
    """Train all users one way; seconds in all."""
    kind, *changes = way.split("-")
    precision = "bf16" if "bf16" in changes else "fp32"
    publish = "none" if "none" in changes else "local"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = [*common, f"engine.precision={precision}", f"publish={publish}"]
        shared += [f"output_dir={folder / 'out'}"]
        users = folder / "users.txt"
        users.write_text("\n".join(handles) + "\n")
        total: Counter[str] = Counter()
        if kind in ("trainer", "single"):
            child = "--child-trainer" if kind == "trainer" else "--child-ours"
            for handle in handles:
                arguments = [f"user='{handle}'", "engine=single", *shared]
                total.update(run_child(child, arguments, device))
        else:
            engine = ["engine=single"]
            if kind == "fused":
                engine = ["engine=fused", f"engine.slots={changes[0]}"]
            arguments = [f"user=file:{users}", *engine, *shared]
            total.update(run_child("--child-ours", arguments, device))
        done = list((folder / "out").glob("*/model/model.safetensors"))
        assert len(done) == len(handles), f"{way}: {len(done)} of {len(handles)} models"
        return dict(total)


def choose_users(num: int, accounts: list[str]) -> tuple[list[str], list[str]]:
    """Return handles, the first ones or those named, and the arguments of their source."""
    place = SHARED / "tweets"
    if not place.is_dir():
        return list(DEMO[:num]), ["source=demo"]
    names = sorted(path.name.removesuffix(".jsonl.gz") for path in place.glob("*.jsonl.gz"))
    return accounts or names[:num], ["source=jsonl", f"source.path={place.resolve()}"]


def count_posts(handle: str, common: list[str]) -> int:
    """Return how many posts of a user are left after cleaning."""
    from huggingtweets.posts.cleaning import clean_timeline
    from huggingtweets.posts.sources.load import load_timeline

    config, _ = read_jobs([f"user='{handle}'", *common])
    return len(clean_timeline(load_timeline(config.source, handle), config.cleaning)[0].posts)


def table(found: dict[str, dict[str, float]], num_users: int) -> str:
    """Return the figures as Markdown."""
    first = next(iter(found.values()))
    turns = found.get("turns", first)
    rows = []
    for way, one in found.items():
        parts = [one.get(part, 0.0) for part in PARTS]
        other = max(0.0, one["cpu"] - sum(parts) - one["startup"])
        rows.append([
            way, f"{one['wall']:.1f}", f"{num_users / one['wall'] * 3600:.0f}",
            f"{first['wall'] / one['wall']:.2f}x (CPU {first['cpu'] / one['cpu']:.2f}x)",
            *(f"{seconds:.1f}" for seconds in (one["cpu"], one["startup"], *parts, other)),
            f"{turns['train'] / one['train']:.2f}x",
        ])  # fmt: skip
    head = ["way", "wall s", "users/hour", "end to end", "CPU s", "start-up", *PARTS, "other",
            "training"]  # fmt: skip
    return markdown(head, rows)


def startup_cpu(kind: str, device: str) -> float:
    """CPU seconds of a child that only imports what it needs."""
    modules = {
        "--child-trainer": "from transformers import Trainer, AutoModelForCausalLM",
        "--child-ours": "import huggingtweets.jobs.runner",
    }
    return run_python(["-c", modules[kind]], device=device).cpu_s


def main() -> None:
    """Measure and print."""
    parser = build_parser(__doc__)
    add_training(parser)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--accounts", nargs="+", default=[], help="of the shared posts")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--slots", type=int, nargs="+", default=[8])
    parser.add_argument("--ways", nargs="+", default=["trainer", "fused", "fused-none"])
    parser.add_argument("--max-steps", type=int, default=0, help="0: one epoch")
    parser.add_argument("--group", type=int, default=16, help="users before the next way's turn")
    args = parser.parse_args()
    found, tables = {}, []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}:", file=sys.stderr)
            found[name], text = compare(name, args, Path(folder))
            tables.append(f"{name}:\n\n{text}")
    write_report(args.out, "\n\n".join(tables), models=found)


def compare(name: str, args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], str]:
    """Measure all ways of the arguments with a base, for which there is a place.

    Returns:
        The figures, and their table; it is also printed as it grows.
    """
    handles, source = choose_users(args.users, args.accounts)
    model = [f"model={name}"]
    if name.startswith("random-"):
        model = [f"model.path={find_model(name, folder / 'base', 1024)}"]
    common = [
        *source,
        *model,
        "recipe=huggingtweets",
        "recipe.epochs=1",
        "recipe.block_size=128",
        f"recipe.max_steps={args.max_steps}",
        "sampling.num=2",
        "sampling.max_new_tokens=60",
        "tracking=none",
        "cleaning.min_chars=0",
        "consent=public-figure-research",
        *args.overrides,
    ]
    common += [word for word in args.ways if "=" in word]  # `--ways a b key=value` takes them all
    posts = {handle: count_posts(handle, common) for handle in handles}
    handles = [handle for handle in handles if posts[handle] >= MIN_POSTS]
    if left_out := sorted(set(posts) - set(handles)):
        print(f"fewer than {MIN_POSTS} posts: {', '.join(left_out)}", file=sys.stderr)
    ways = []
    for way in (word for word in args.ways if "=" not in word):
        kind, *changes = way.split("-")
        names = [f"fused-{slots}" for slots in args.slots] if kind == "fused" else [kind]
        ways += ["-".join([each, *changes]) for each in names]
    groups = [handles[start : start + args.group] for start in range(0, len(handles), args.group)]
    found: dict[str, Counter[str]] = {way: Counter() for way in ways}
    load = []
    num_done, text = 0, ""
    for group in groups:
        for way in ways:
            load.append(os.getloadavg()[0])
            one = measure(way, group, common, args.device)
            is_trainer, is_each = way.startswith("trainer"), way.startswith(("trainer", "single"))
            kind = "--child-trainer" if is_trainer else "--child-ours"
            num = len(group) if is_each else 1
            found[way].update(one | {"startup": num * startup_cpu(kind, args.device)})
            print(way, json.dumps({key: round(s, 2) for key, s in one.items()}), file=sys.stderr)
        num_done += len(group)
        text = table({way: dict(one) for way, one in found.items()}, num_done)
        print(f"{text}\n\n{name}, {num_done} users, in turns of {args.group}; ", end="")
        print(f"load {min(load):.1f} to {max(load):.1f}, {os.cpu_count()} cores\n", flush=True)
    return {"ways": found, "load_average": load}, text


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child-ours"]:
        sys.exit(child_ours(sys.argv[2:]))
    if sys.argv[1:2] == ["--child-trainer"]:
        sys.exit(child_trainer(sys.argv[2:]))
    main()
