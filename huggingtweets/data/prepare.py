"""From posts as received to blocks: everything before an accelerator is needed."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import Blocks, Pieces, TrainingSet, build_training_set, pack_posts
from huggingtweets.data.corpus import epoch_documents
from huggingtweets.data.replay import Earlier, add_replay
from huggingtweets.data.split import Split, split_posts
from huggingtweets.data.tokens import Codec
from huggingtweets.posts.cleaning import CleaningReport, CleanPosts, clean_timeline
from huggingtweets.posts.records import Timeline

MAX_PROBED = 128
"""Training posts that are scored; at every evaluation never more than are held out."""


@dataclass(frozen=True)
class HeldoutSet:
    """Posts of one job that are scored and not trained on: held out, or drawn to be compared."""

    blocks: Blocks
    """Isolated documents."""
    num_bytes: int
    """UTF-8 bytes of the posts' text."""
    pieces: Pieces
    """Where each post lies."""
    post_bytes: tuple[int, ...]
    """UTF-8 bytes of each post."""


@dataclass(frozen=True)
class Prepared:
    """One job, ready to be trained."""

    people: tuple[CleaningReport, ...]
    split: Split
    training_set: TrainingSet
    heldout: HeldoutSet | None
    """None where nothing was held out."""
    probe: HeldoutSet | None
    """Some training posts, to be scored beside the held-out ones; None likewise."""
    rest: HeldoutSet | None
    """Further training posts that are tried once training has ended; None: the probe is enough."""
    train_tokens: int
    """Token ids of the posts trained on, each post once, without end-of-text."""
    long_tokens: int
    """Token ids of a long post, its end included: all but a hundredth of them are shorter."""
    long_chars: int
    """Characters of a long post, likewise."""


def clean_posts(
    timelines: Sequence[Timeline], cleaning: CleaningConfig
) -> tuple[list[CleanPosts], tuple[CleaningReport, ...]]:
    """Clean each person's posts."""
    cleaned = [clean_timeline(timeline, cleaning) for timeline in timelines]
    return [posts for posts, _ in cleaned], tuple(report for _, report in cleaned)


def prepare(
    users: Sequence[CleanPosts],
    reports: tuple[CleaningReport, ...],
    *,
    recipe: RecipeConfig,
    seed: int,
    codec: Codec,
    earlier: Earlier | None = None,
) -> Prepared:
    """Split, order, tokenise and pack the posts of one job; a pure function of its arguments.

    With `earlier`, the posts of an earlier job, `users` are the new ones.

    Raises:
        DataError: nothing is left to train on.
    """
    split = split_posts(users, kind=recipe.split, heldout_frac=recipe.heldout_frac, seed=seed)
    if earlier is not None:
        handles = [user.handle for user in users]
        split = add_replay(split, handles, earlier, share=recipe.replay, seed=seed)
    documents = [codec.encode(posts) for posts in split.train]
    orders = [
        epoch_documents(split.train, epoch=epoch, seed=seed, mix_users=recipe.isolate_documents)
        for epoch in range(recipe.epochs)
    ]
    training_set = build_training_set(
        documents,
        orders,
        block_size=recipe.block_size,
        eos_id=codec.eos_id,
        isolate=recipe.isolate_documents,
        bos_id=codec.bos_id,
    )

    heldout_posts = [post for posts in split.heldout for post in posts]
    train_posts = [post for posts in split.train for post in posts]
    # MAX_PROBED training posts tell how many can be extracted: at most as many as are held out are
    # scored at every evaluation, the others once.
    known = choose_known(train_posts, seed=seed)
    num_probed = min(len(heldout_posts), len(known))
    return Prepared(
        people=reports,
        split=split,
        training_set=training_set,
        heldout=pack_set(heldout_posts, codec, recipe.block_size),
        probe=pack_set(known[:num_probed], codec, recipe.block_size),
        rest=pack_set(known[num_probed:], codec, recipe.block_size),
        train_tokens=sum(len(ids) for posts in documents for ids in posts),
        long_tokens=long_post([len(ids) + 1 for posts in documents for ids in posts]),
        long_chars=long_post([len(post) for post in train_posts]),
    )


def choose_known(posts: Sequence[str], *, seed: int) -> list[str]:
    """Draw the training posts that tell how many can be extracted."""
    return random.Random(f"extraction/{seed}").sample(list(posts), min(MAX_PROBED, len(posts)))


def pack_set(posts: Sequence[str], codec: Codec, block_size: int) -> HeldoutSet | None:
    """Return posts as they are scored, each alone; None where there is nothing in them."""
    if not posts:
        return None
    ids = codec.encode(posts)
    blocks, pieces = pack_posts(
        ids, block_size=block_size, eos_id=codec.eos_id, bos_id=codec.bos_id
    )
    num_bytes = tuple(len(post.encode("utf-8", "replace")) for post in posts)
    return HeldoutSet(blocks, sum(num_bytes), pieces, num_bytes) if len(blocks) else None


def long_post(lengths: Sequence[int]) -> int:
    """Return the 99th percentile of lengths, of which there is at least one."""
    return sorted(lengths)[max(0, math.ceil(0.99 * len(lengths)) - 1)]
