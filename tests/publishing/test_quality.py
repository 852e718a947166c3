import pytest

from huggingtweets.data.copying import find_runs
from huggingtweets.evaluation.figures import ModelQuality, Quality, evaluate_text
from huggingtweets.publishing.quality import build_sample, quality_metrics, quality_tables
from huggingtweets.publishing.report import parts
from huggingtweets.training.records import Extraction

TRAIN = ["we will never ever give up on the people of Ohio"]


@pytest.mark.parametrize(
    "prompt", ["I like", "I like that we will", "I like that we wi", "Nothing"]
)
def test_marked_words_of_a_sample_are_the_copied_ones(prompt: str) -> None:
    text = "I like that we will never ever give up on the people of Iowa"
    (runs,) = find_runs(TRAIN, [text])
    sample = build_sample(prompt, text, runs.spans(6))
    marked = [part.text for part in parts(sample) if part.is_copied]
    whole = "we will never ever give up on the people of"
    cut = whole if not prompt.startswith("I like that") else whole[len(prompt) - 12 :]
    assert [one.strip() for one in marked] == [cut.strip()]


def quality() -> Quality:
    text, _ = evaluate_text(
        [("I", "I say we will never ever give up on you"), ("I", "I say so")],
        train=TRAIN,
        heldout=["something else"],
        seed=0,
    )
    model = ModelQuality(None, None, 1.5, Extraction(4, 0.25, 0.5))
    return Quality(model, ModelQuality(None, None, 3.0, None), text)


def test_tables_are_rectangular_and_name_refusals() -> None:
    tables = quality_tables(quality(), {"too_long": 3})
    assert len(tables) == 4
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert "3 too long" in tables[1].note


def test_metrics_are_those_of_the_model() -> None:
    values = {metric.type: metric.value for metric in quality_metrics(quality())}
    assert values["extracted"] == 0.25
    assert values["copied"] == 0
    assert 0 < values["copied_ngrams"] < 1


def test_nothing_sampled_leaves_what_the_model_says() -> None:
    bare = Quality(ModelQuality(None, None, None, None), None, None)
    assert quality_tables(bare, {}) == ()
    assert quality_metrics(bare) == ()
