"""Held-out posts scored one by one by the models of several trainings of one person."""

from collections.abc import Sequence
from pathlib import Path

from huggingtweets.compare.comparison import PairedScores
from huggingtweets.evaluation.score import score_posts
from huggingtweets.model_folder import open_folder
from huggingtweets.storage.files import read_jsonl
from huggingtweets.storage.paths import JobPaths


def score_person(folders: Sequence[Path], slug: str) -> PairedScores | None:
    """Score the posts that all trainings of a person held out and none was trained on.

    Args:
        folders: output folders, each with a finished job of the person.
        slug: of the person.

    Returns:
        The scores; None where the posts or the models are not there, or no post is left.

    Raises:
        HuggingtweetsError: a model cannot be loaded.
    """
    jobs = [JobPaths(folder / slug) for folder in folders]
    if not all(job.dataset.is_file() and job.model.is_dir() for job in jobs):
        return None
    rows = [read_jsonl(job.dataset) for job in jobs]
    trained = {row["text"] for each in rows for row in each if row["side"] == "train"}
    heldout = [{row["text"] for row in each if row["side"] == "heldout"} for each in rows]
    posts = sorted(set.intersection(*heldout) - trained)
    if not posts:
        return None
    nats = []
    for job in jobs:
        base, model = open_folder(job.model)
        scores = score_posts(model, base.codec, posts, max_positions=base.max_positions)
        nats.append(tuple(score.nats for score in scores))
    return PairedScores(tuple(nats), tuple(score.num_bytes for score in scores))
