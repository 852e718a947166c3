"""From posts to what is trained on and what is scored."""

import random

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data import prepare as module
from huggingtweets.data.blocks import Blocks
from huggingtweets.data.prepare import Prepared, clean_posts, long_post, prepare
from huggingtweets.data.tokens import Codec
from huggingtweets.posts.records import Post, Timeline

EOS = 0


class Characters:
    """A tokenizer: one id a character."""

    all_special_ids = (EOS,)

    def __call__(self, posts: list[str], **options: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(char) for char in post] for post in posts]}


CODEC = Codec(Characters(), EOS, EOS, EOS)


def prepared(*, num: int, heldout_frac: float = 0.1, seed: int = 1) -> Prepared:
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh ", k=20)).strip() + str(n) for n in range(num)]
    timeline = Timeline("ann", "Ann", tuple(Post(str(n), text) for n, text in enumerate(texts)))
    users, reports = clean_posts([timeline], CleaningConfig(min_words=1))
    recipe = RecipeConfig(block_size=64, heldout_frac=heldout_frac, isolate_documents=True)
    return prepare(users, reports, recipe=recipe, seed=seed, codec=CODEC)


def texts_of(blocks: Blocks) -> set[str]:
    """The documents in blocks, as text."""
    ids = [int(token) for row in blocks.input_ids for token in row]
    return {text for text in "".join(map(chr, ids)).split(chr(EOS)) if text}


def test_as_many_training_posts_are_probed_as_are_held_out() -> None:
    job = prepared(num=60)
    assert job.heldout is not None
    assert job.probe is not None
    (train,), (heldout,) = job.split.train, job.split.heldout
    probed = texts_of(job.probe.blocks)
    assert len(probed) == len(heldout) > 0
    assert probed <= set(train)
    assert texts_of(job.heldout.blocks) == set(heldout)
    assert job.probe.num_bytes == sum(map(len, probed))


def test_the_probe_is_drawn_by_the_seed_and_bounded(monkeypatch) -> None:
    def probed(seed: int) -> set[str]:
        probe = prepared(num=60, seed=seed).probe
        assert probe is not None
        return texts_of(probe.blocks)

    assert probed(1) == probed(1) != probed(2)
    monkeypatch.setattr(module, "MAX_PROBED", 2)
    assert len(probed(1)) == 2


def test_nothing_is_probed_where_nothing_is_held_out() -> None:
    job = prepared(num=20, heldout_frac=0)
    assert (job.heldout, job.probe) == (None, None)


def test_samples_may_be_as_long_as_the_persons_own_long_posts() -> None:
    assert long_post([7]) == 7
    assert long_post([*range(1, 101)]) == 99
    assert long_post([*range(1, 1001)][::-1]) == 990
    assert long_post([5] * 99 + [900]) == 5  # one essay among a hundred posts is no habit
    one = prepared(num=200)
    (posts,) = one.split.train
    assert one.long_chars == sorted(map(len, posts))[-1 - len(posts) // 100]
    assert one.long_tokens == one.long_chars + 1  # a token per character here, and the end
    told = SamplingConfig().settled(tokens=one.long_tokens, chars=one.long_chars)
    assert (told.max_new_tokens, told.max_chars) == (one.long_tokens, one.long_chars)
    asked = SamplingConfig(max_new_tokens=90, max_chars=0).settled(tokens=50, chars=200)
    assert (asked.max_new_tokens, asked.max_chars) == (90, 0)
