from collections.abc import Callable

import pytest

from huggingtweets.config.posts_schema import CleaningConfig
from huggingtweets.data.language import detect_languages
from huggingtweets.posts.cleaning import clean_timeline
from huggingtweets.posts.records import Timeline


@pytest.mark.parametrize(
    ("account", "language"),
    [
        ("NASA", "en"),
        ("AV_Abhisit", "th"),
        ("hatoyamayukio", "ja"),
        ("RT_Erdogan", "tr"),
        ("fhollande", "fr"),
        ("MustafaAG", "ar"),
        ("MedvedevRussia", "ru"),
    ],
)
def test_detect_languages_of_real_accounts(
    read_account: Callable[[str], Timeline], account: str, language: str
) -> None:
    posts, _ = clean_timeline(read_account(account), CleaningConfig())
    assert detect_languages([post.text for post in posts.posts])[0] == language


def test_detect_languages_of_nothing() -> None:
    assert detect_languages([]) == ()
