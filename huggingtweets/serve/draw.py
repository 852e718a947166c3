"""Tokens drawn for rows that differ in temperature, nucleus and luck."""

from collections.abc import Sequence

import torch
from torch import Tensor

from huggingtweets.serve.rows import Row

_MAX_DRAWS = 200
"""After this many refused draws in a row, which no usual top_p ever needs, the likeliest token."""


def draw_tokens(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    """Draw one token a row.

    Draws from all tokens, and again where the token turns out to lie outside the nucleus, the
    likeliest tokens that make up `top_p`: no sorting of a large vocabulary.

    Args:
        logits: (R, V) fp32; changed.
        rows: R of them.
    """
    wanted = [row.request.wanted for row in rows]
    for at, row in enumerate(rows):
        if not row.may_end:
            logits[at, row.request.voice.codec.eos_id] = -torch.inf
    likeliest = logits.argmax(-1)
    heat = torch.tensor([max(one.temperature, 1e-4) for one in wanted], device=logits.device)
    probabilities = torch.softmax(logits / heat.unsqueeze(1), -1)
    steps = probabilities.cumsum(-1)
    top_p = torch.tensor([one.top_p for one in wanted], device=logits.device)
    is_greedy = torch.tensor([one.temperature == 0 for one in wanted], device=logits.device)
    token = likeliest.clone()
    is_open = ~is_greedy
    for _ in range(_MAX_DRAWS):
        if not is_open.any():  # sync: mostly after the first draws
            break
        uniforms = [row.uniform() if waits else 0.0
                    for row, waits in zip(rows, is_open.tolist(), strict=True)]  # fmt: skip
        luck = torch.tensor(uniforms, device=logits.device)
        mark = luck.unsqueeze(1) * steps[:, -1:]
        drawn = torch.searchsorted(steps, mark).clamp_(max=logits.shape[1] - 1)
        likelier = probabilities > probabilities.gather(1, drawn)
        above = (probabilities * likelier).sum(1)
        fits = is_open & (above < top_p)
        token = torch.where(fits, drawn.squeeze(1), token)
        is_open = is_open & ~fits
    found: list[int] = token.tolist()
    return found
