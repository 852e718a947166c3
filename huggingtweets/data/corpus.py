"""The order in which posts are learnt: reshuffled every epoch, users balanced. Indices only."""

import random
from collections.abc import Sequence


def epoch_documents(
    users: Sequence[Sequence[str]], *, epoch: int, seed: int, mix_users: bool = True
) -> list[tuple[int, int]]:
    """Draw the posts of one epoch as (user, index) pairs in training order.

    Every user has as many characters as the longest one: posts of a shorter user come again, in
    whole reshuffled copies and then a part of one, until the characters reach the longest's. An
    epoch depends on `seed` and `epoch` alone, not on the epochs before it.

    Args:
        users: texts, one sequence a user.
        epoch: from 0.
        seed: the job's.
        mix_users: shuffle the users' posts together; otherwise one user follows another, each
            shuffled by itself, as in the original.
    """
    rng = random.Random(f"corpus/{seed}/{epoch}")
    lengths = [[len(text) for text in texts] for texts in users]
    longest = max((sum(chars) for chars in lengths), default=0)
    pairs: list[tuple[int, int]] = []
    for user, chars in enumerate(lengths):
        indices = _balanced(chars, longest, rng)
        rng.shuffle(indices)
        pairs += [(user, index) for index in indices]
    if mix_users and len(users) > 1:
        rng.shuffle(pairs)
    return pairs


def _balanced(chars: Sequence[int], target: int, rng: random.Random) -> list[int]:
    """Return every index once, then reshuffled copies until their characters reach `target`."""
    chosen = list(range(len(chars)))
    missing = target - sum(chars)
    if missing == target:  # no characters to repeat
        return chosen
    while missing > 0:
        copy = list(range(len(chars)))
        rng.shuffle(copy)
        for index in copy:
            chosen.append(index)
            missing -= chars[index]
            if missing <= 0:
                break
    return chosen
