"""Posts of models that cannot be stacked: batches of one request's posts, through transformers."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from huggingtweets.kernels.rows import choose_row_ops
from huggingtweets.serve.rows import Row, draw_tokens


class LoneBatch:
    """The posts of one request, which share their prompt."""

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        """Begin with nothing read."""
        voice = rows[0].voice
        assert voice.model is not None
        self._adapter = voice.adapter
        # Adapters of others are put into a shared base meanwhile, and taken out of it.
        self._turn = voice.base.turn if voice.base else nullcontext()
        with self._turn:
            self._model: Any = voice.model.to(device)
        self._groups = [_Group(list(rows))]
        self._ops = choose_row_ops(device, num_positions=0, head_width=0)

    @property
    def rows(self) -> list[Row]:
        """All posts under way."""
        return [row for group in self._groups for row in group.rows]

    @torch.inference_mode()
    def step(self) -> int:
        """Decode one token of every post; return how many posts were under way."""
        rows = self.rows
        if not rows or rows[0].is_cancelled:
            self._groups = []
            return 0
        refused: list[Row] = []
        for group in self._groups:
            refused += self._step(group)
        self._groups = [group for group in self._groups if group.rows]
        if refused:  # they begin again, and so read the prompt again
            self._groups.append(_Group(refused))
        return len(rows)

    def _step(self, group: "_Group") -> list[Row]:
        """Decode one token of a group; return its posts that were refused."""
        first = group.rows[0]
        inputs = [row.begun if row.position == 0 else [row.token] for row in group.rows]
        if first.position == 0:
            for row in group.rows:
                row.position = len(row.begun) - 1
        output = self._forward(torch.tensor(inputs, device=self._model.device), group.cache)
        group.cache = output.past_key_values
        tokens = draw_tokens(output.logits[:, -1].float(), group.rows, self._ops)
        is_over = [row.take(token) for row, token in zip(group.rows, tokens, strict=True)]
        refused = [row for row in group.rows if row.position == 0]
        going = [at for at, row in enumerate(group.rows) if not is_over[at] and row.position > 0]
        if len(going) < len(group.rows):
            group.rows = [group.rows[at] for at in going]
            if going:
                group.cache.batch_select_indices(torch.tensor(going, device=self._model.device))
        return refused

    def _forward(self, inputs: torch.Tensor, cache: Any) -> Any:
        with self._turn:
            if self._adapter:
                self._model.set_adapter(self._adapter)
            return self._model(input_ids=inputs, past_key_values=cache, use_cache=True)


class _Group:
    """Posts that are equally long, with one cache."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.cache: Any = None
