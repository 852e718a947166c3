"""Going on from an earlier model of the same people: new posts, and a share of the old ones."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingtweets.data.duplicates import group_near_duplicates
from huggingtweets.data.split import Split
from huggingtweets.errors import DataError
from huggingtweets.posts.cleaning import CleanPosts
from huggingtweets.posts.records import Timeline, read_timelines
from huggingtweets.storage.files import read_jsonl
from huggingtweets.storage.paths import JobPaths


@dataclass(frozen=True)
class Earlier:
    """The posts of the job that made the base model, by handle."""

    received: Mapping[str, frozenset[str]]
    """Texts as received, whatever became of them."""
    learnt: Mapping[str, Sequence[str]]
    """Cleaned texts it was trained on."""


def read_earlier(model_path: str | None, handles: Sequence[str]) -> Earlier | None:
    """Return the posts of the job whose `model` folder the base is; None: it is no such folder.

    Nor is it one if the job was about other people.

    Raises:
        DataError: what the job left is damaged.
        SourceError: its posts are.
    """
    folder = Path(model_path or "")
    job = JobPaths(folder.parent)
    if folder.name != job.model.name or not (job.posts.is_file() and job.dataset.is_file()):
        return None
    received = {
        timeline.handle: frozenset(post.text for post in timeline.posts)
        for timeline in read_timelines(job.posts)
    }
    learnt = read_learnt(job)
    return Earlier(received, learnt) if received.keys() & set(handles) else None


def read_learnt(job: JobPaths) -> dict[str, list[str]]:
    """Return the cleaned posts that a job trained on, by handle.

    Raises:
        DataError: they are not there, or damaged.
    """
    learnt: dict[str, list[str]] = {}
    try:
        for row in read_jsonl(job.dataset):
            if row["side"] == "train":
                learnt.setdefault(row["user"], []).append(row["text"])
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise DataError(
            f"{job.dataset}: cannot be read ({err}); expected the posts that the model was "
            "trained on; copy the model folder elsewhere to go on without them"
        ) from err
    return learnt


def keep_new(
    users: Sequence[CleanPosts], timelines: Sequence[Timeline], earlier: Earlier
) -> list[CleanPosts]:
    """Keep of each person the posts that the earlier job has not received.

    Texts as received are compared, so that another cleaning makes no old post new; and cleaned
    ones, so that another link does not either.
    """
    kept = []
    for user, timeline in zip(users, timelines, strict=True):
        old = earlier.received.get(user.handle, frozenset())
        learnt = frozenset(earlier.learnt.get(user.handle, ()))
        new_ids = {post.id for post in timeline.posts if post.text not in old}
        posts = tuple(post for post in user.posts if post.id in new_ids and post.text not in learnt)
        kept.append(CleanPosts(user.handle, user.display_name, posts))
    return kept


def add_replay(
    split: Split, handles: Sequence[str], earlier: Earlier, *, share: float, seed: int
) -> Split:
    """Add a share of the learnt posts of each person to those to train on; none is held out.

    A held-out post that is nearly one the base has learnt is trained on instead: it would flatter.

    Args:
        split: of the new posts.
        handles: the people, in the order of the split.
        earlier: what the base was made of.
        share: 0 to 1, of the learnt posts.
        seed: the job's.

    Raises:
        DataError: there is nothing to train on.
    """
    train, heldout = [], []
    for handle, new, held in zip(handles, split.train, split.heldout, strict=True):
        learnt = earlier.learnt.get(handle, ())
        known = _like(learnt, held)
        chosen = _sample(learnt, share, random.Random(f"replay/{seed}/{handle}"))
        moved = tuple(text for text, is_known in zip(held, known, strict=True) if is_known)
        train.append((*new, *moved, *chosen))
        heldout.append(tuple(text for text, k in zip(held, known, strict=True) if not k))
    if not any(train):
        raise DataError(
            f"{', '.join(handles[:3])}: got no post that the model in model.path has not had; "
            "expected new ones; import them first, or set recipe.replay=1 to learn the old ones "
            "again"
        )
    return Split(tuple(train), tuple(heldout))


def _like(learnt: Sequence[str], texts: Sequence[str]) -> list[bool]:
    """Say of each text whether it is nearly one of those learnt."""
    labels = group_near_duplicates([*learnt, *texts]) if texts else []
    old = set(labels[: len(learnt)])
    return [label in old for label in labels[len(learnt) :]]


def _sample(texts: Sequence[str], share: float, rng: random.Random) -> list[str]:
    """Draw a share without replacement; the order stays."""
    chosen = sorted(rng.sample(range(len(texts)), round(share * len(texts))))
    return [texts[index] for index in chosen]
