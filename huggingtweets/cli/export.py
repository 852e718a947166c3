"""`huggingtweets export`: finished models as files for other programs."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingtweets.cli.base import Commands
from huggingtweets.errors import ConfigError, HuggingtweetsError
from huggingtweets.logs import JOB_FAILED, exit_code_of, say, setup_logging
from huggingtweets.storage.files import read_jsonl
from huggingtweets.storage.places import check_out_file, check_package

if TYPE_CHECKING:
    from huggingtweets.export.finished import Finished

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Describe the command line of `export`."""
    parser = commands.add_parser("export", help="finished models as files for other programs")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    gguf = _add(kinds, "gguf", "one GGUF file each, for llama.cpp and Ollama")
    gguf.add_argument(
        "--type", choices=("f16", "q8_0", "f32"), default="f16", help="of the matrices (f16)"
    )
    adapters = _add(kinds, "adapters", "one folder of all adapters, for vLLM and LoRAX")
    adapters.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder")
    adapters.add_argument("--base", metavar="NAME", help="as the server calls the base")
    for kind in ("csv", "parquet"):
        table = _add(kinds, kind, f"all results, or samples, as {kind}")
        table.add_argument("--to", type=Path, metavar="FILE", help=f"(OUTPUT_DIR/export.{kind})")
        table.add_argument("--samples", action="store_true", help="samples in place of results")
    hub = _add(kinds, "hub", "a repository each, as publish=hub makes; goes on after a kill")
    hub.add_argument("--org", help="user or organisation (the token's owner)")
    hub.add_argument("--public", action="store_true", help="for everybody; else private")
    hub.add_argument("--consent", default="unstated", metavar="GROUND", help="as consent=")


def _add(
    kinds: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, says: str
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=says)
    parser.add_argument("output_dir", type=Path, help="the output_dir of the jobs")
    parser.add_argument(
        "--user", action="append", default=[], metavar="SLUG", help="only this; may be repeated"
    )
    parser.set_defaults(run=_run, what=name)
    return parser


def _run(args: argparse.Namespace) -> int:
    from huggingtweets.export.finished import finished_jobs

    setup_logging()
    jobs = finished_jobs(args.output_dir, args.user)
    match args.what:
        case "gguf":
            return _gguf(args, jobs)
        case "adapters":
            return _adapters(args, jobs)
        case "hub":
            return _hub(args, jobs)
        case _:
            return _table(args, jobs)


def _gguf(args: argparse.Namespace, jobs: "list[Finished]") -> int:
    check_package("export gguf", "gguf", "gguf")
    from transformers.utils import logging as transformers_logging  # heavy

    from huggingtweets.export.gguf_file import Kind, export_gguf

    transformers_logging.disable_progress_bar()

    code = 0
    for job in jobs:
        try:
            path = export_gguf(job, Kind(args.type))
        except HuggingtweetsError as err:
            exit_code_of(err)
            code = JOB_FAILED
            continue
        say(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
        say(f"  ollama create {job.slug} -f {path.with_name(f'Modelfile-{args.type}')}")
    return code


def _adapters(args: argparse.Namespace, jobs: "list[Finished]") -> int:
    from huggingtweets.export.adapters import export_adapters  # heavy

    found = export_adapters(jobs, args.to, base=args.base)
    say(f"{len(found.slugs)} adapters, rank {found.max_rank} at most: {found.folder}")
    if found.is_for_vllm:
        say(found.command)
    else:
        say("vLLM serves no adapters of this family; `huggingtweets serve` does")
    return 0


def _table(args: argparse.Namespace, jobs: "list[Finished]") -> int:
    """Write a row per job, or per sample; rows may differ in their columns."""
    from huggingtweets.publishing.index import flat_result, write_csv, write_parquet

    path = check_out_file("--to", args.to or args.output_dir / f"export.{args.what}")
    if args.samples:
        rows = [row for job in jobs for row in _samples(job)]
    else:
        rows = [flat_result(job.result) for job in jobs]
    if not rows:
        raise ConfigError(
            f"export {args.what}: got no row; expected some; a run with sampling.num=0 has no "
            "samples"
        )
    (write_parquet if args.what == "parquet" else write_csv)(path, rows)
    say(f"{len(rows)} rows: {path}")
    return 0


def _samples(job: "Finished") -> list[dict[str, Any]]:
    """Return a row per sample of a job; none where they are not there, or damaged."""
    path = job.paths.predictions
    try:
        return [
            {"slug": job.slug, "input": row["input"], "prediction": row["prediction"],
             "synthetic": True}
            for row in (read_jsonl(path) if path.is_file() else ())
        ]  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError) as err:
        logger.warning("%s is left out: %s", path, err)
        return []


def _hub(args: argparse.Namespace, jobs: "list[Finished]") -> int:
    from huggingtweets.config.schema import Consent
    from huggingtweets.export.hub import RECORD, export_hub

    if args.consent not in list(Consent):
        raise ConfigError(
            f"--consent: got {args.consent!a}; expected one of {', '.join(Consent)}; choose one"
        )
    found = export_hub(
        jobs,
        args.output_dir / RECORD,
        org=args.org,
        private=not args.public,
        consent=Consent(args.consent),
    )
    for slug, url in found.new:
        say(f"{slug}: {url}")
    for slug, reason in found.failed:
        say(f"{slug}: not published: {reason}")
    say(f"{len(found.new)} published, {found.num_before} before, {len(found.failed)} failed")
    return JOB_FAILED if found.failed else 0
