"""When a training whose steps are skipped goes on, and when it is given up."""

import pytest

from huggingtweets.config.schema import RecipeConfig
from huggingtweets.data.blocks import build_training_set
from huggingtweets.errors import TrainingError
from huggingtweets.training.progress import MOST_BAD_STEPS, Training, TrainingJob

GOOD, BAD = 0, 1


def training(steps: int) -> Training:
    documents = [[1] * 31] * steps
    recipe = RecipeConfig(block_size=32, epochs=1, global_batch_size=1)
    places = [[(0, i) for i in range(steps)]]
    blocks = build_training_set([documents], places, block_size=32, eos_id=0, isolate=True)
    return Training(TrainingJob("ann", blocks, None, recipe, 1))


def log(one: Training, *steps: int) -> None:
    """Take steps and log them in one line."""
    for _ in steps:
        one.count_step()
    good = steps.count(GOOD)
    one.log(one.end_line(one.line_start + 1.0), [2.0 * good, good, sum(steps), 1.0], None)


def test_a_line_of_one_skipped_step_is_no_end() -> None:
    """A loss scale of fp16 that has doubled overflows once."""
    one = training(40)
    log(one, GOOD, GOOD)
    log(one, BAD)
    log(one, GOOD)
    assert [line.step for line in one.history] == [2, 4]
    assert one.num_bad_steps == 1


def test_steps_skipped_for_long_are_the_end() -> None:
    one = training(40)
    log(one, GOOD, BAD)
    for _ in range(MOST_BAD_STEPS - 1):
        log(one, BAD)
    with pytest.raises(TrainingError, match="loss is not finite"):
        log(one, BAD)


def test_an_epoch_without_a_good_step_is_the_end() -> None:
    one = training(3)
    log(one, BAD, BAD)
    with pytest.raises(TrainingError, match="loss is not finite"):
        log(one, BAD)


def test_a_skipped_step_whose_line_arrives_late_is_no_end() -> None:
    """On a GPU lines arrive when the next steps are taken: the epoch may be over by then."""
    one = training(2)
    one.count_step()
    early = one.end_line(1.0)
    one.count_step()
    late = one.end_line(2.0)
    assert one.ends_epoch
    one.log(early, [0.0, 0, 1, 0.0], None)
    one.log(late, [2.0, 1, 0, 1.0], None)
    assert [line.step for line in one.history] == [2]
