"""A trained model is sampled and scored: on the job's device, beside its base."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small import SMALL_MODEL
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from huggingtweets.bases.model import Base, find_base, load_model, open_base
from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, make_plan
from huggingtweets.config.results_schema import StoredDtype
from huggingtweets.data.blocks import pack_posts
from huggingtweets.data.prepare import HeldoutSet
from huggingtweets.evaluation.score import score_posts
from huggingtweets.handles import Job
from huggingtweets.pipeline import stages as pipeline
from huggingtweets.pipeline import trained
from huggingtweets.pipeline.trained import StackedModel, Studio
from huggingtweets.pipeline.whole_model import Trained, WholeModel
from huggingtweets.training.records import PostScore, Scores

register()
CPU = torch.device("cpu")
DEVICES = [
    CPU,
    pytest.param(
        torch.device("cuda"),
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]
POSTS = ["one post", "two posts more, and some words so that it goes on for a while", "a third"]


@pytest.fixture(scope="module")
def job() -> tuple[Plan, Base]:
    words = ["user=demo", *SMALL_MODEL, "recipe.block_size=64", "engine.precision=fp32"]
    config = to_config(compose_config(words))
    return make_plan(config, Job.of(["demo"])), find_base(config.model)


def both(plan: Plan, base: Base, device: torch.device) -> list[Trained]:
    """One trained model as either engine leaves it: the base with its weights doubled."""
    model = load_model(base, plan.config.recipe)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    original = open_base(base, plan.config.recipe)
    studio = Studio(original, device)
    return [WholeModel(model.eval(), device), StackedModel(weights, studio)]


def to_score(base: Base, posts: list[str]) -> HeldoutSet:
    blocks, pieces = pack_posts(base.codec.encode(posts), block_size=64, eos_id=base.eos_id)
    num_bytes = tuple(len(post.encode()) for post in posts)
    return HeldoutSet(blocks, sum(num_bytes), pieces, num_bytes)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("of_base", [False, True])
def test_either_engine_scores_posts_as_each_alone(
    job: tuple[Plan, Base], device: torch.device, of_base: bool
) -> None:
    plan, base = job
    model = load_model(base, plan.config.recipe)
    if not of_base:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
    alone = score_posts(model, base.codec, POSTS, max_positions=64)
    for one in both(plan, base, device):
        found = one.score(plan, base, to_score(base, POSTS), of_base=of_base)
        assert [post.num_tokens for post in found] == [post.num_tokens for post in alone]
        assert [post.num_bytes for post in found] == [post.num_bytes for post in alone]
        for ours, theirs in zip(found, alone, strict=True):
            assert ours.nats == pytest.approx(theirs.nats, rel=1e-4)
            assert ours.greedy == theirs.greedy


def test_what_finds_no_memory_on_the_device_is_done_on_the_cpu(
    job: tuple[Plan, Base], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, base = job
    asked: list[str] = []
    for_real = trained.score_stack

    def score(stack, *args, **kwargs):  # type: ignore[no-untyped-def]
        asked.append(str(stack.rows.device))
        if len(asked) == 1:
            raise torch.OutOfMemoryError("no memory")
        return for_real(stack, *args, **kwargs)

    monkeypatch.setattr(trained, "score_stack", score)
    found = both(plan, base, CPU)[1].score(plan, base, to_score(base, POSTS), of_base=False)
    assert asked == ["cpu", "cpu"]
    assert len(found) == 3


def test_nothing_is_scored_twice(job: tuple[Plan, Base]) -> None:
    """What training's evaluations found is taken; all else is asked for once, of the base less."""
    plan, base = job
    sets = {name: to_score(base, [name]) for name in ("heldout", "probe", "rest")}
    asked: list[tuple[int, bool]] = []
    tried: list[int] = []

    class Told:
        def score(
            self, plan: Plan, base: Base, posts: HeldoutSet, *, of_base: bool
        ) -> tuple[PostScore, ...]:
            asked.append((posts.num_bytes, of_base))
            return (PostScore(float(of_base), 1, posts.num_bytes, (True,)),)

        def try_known(self, plan: Plan, base: Base, posts: HeldoutSet) -> tuple[int, int, float]:
            tried.append(posts.num_bytes)
            return (1, 0, 0.5)

    def of(name: str, nats: float) -> tuple[PostScore, ...]:
        return (PostScore(nats, 1, len(name), (True,)),)

    known = {step: Scores(of("heldout", step), of("probe", step)) for step in (0, 7)}
    result = SimpleNamespace(kept_step=7, scores=known)
    ended = SimpleNamespace(plan=plan, prepared=SimpleNamespace(**sets), result=result)
    model, original = pipeline.score_job(ended, base, Told())  # type: ignore[arg-type]
    assert not asked
    assert tried == [len("rest")]
    assert model == Scores(of("heldout", 7), of("probe", 7), (1, 0, 0.5))
    assert original == Scores(of("heldout", 0), of("probe", 0))
    # After a resume nothing is known of the base.
    asked.clear()
    result.scores = {7: known[7]}
    _, original = pipeline.score_job(ended, base, Told())  # type: ignore[arg-type]
    assert asked == [(7, True), (5, True)]
    assert original == Scores(of("heldout", 1.0), of("probe", 1.0))


@pytest.mark.parametrize("dtype", ["auto", "bf16"])
def test_weights_are_stored_as_asked_and_the_tokenizer_once(
    job: tuple[Plan, Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(trained, "LINKED_BYTES", 1024)
    plan, base = job
    asked = replace(plan.config, publish=replace(plan.config.publish, dtype=StoredDtype(dtype)))
    base = replace(base, config=GPT2Config(**base.config.to_dict() | {"dtype": "float32"}))
    models = both(plan, base, CPU)
    expected = torch.float32 if dtype == "auto" else torch.bfloat16
    tokenizers = []
    for name, model in (("a", models[0]), ("b", models[1]), ("c", models[1]), ("d", models[1])):
        config = replace(asked, output_dir=str(tmp_path))
        own = make_plan(config, Job.of([name]))
        folder = own.paths.model
        folder.mkdir(parents=True)
        if name == "d":  # changed since: it is no longer what others may share
            (tmp_path / "b" / "model" / "tokenizer.json").write_text("{}")
        model.save(own, base, folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert loaded.dtype == expected
        assert AutoTokenizer.from_pretrained(folder)("a post").input_ids
        tokenizers.append((folder / "tokenizer.json").stat())
    _, first, second, last = tokenizers
    assert first.st_size == second.st_size == last.st_size
    assert second.st_ino == first.st_ino or second.st_nlink == 1, "a link or a reflink"
    assert last.st_ino not in (first.st_ino, second.st_ino)
