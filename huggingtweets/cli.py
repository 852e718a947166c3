"""The `huggingtweets` command. A subcommand is one `_add_...` function, which names what runs."""

import argparse
import difflib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from huggingtweets import attempt
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.logs import exit_code_of, setup_logging

if TYPE_CHECKING:
    from rich.console import RenderableType

    from huggingtweets.config.schema import SamplingConfig
    from huggingtweets.evaluation.quality import Quality

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What argparse returns for subcommands; it has no public name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parse(argv)
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except HuggingtweetsError as err:
        return exit_code_of(err)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "huggingtweets", description="Look after models trained with train.py."
    )
    parser.set_defaults(takes_more=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    if argv and not argv[0].startswith("-") and argv[0] not in commands.choices:
        near = difflib.get_close_matches(argv[0], commands.choices, n=1)
        raise ConfigError(
            f"command: got {argv[0]!r}; expected one of {', '.join(commands.choices)}"
            + (f"; did you mean {near[0]}?" if near else "; see huggingtweets --help")
        )
    args, rest = parser.parse_known_args(argv)
    if rest and (not args.takes_more or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.more = rest
    return args


def _add_purge(commands: Commands) -> None:
    parser = commands.add_parser("purge", help="forget a person: posts, models, all traces")
    parser.add_argument("handle", metavar="HANDLE", help="the person")
    parser.add_argument(
        "--outputs", type=Path, required=True, metavar="DIR", help="output_dir of the jobs"
    )
    parser.add_argument("--posts", type=Path, metavar="DIR", help="also in this folder of posts")
    parser.add_argument("--wandb", action="store_true", help="also runs and artifacts at W&B")
    parser.add_argument("--hub", action="store_true", help="also the repositories on the Hub")
    parser.add_argument("--yes", action="store_true", help="delete; without it, only show what")
    parser.set_defaults(run=_run_purge)


def _run_purge(args: argparse.Namespace) -> int:
    from huggingtweets.handles import Job, parse_handle
    from huggingtweets.jobs.purge import plan_purge, purge
    from huggingtweets.jobs.traces import traces_lines
    from huggingtweets.publishing.unpublish import delete_repositories
    from huggingtweets.tracking.wandb_purge import delete_online
    from huggingtweets.tweets.asking import ask_yes, is_somebody_there

    handle = parse_handle(args.handle)
    traces = plan_purge(handle, args.outputs, args.posts)
    online = {(*job.tracking, job.org, job.slug) for job in traces.jobs}
    online = online or {(None, "huggingtweets", None, Job.of([handle]).slug)}
    print("\n".join([f"@{handle}: to be deleted", *traces_lines(traces)]))
    for is_wanted, place in ((args.wandb, "W&B"), (args.hub, "Hub")):
        if is_wanted:
            print("\n".join(f"  {place:7} {slug}" for *_, slug in sorted(online, key=str)))
    if traces.is_empty and not (args.wandb or args.hub):
        print("  nothing found")
        return 0
    if not args.yes and not (is_somebody_there() and ask_yes("Delete all this for good?")):
        print("nothing was deleted; the same command with --yes does it")
        return 0
    num_online = 0
    if args.hub:
        num_online += len(delete_repositories([(org, slug) for *_, org, slug in online]))
    if args.wandb:
        num_online += delete_online(
            [(entity, project, slug) for entity, project, _, slug in online]
        )
    print(f"deleted; recorded without names in {purge(traces, num_online=num_online)}")
    print(f"`huggingtweets optout {handle}` keeps it so")
    return 0


def _add_status(commands: Commands) -> None:
    parser = commands.add_parser("status", help="how the jobs of an output folder stand")
    parser.add_argument("output_dir", type=Path, help="what train.py was given as output_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.add_argument("--watch", action="store_true", help="show it again until all is done")
    parser.add_argument(
        "--index", action="store_true", help="also write index.html and results.parquet anew"
    )
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="how often --watch looks (5)"
    )
    parser.set_defaults(run=_run_status)


def _run_status(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.ledger import JobStatus
    from huggingtweets.jobs.status import as_json, read_states, summarise
    from huggingtweets.jobs.status_table import build_status

    folder: Path = args.output_dir
    if not folder.is_dir():
        raise ConfigError(
            f"status: got {folder}, which is no folder; expected the output_dir of a run; "
            "check the path"
        )
    if args.index:
        from huggingtweets.publishing.index import write_index

        write_index(folder)
    while True:
        states = read_states(folder)
        if args.json:
            print(json.dumps(as_json(states)), flush=True)
        else:
            _show(build_status(folder, states), clear=args.watch)
        counts = summarise(states.values()).counts
        if not args.watch or not (counts[JobStatus.queued] or counts[JobStatus.running]):
            return 0
        time.sleep(max(0.1, args.every))


def _show(view: "RenderableType", *, clear: bool = False) -> None:
    """Print for people: coloured on a terminal, plain and wide elsewhere."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    if clear and console.is_terminal:
        console.clear()
    console.print(view)


def _add_submit(commands: Commands) -> None:
    parser = commands.add_parser("submit", help="train many people as a SLURM array")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as given to train.py")
    parser.add_argument(
        "--tasks", type=int, metavar="N", help="of the array (by the work: an hour)"
    )
    parser.add_argument("--at-once", type=int, metavar="N", help="most tasks at the same time")
    parser.add_argument("--gpus-per-node", type=int, metavar="N", help="of each task (1)")
    parser.add_argument("--nodes", type=int, metavar="N", help="no array: all nodes share each job")
    parser.add_argument("--launch", type=Path, metavar="FILE", help="of launch/, for --nodes")
    parser.add_argument("--time", help="limit of a task, as for sbatch")
    parser.add_argument("--partition", help="as for sbatch")
    parser.add_argument("--sbatch", action="append", default=[], metavar="OPTION",
                        help="any other, as --sbatch=--account=lab; may be repeated")  # fmt: skip
    parser.add_argument("--no-retry", action="store_true",
                        help="no last job that tries again what a rerun may cure")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only show the commands")
    parser.set_defaults(run=_run_submit, takes_more=True)


def _run_submit(args: argparse.Namespace) -> int:
    from huggingtweets.jobs.submit import Wishes, plan_submission, submit

    setup_logging()
    named = {"--time": args.time, "--partition": args.partition}
    options = [f"{name}={value}" for name, value in named.items() if value] + args.sbatch
    wishes = Wishes(
        tasks=args.tasks,
        at_once=args.at_once,
        gpus_per_node=args.gpus_per_node,
        nodes=args.nodes,
        launch=args.launch,
        options=options,
        retry=not args.no_retry,
    )
    submission = plan_submission([*args.overrides, *args.more], wishes)
    print(f"jobs    {submission.size}")
    for hint in submission.hints:
        print(f"note    {hint}")
    if args.dry_run:
        print("\n".join(submission.shown()))
        return 0
    numbers = submit(submission)
    print(f"queued  {', then '.join(numbers)}")
    print(f"logs    {submission.logs}")
    print(f"follow  huggingtweets status {submission.output_dir} --watch; squeue -j {numbers[0]}")
    return 0


def _add_prefetch(commands: Commands) -> None:
    parser = commands.add_parser("prefetch", help="fetch the base model, for nodes without network")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="model=... or model.path="
    )
    parser.set_defaults(run=_run_prefetch)


def _run_prefetch(args: argparse.Namespace) -> int:
    from huggingtweets.config.compose import compose_config, register, to_config
    from huggingtweets.jobs.prefetch import prefetch
    from huggingtweets.jobs.selection import quote_user

    setup_logging()
    register()
    config = to_config(compose_config(quote_user(args.overrides)))
    print(f"{config.model.path or 'tiny'}: {prefetch(config.model)}")
    print("with HF_HUB_OFFLINE=1 it is trained without a network; `huggingtweets submit` sets it")
    return 0


def _add_doctor(commands: Commands) -> None:
    parser = commands.add_parser("doctor", help="what this machine has, and what it lacks")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(args: argparse.Namespace) -> int:
    from huggingtweets.doctor import build_findings, examine

    findings = examine()
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        _show(build_findings(findings))
    return 1 if any(finding.is_fatal for finding in findings) else 0


def _add_import(commands: Commands) -> None:
    parser = commands.add_parser("import", help="keep people's posts in a folder, newer ones added")
    parser.add_argument("source", help="as in source=: bluesky, mastodon, x_api, x_archive, ...")
    parser.add_argument(
        "handles", nargs="+", metavar="HANDLE", help="people; also overrides, as source.path=FILE"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="one file a person")
    # argparse takes no further words after an option; people write overrides last.
    parser.set_defaults(run=_run_import, takes_more=True)


def _run_import(args: argparse.Namespace) -> int:
    from huggingtweets.config.compose import compose_config, register, to_config
    from huggingtweets.handles import parse_handle
    from huggingtweets.jobs.import_posts import import_posts
    from huggingtweets.tweets.sources.load import check_source

    setup_logging()
    register()
    words = [*args.handles, *args.more]
    overrides = [word for word in words if "=" in word]
    handles = [parse_handle(word) for word in words if "=" not in word]
    config = to_config(compose_config([f"source={args.source}", *overrides]))
    check_source(config.source)
    codes = [0]
    for handle in dict.fromkeys(handles):
        try:
            done = import_posts(config.source, handle, args.to, optout_file=config.optout_file)
        except HuggingtweetsError as err:
            codes.append(exit_code_of(err))
            continue
        for note in done.notes:
            print(f"  {note}")
        print(f"@{handle}: {done.num_new} new posts, {done.num_before} before: {done.path}")
    return max(codes)


def _add_check(commands: Commands) -> None:
    parser = commands.add_parser("check", help="what a training would be like, before it starts")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as given to train.py")
    parser.set_defaults(run=_run_check)


def _run_check(args: argparse.Namespace) -> int:
    from huggingtweets.config.compose import compose_config, register, to_config
    from huggingtweets.config.plan import make_plan
    from huggingtweets.jobs.check import check_job, describe
    from huggingtweets.jobs.selection import quote_user, select_jobs
    from huggingtweets.tweets.sources.load import check_source

    setup_logging()
    register()
    config = to_config(compose_config(quote_user(args.overrides)))
    check_source(config.source)
    codes = [0]
    for job in select_jobs(config.user, config.shard, config.job_index, config.source):
        try:
            make_plan(config, job)
            check = check_job(config, job)
        except HuggingtweetsError as err:
            codes.append(exit_code_of(err))
            continue
        print("\n".join(describe(check)), flush=True)
        codes.append(1 if check.problem else 0)
    return max(codes)


def _add_optout(commands: Commands) -> None:
    parser = commands.add_parser("optout", help="put people on the list of those without a model")
    parser.add_argument("handles", nargs="+", metavar="HANDLE", help="people")
    parser.add_argument("--file", metavar="PATH", help="the list; as optout_file= of train.py")
    parser.set_defaults(run=_run_optout)


def _run_optout(args: argparse.Namespace) -> int:
    from huggingtweets.handles import parse_handle
    from huggingtweets.tweets.optout import add_optout

    for handle in map(parse_handle, args.handles):
        print(f"@{handle} is on the list: {add_optout(handle, args.file)}")
    return 0


def _add_generate(commands: Commands) -> None:
    parser = commands.add_parser("generate", help="write posts with a trained model")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("prompts", nargs="*", help="how posts begin (those of sampling=default)")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a post")
    parser.set_defaults(run=_run_generate)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--num", type=int, default=10, help="posts a prompt (10)")
    parser.add_argument("--seed", type=int, default=42, help="the same seed, the same posts (42)")
    parser.add_argument("--temperature", type=float, default=1.0, help="above 1: wilder (1.0)")
    parser.add_argument("--top-p", type=float, default=0.95, help="share of likely words (0.95)")
    parser.add_argument("--max-chars", type=int, default=280, help="of a post; 0: any (280)")
    parser.add_argument("--block-copies", type=int, metavar="WORDS",
                        help="draw again what copies more training words in a row (generate: 4, "
                             "if the training posts are there; 0: never)")  # fmt: skip
    parser.add_argument("--ban", action="append", default=[], metavar="WORD",
                        help="draw again what has this word; may be repeated")  # fmt: skip
    parser.add_argument("--best-of", type=int, default=1, help="keep the likeliest of so many (1)")


def _sampling_of(args: argparse.Namespace, prompts: Sequence[str]) -> "SamplingConfig":
    from huggingtweets.config.schema import DEFAULT_PROMPTS, SamplingConfig

    try:
        return SamplingConfig(
            num=args.num,
            prompts=list(prompts or DEFAULT_PROMPTS),
            temperature=args.temperature,
            top_p=args.top_p,
            max_chars=args.max_chars,
            block_copies=args.block_copies or 0,
            banned_words=args.ban,
            best_of=args.best_of,
        )
    except ValueError as err:
        raise ConfigError(str(err)) from err


def _run_generate(args: argparse.Namespace) -> int:
    config = _sampling_of(args, args.prompts)
    from huggingtweets.model_folder import generate_posts  # heavy: only for arguments that hold

    samples = generate_posts(
        args.model_dir, config, seed=args.seed, is_guarded=args.block_copies is None
    )
    for one in samples.predictions:
        print(json.dumps(asdict(one)) if args.json else one.prediction)
    if samples.refused:
        print(f"drawn again: {samples.refusals}", file=sys.stderr)
    return 0


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser("evaluate", help="measure a trained model on posts it never saw")
    parser.add_argument("model_dir", type=Path, help="a model folder, or its job's folder")
    parser.add_argument("--posts", type=Path, required=True, help="a file of posts")
    parser.add_argument("--user", help="whose posts of the file (default: the file's name)")
    _add_sampling(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> int:
    config = _sampling_of(args, ())
    from huggingtweets.model_folder import evaluate_folder

    user = args.user or args.posts.name.partition(".")[0]
    found = evaluate_folder(args.model_dir, args.posts, user=user, config=config, seed=args.seed)
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    interval = found.quality.model.bits_per_byte
    assert interval is not None
    print(
        f"{found.num_posts} posts, {found.num_trained} more were trained on; bits per byte "
        f"{found.bits_per_byte:.3f} ({interval.low:.3f} to {interval.high:.3f})"
    )
    _show_tables(found.quality)
    return 0


def _show_tables(quality: "Quality") -> None:
    from rich.table import Table

    from huggingtweets.publishing.quality import quality_tables

    for table in quality_tables(quality, {}):
        shown = Table(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        _show(shown)


def _add_attribute(commands: Commands) -> None:
    parser = commands.add_parser("attribute", help="whether the models of a batch keep their voice")
    parser.add_argument("output_dir", type=Path, help="what train.py was given as output_dir")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    parser.set_defaults(run=_run_attribute)


def _run_attribute(args: argparse.Namespace) -> int:
    from huggingtweets.evaluation.attribution import measure_attribution, read_voices

    found = measure_attribution(read_voices(args.output_dir), seed=0)
    if args.json:
        print(json.dumps(asdict(found)))
        return 0
    for slug, (samples, heldout) in found.per_voice.items():
        print(f"{slug}: {samples:.1%} of its samples, {heldout:.1%} of the held-out posts")
    print(
        f"all: {found.samples_frac:.1%} of the samples, {found.heldout_frac:.1%} of the held-out "
        f"posts are attributed to their own voice; by chance {found.chance:.1%}"
    )
    return 0


def _add_sweep(commands: Commands) -> None:
    parser = commands.add_parser(
        "sweep", help="search hyperparameters; `sweep status DIR` looks on"
    )
    parser.add_argument("file", metavar="FILE", help="a sweep file, or `status`")
    parser.add_argument(
        "arguments", nargs="*", metavar="KEY=VALUE",
        help="as given to train.py; sweep.KEY=VALUE changes the file's own settings; or DIR",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="of `status`: one JSON object")
    parser.set_defaults(run=_run_sweep)


def _run_sweep(args: argparse.Namespace) -> int:
    if args.file == "status":
        return _run_sweep_status(args)
    try:
        code = _search(args)
    except HuggingtweetsError as err:
        code = exit_code_of(err)
    return attempt.tell_exit(code)


def _search(args: argparse.Namespace) -> int:
    from huggingtweets.training import stopping

    stopping.install()
    attempt.watch(stopping.request_stop)
    from huggingtweets.config.compose import register
    from huggingtweets.sweep.plan import check_alone, check_installed, plan_sweep
    from huggingtweets.sweep.spec import read_spec

    check_installed()
    setup_logging()
    register()
    path = Path(args.file)
    check_alone(args.file, args.arguments)
    sweep = plan_sweep(read_spec(path, args.arguments), path)
    from huggingtweets.sweep.run import run_sweep  # heavy: only for a sweep that is accepted

    code = run_sweep(sweep)
    _print_sweep(sweep.root)
    return code


def _run_sweep_status(args: argparse.Namespace) -> int:
    from huggingtweets.sweep.plan import check_installed

    check_installed()
    if len(args.arguments) != 1:
        raise ConfigError(
            f"sweep status: got {len(args.arguments)} folders; expected one; write "
            "`huggingtweets sweep status DIR`"
        )
    _print_sweep(Path(args.arguments[0]), as_json=args.json)
    return 0


def _print_sweep(folder: Path, *, as_json: bool = False) -> None:
    from huggingtweets.sweep.status import build_sweep_status, read_sweep, sweep_as_json

    description, summary = read_sweep(folder)
    if as_json:
        print(json.dumps(sweep_as_json(folder, description, summary)))
    else:
        _show(build_sweep_status(folder, description, summary))


_COMMANDS: tuple[Callable[[Commands], None], ...] = (
    _add_import,
    _add_check,
    _add_optout,
    _add_purge,
    _add_status,
    _add_sweep,
    _add_submit,
    _add_prefetch,
    _add_doctor,
    _add_generate,
    _add_evaluate,
    _add_attribute,
)


if __name__ == "__main__":
    sys.exit(main())
