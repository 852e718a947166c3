import pytest

from huggingtweets.config.compose import compose_config, register, to_config
from huggingtweets.config.plan import Plan, differences, make_plan
from huggingtweets.errors import ConfigError
from huggingtweets.handles import Job

register()


def plan_of(*overrides: str) -> Plan:
    return make_plan(to_config(compose_config(["user=demo", *overrides])), Job.of(["demo"]))


@pytest.mark.parametrize(
    "override",
    ["recipe.lr=1e-5", "recipe=huggingtweets", "seed=1", "model.path=x", "cleaning=huggingtweets"],
)
def test_digest_changes_with_what_decides_the_result(override: str) -> None:
    assert plan_of(override).digest != plan_of().digest


@pytest.mark.parametrize(
    "override",
    [
        "engine.precision=fp32",
        "output_dir=elsewhere",
        "tracking=wandb",
        "publish=none",
        "source.terms=accepted",
        "source.max_cost_usd=20",
        "consent=own-archive",
    ],
)
def test_digest_ignores_how_and_where(override: str) -> None:
    assert plan_of(override).digest == plan_of().digest


def test_digest_ignores_where_an_archive_was_moved() -> None:
    here, there, other = (
        plan_of("source=x_archive", f"source.path={path}").digest
        for path in ("here/x.zip", "there/x.zip", "here/y.zip")
    )
    assert here == there != other


def test_differences_names_key_and_values() -> None:
    changed = differences(plan_of().identity, plan_of("recipe.epochs=9").identity)
    assert changed == ["recipe.epochs: 4 -> 9"]


def test_blocks_longer_than_the_tiny_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"set recipe\.block_size=256"):
        plan_of("model=tiny", "recipe.block_size=512")


def test_recipe_huggingtweets_is_the_original() -> None:
    recipe = plan_of("recipe=huggingtweets").config.recipe
    assert (recipe.epochs, recipe.lr, recipe.schedule) == (4, 1.372e-4, "cosine")
    assert (recipe.block_size, recipe.global_batch_size, recipe.warmup_frac) == (1024, 1, 0.0)
    assert (recipe.weight_decay, recipe.max_grad_norm, recipe.isolate_documents) == (
        0.0,
        1.0,
        False,
    )


def test_the_hub_needs_to_know_on_what_ground() -> None:
    with pytest.raises(
        ConfigError, match=r"^consent: got unstated with publish=hub; .*own-archive"
    ):
        plan_of("publish=hub")
    assert plan_of("publish=hub", "consent=public-donation").config.consent == "public-donation"


def test_a_limit_to_memorisation_needs_posts_to_judge_by() -> None:
    with pytest.raises(ConfigError, match=r"got memorisation with recipe\.heldout_frac=0"):
        plan_of("recipe.stop=memorisation", "recipe.heldout_frac=0")
    assert plan_of("recipe.heldout_frac=0").config.recipe.heldout_frac == 0
