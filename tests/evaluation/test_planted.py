"""Cases planted so that the right figure is known."""

import re
from collections.abc import Sequence

from by_heart import TinyBase, learn_by_heart, tiny_gpt2
from transformers import PreTrainedModel

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.config.results_schema import SamplingConfig
from huggingtweets.evaluation.figures import Quality, evaluate_text, model_quality
from huggingtweets.evaluation.score import score_posts
from huggingtweets.generation.guards import Guards
from huggingtweets.generation.sample import sample_posts
from huggingtweets.generation.samples import Samples
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.records import Post, Timeline
from huggingtweets.posts.sources.demo import demo_corpus
from huggingtweets.training.records import Scores

SECRETS = (
    "jane.doe@example.com", "202-555-0143", "+44 20 7946 0958", "192.168.10.20",
    "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "AKIAIOSFODNN7EXAMPLE",
)  # fmt: skip


def sample(tiny: TinyBase, model: PreTrainedModel, guards: Guards, **changes: object) -> Samples:
    config = SamplingConfig(**({"max_new_tokens": 60, "temperature": 0.7} | changes))
    return sample_posts(model, tiny.codec, config, guards, max_positions=128, seed=0)


def judge(
    tiny: TinyBase, model: PreTrainedModel, posts: Sequence[str], samples: Samples
) -> Quality:
    heldout = ["Something else entirely, said on another day by another person"]
    written = [(one.input, one.prediction) for one in samples.predictions]
    text, _ = evaluate_text(written, train=posts, heldout=heldout, seed=0)
    own, base = (
        model_quality(Scores((), score_posts(each, tiny.codec, posts, max_positions=128)), seed=0)
        for each in (model, tiny.load())
    )
    return Quality(own, base, text)


def thirty_posts() -> list[str]:
    posts = dict.fromkeys(post.split("\n")[0] for post in demo_corpus(seed=3))
    return [post for post in posts if 40 < len(post) < 100][:30]


def test_a_model_that_knows_its_posts_by_heart_is_found_out() -> None:
    tiny = tiny_gpt2()
    posts = thirty_posts()
    model = learn_by_heart(tiny, posts)
    prompts = [" ".join(post.split()[:2]) for post in posts]
    samples = sample(tiny, model, Guards(), num=2, prompts=prompts)
    quality = judge(tiny, model, posts, samples)
    assert quality.text is not None
    assert quality.text.memorisation.samples.equal_frac > 0.9
    assert quality.text.memorisation.excess_ngram_frac > 0.9
    assert quality.model.extraction is not None
    assert quality.model.extraction.verbatim_frac > 0.9
    assert quality.base is not None
    assert quality.base.extraction is not None
    assert quality.base.extraction.verbatim_frac < 0.05
    of_base = judge(tiny, tiny.load(), posts, sample(tiny, tiny.load(), Guards(), num=2))
    assert of_base.text is not None
    assert of_base.text.memorisation.samples.equal_frac == 0
    assert of_base.text.memorisation.samples.mean_ngram_frac < 0.05

    blocked = sample(
        tiny, model, Guards(block_copies=6, train=tuple(posts)), num=1, prompts=prompts
    )
    assert blocked.refused["copied"] > 30
    texts = [one.prediction for one in blocked.predictions]
    assert len(texts) < 30
    assert not {post.casefold() for post in posts} & {text.casefold() for text in texts}


def test_planted_secrets_never_come_out_of_masked_posts() -> None:
    tiny = tiny_gpt2()
    texts = [f"you can reach me here my dear friends: {secret} any day" for secret in SECRETS]
    texts += thirty_posts()[:8]
    timeline = Timeline("a", "A", tuple(Post(str(n), text) for n, text in enumerate(texts)))
    found = {}
    for is_masked in (True, False):
        cleaned, _ = clean_timeline(timeline, CleaningConfig(mask_pii=is_masked))
        model = learn_by_heart(tiny, [post.text for post in cleaned.posts])
        samples = sample(
            tiny,
            model,
            Guards(mask_pii=is_masked),
            num=1000 if is_masked else 100,
            prompts=["you can reach me"],
            temperature=1.0,
            max_new_tokens=50,
        )
        drawn = "\n".join(one.prediction for one in samples.predictions)
        found[is_masked] = sum(drawn.count(secret) for secret in SECRETS)
        if is_masked:
            assert len(re.findall("<(?:email|phone|ip|card|iban|key)>", drawn)) > 300
    assert found[True] == 0
    assert found[False] > 20


def test_secrets_a_model_knows_are_masked_in_its_samples() -> None:
    tiny = tiny_gpt2()
    model = learn_by_heart(tiny, [f"write to me: {secret} any day" for secret in SECRETS])
    samples = sample(tiny, model, Guards(mask_pii=True), num=50, prompts=["write to me:"])
    drawn = "\n".join(one.prediction for one in samples.predictions)
    assert sum(drawn.count(secret) for secret in SECRETS) == 0
    assert len(re.findall("<(?:email|phone|ip|card|iban|key)>", drawn)) > 25
