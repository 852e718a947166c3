"""A finished model folder in use: write posts with it, and measure it on any posts."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from huggingtweets.bases.model import Base, find_base, load_model
from huggingtweets.config.compose import load_config
from huggingtweets.config.posts_schema import CleaningConfig, SourceConfig
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import ModelConfig, RecipeConfig, TrainConfig
from huggingtweets.data.duplicates import normalise
from huggingtweets.data.prepare import choose_known, long_post
from huggingtweets.data.replay import read_learnt
from huggingtweets.data.tokens import Codec
from huggingtweets.errors import ConfigError, DataError, HuggingtweetsError
from huggingtweets.evaluation.figures import (
    Quality,
    bits_per_byte,
    evaluate_text,
    model_quality,
)
from huggingtweets.evaluation.score import score_posts
from huggingtweets.generation.guards import build_guards
from huggingtweets.generation.sample import sample_posts
from huggingtweets.generation.samples import Samples
from huggingtweets.handles import parse_handle
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.optout import check_opted_out
from huggingtweets.posts.sources.load import SUFFIXES, load_timeline
from huggingtweets.runtime.device import has_cuda
from huggingtweets.storage.files import read_json
from huggingtweets.storage.paths import JobPaths
from huggingtweets.storage.places import find_model_dir
from huggingtweets.training.records import Scores


@dataclass(frozen=True)
class FolderQuality:
    """A model folder measured on posts that it was not trained on."""

    num_posts: int
    """Posts measured on."""
    num_trained: int
    """Posts left out because they were trained on."""
    bits_per_byte: float
    quality: Quality
    """Copying and extraction are 0 where the training posts are not at hand."""


def open_folder(folder: Path) -> tuple[Base, PreTrainedModel]:
    """Load a model folder to the best device there is.

    Raises:
        ConfigError: there is no model.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    base = find_base(ModelConfig(path=str(folder)))
    model = load_model(base, RecipeConfig()).eval()
    if has_cuda():
        model = model.to("cuda")
    return base, model


def job_around(folder: Path) -> JobPaths | None:
    """Return the files of the job that a model folder belongs to, if it stands in one."""
    return JobPaths(folder.parent) if folder.name == "model" else None


def generate_posts(
    folder: Path, config: SamplingConfig, *, seed: int, is_guarded: bool = False
) -> Samples:
    """Sample posts, masked; copies can be blocked only where the job's training posts lie around.

    Args:
        folder: of a model, or the job's around it.
        config: how to sample.
        seed: of the sampling.
        is_guarded: block copies as the job does, where its training posts are there.

    Raises:
        ConfigError: there is no model, or `block_copies` is asked for without training posts.
    """
    folder = find_model_dir(folder)
    job = job_around(folder)
    train = train_posts(job)
    if is_guarded and job and train:
        config = replace(config, block_copies=job_config(job).sampling.block_copies)
    if config.block_copies and not train:
        raise ConfigError(
            f"generate: got a limit on copies, but the training posts are not beside {folder}; "
            "expected dataset.jsonl.gz of its job; name a job's folder or leave the limit out"
        )
    base, model = open_folder(folder)
    return _sample(model, base, settle(config, base.codec, folder, train), train, seed)


def _sample(
    model: PreTrainedModel, base: Base, config: SamplingConfig, train: Sequence[str], seed: int
) -> Samples:
    guards = build_guards(config, mask_pii=True, train=train)
    positions = base.max_positions
    return sample_posts(model, base.codec, config, guards, max_positions=positions, seed=seed)


def evaluate_folder(
    folder: Path, posts_path: Path, *, user: str, config: SamplingConfig, seed: int
) -> FolderQuality:
    """Measure a model on a file of posts; those it was trained on are left out.

    Raises:
        ConfigError: there is no model, or no such file.
        SourceError: the posts cannot be read.
        DataError: no post is left to measure on.
    """
    folder = find_model_dir(folder)
    job = job_around(folder)
    train = train_posts(job)
    cleaning = job_config(job).cleaning if job else CleaningConfig()
    posts = read_posts(posts_path, user, cleaning)
    known = {normalise(post) for post in train}
    fresh = [post for post in posts if normalise(post) not in known]
    if not fresh:
        raise DataError(
            f"{posts_path}: got {len(posts)} posts, all trained on or too short; expected others; "
            "name posts that the model has not seen"
        )
    base, model = open_folder(folder)
    config = settle(config, base.codec, folder, train)
    samples = _sample(model, base, config, train, seed)
    text, _ = evaluate_text(
        [(one.input, one.prediction) for one in samples.predictions],
        train=train,
        heldout=fresh,
        seed=seed,
    )
    heldout, probe = (
        score_posts(model, base.codec, each, max_positions=base.max_positions)
        for each in (fresh, choose_known(train, seed=seed))
    )
    quality = Quality(model_quality(Scores(heldout, probe), seed=seed), None, text)
    return FolderQuality(len(fresh), len(posts) - len(fresh), bits_per_byte(heldout), quality)


def read_posts(path: Path, user: str, cleaning: CleaningConfig) -> list[str]:
    """Read and clean the posts of one user of a file, its kind told by its name.

    No configuration names a list here: whoever is on a list of people who want no model, the
    user's own, the shipped one or that of `HUGGINGTWEETS_OPTOUT`, is neither read nor measured.

    Raises:
        OptedOutError: the user is on one.
        ConfigError: the file is not there, or of no known kind.
        SourceError: the posts cannot be read.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    kinds = {end: kind for kind, ends in SUFFIXES.items() for end in ends}
    if suffix not in kinds:
        raise ConfigError(
            f"--posts: got {path}; expected a file named {', '.join(kinds)} or such with .gz; "
            "rename it"
        )
    source = SourceConfig(kind=kinds[suffix], path=str(path))
    handle = parse_handle(user)
    check_opted_out([handle])
    cleaned, _ = clean_timeline(load_timeline(source, handle), cleaning)
    return [post.text for post in cleaned.posts]


def settle(
    config: SamplingConfig, codec: Codec, folder: Path, train: Sequence[str]
) -> SamplingConfig:
    """Settle limits that were left to the person's own posts, as the end of a job settles them.

    Where those are not at hand, tokens are limited as the model folder itself says, and characters
    not at all.
    """
    tokens, chars = config.token_limit, 0
    with suppress(OSError, ValueError, KeyError, TypeError):
        tokens = int(read_json(folder / "generation_config.json")["max_new_tokens"])
    if train:
        tokens = long_post([len(ids) + 1 for ids in codec.encode(train)])
        chars = long_post([len(post) for post in train])
    return config.settled(tokens=tokens, chars=chars)


def job_config(job: JobPaths) -> TrainConfig:
    """Return the settings of a job; the defaults where they are gone."""
    try:
        return load_config(job.config)
    except HuggingtweetsError:
        return TrainConfig()


def train_posts(job: JobPaths | None) -> list[str]:
    """Return the posts that a job trained on; none where they are not at hand.

    Raises:
        DataError: they are damaged.
    """
    if job is None or not job.dataset.is_file():
        return []
    return [post for posts in read_learnt(job).values() for post in posts]
