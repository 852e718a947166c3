from huggingtweets.config.reference import PAGE, render


def test_reference_page_is_true_to_the_schema() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "run `python -m huggingtweets.config.reference`"
    )
