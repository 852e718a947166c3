"""Which languages a person writes in, guessed from the posts."""

from collections import Counter
from collections.abc import Sequence

import py3langid

SAMPLE = 200
MIN_FRAC = 0.2
"""Share of the posts a language needs to be named; the most used always is."""


def detect_languages(posts: Sequence[str]) -> tuple[str, ...]:
    """Return ISO 639-1 codes, most used first, from at most SAMPLE posts evenly spread.

    Posts are judged one by one, so a person of two languages gets both. Short texts fool any
    guesser: a language is named only where it is found often.
    """
    step = max(1, len(posts) // SAMPLE)
    counts = Counter(py3langid.classify(post)[0] for post in posts[::step][:SAMPLE])
    total = counts.total()
    ranked = [code for code, _ in counts.most_common()]
    return tuple(code for code in ranked if code == ranked[0] or counts[code] >= MIN_FRAC * total)
