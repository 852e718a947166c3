import pytest
import torch
from transformers import get_scheduler

from huggingtweets.config.schema import RecipeConfig, Schedule
from huggingtweets.training.schedule import lr_at


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("warmup_frac", [0.0, 0.1, 0.25])
def test_lr_at_is_what_transformers_gives(schedule: Schedule, warmup_frac: float) -> None:
    recipe = RecipeConfig(lr=0.5, schedule=schedule, warmup_frac=warmup_frac)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    name = "constant_with_warmup" if schedule is Schedule.constant else schedule.value
    theirs = get_scheduler(
        name, optimizer, num_warmup_steps=int(warmup_frac * 40), num_training_steps=40
    )
    for step in range(40):
        assert lr_at(step, recipe=recipe, total_steps=40) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        )
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("warmup_frac", [0.0, 0.05, 0.9])
def test_lr_at_of_one_step(warmup_frac: float) -> None:
    recipe = RecipeConfig(lr=0.5, warmup_frac=warmup_frac)
    assert lr_at(0, recipe=recipe, total_steps=1) == 0.5
