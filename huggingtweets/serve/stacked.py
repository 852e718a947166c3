"""Posts of many people's models decoded together: they join at any token and leave at their end.

K places, each with the weights of one person, and in each place a few rows. A place is taken by
copying a row of weights into the arena, and free as soon as its last post is over.
"""

from dataclasses import replace
from weakref import WeakValueDictionary

import torch

from huggingtweets.kernels.rows import CompiledRowOps
from huggingtweets.models.adapter_rows import stack_on_base
from huggingtweets.models.stack import build_stack
from huggingtweets.serve.rows import Row, draw_tokens
from huggingtweets.serve.voices import MAX_POSITIONS, Voice
from huggingtweets.training.stacked.decode import Cache, build_cache, decode_step

ROWS_PER_PLACE = 4
"""Posts of one model side by side in one place; more take another place with the same weights.
Adapters have one per place: their base multiplies the rows of all places at once anyway."""
MAX_PLACES = 32


class Arena:
    """The places of models of one shape, or of adapters of one rank on one base."""

    def __init__(self, voice: Voice, device: torch.device, max_bytes: int) -> None:
        """Make room for as many models as `max_bytes` hold with their caches, at least for one.

        Args:
            voice: any of those that are to be decoded here.
            device: to decode on.
            max_bytes: a base is not counted: its people's models hold it anyway.
        """
        layout, base = voice.layout, voice.base
        assert layout is not None
        assert voice.row is not None
        shape = layout.shape
        self._num_rows = ROWS_PER_PLACE if base is None else 1
        num_positions = min(MAX_POSITIONS, shape.num_positions)
        width = shape.num_heads * shape.head_width
        cache = 2 * shape.num_layers * width * num_positions * self._num_rows * 4
        self.bytes_per_place = voice.row.nbytes + cache
        self.num_places = max(1, min(MAX_PLACES, max_bytes // self.bytes_per_place))
        self._device = device
        self._base = base  # held, so that no other base gets its address
        weights = torch.zeros(self.num_places, len(voice.row), device=device)
        if base is None:
            self._stack = build_stack(layout, weights, torch.float32)
        else:
            assert base.row is not None
            self._stack = stack_on_base(layout, base.row.to(device), weights, voice.rank)
        self._cache = build_cache(self._stack, self._num_rows, num_positions)
        # Whose weights lie where. Not held: who has left memory since must leave it.
        self._voices: WeakValueDictionary[int, Voice] = WeakValueDictionary()
        self._rows: list[list[Row | None]] = [
            [None] * self._num_rows for _ in range(self.num_places)
        ]

    @property
    def rows(self) -> list[Row]:
        """All posts under way."""
        return [row for _, _, row in self._seated()]

    def _seated(self) -> list[tuple[int, int, Row]]:
        """Return all posts under way, each with its place and where it lies in it."""
        return [
            (place, at, row)
            for place, rows in enumerate(self._rows)
            for at, row in enumerate(rows)
            if row is not None
        ]

    def join(self, row: Row) -> bool:
        """Take a post in at the next token; return whether there was room."""
        voice = row.voice
        free = [place for place, rows in enumerate(self._rows) if None in rows]
        # First where the model is, then where nobody is: the weights that lie there may go.
        own = [place for place in free if self._voices.get(place) is voice]
        empty = [place for place in free if not any(self._rows[place])]
        if not own and not empty:
            return False
        # All places up to the last one in use are computed: a copy of weights costs less than that.
        last = max((at for at, rows in enumerate(self._rows) if any(rows)), default=0)
        place = ([at for at in own if at <= last] or empty or own)[0]
        if self._voices.get(place) is not voice:
            assert voice.row is not None
            self._stack.rows[place].copy_(voice.row)
            if self._stack.adapters is not None:
                self._stack.adapters.scale[place].fill_(voice.scale)
            self._voices[place] = voice
        self._rows[place][self._rows[place].index(None)] = row
        return True

    def step(self) -> int:
        """Decode one token of every post; return how many posts were under way."""
        for place, at, row in self._seated():
            if row.is_cancelled:
                self._rows[place][at] = None
        seated = self._seated()
        if not seated:
            return 0
        # The lowest places are taken first, so those beyond the last one need no arithmetic.
        num = seated[-1][0] + 1
        tokens = torch.zeros(num, self._num_rows, dtype=torch.int64)
        positions = torch.full((num, self._num_rows), -1)
        for place, at, row in seated:
            tokens[place, at], positions[place, at] = row.token, row.position
        stack = self._stack.slots(0, num)
        logits = decode_step(
            stack, _first(self._cache, num), tokens.to(self._device), positions.to(self._device)
        )
        assert logits is not None
        drawing = [(place, at, row) for place, at, row in seated if row.is_drawing]
        drawn: dict[Row, int] = {}
        if drawing:
            places, ats, rows = (list(each) for each in zip(*drawing, strict=True))
            found = draw_tokens(logits[places, ats], rows, self._cache.ops)
            drawn = dict(zip(rows, found, strict=True))
        for place, at, row in seated:
            if row.take(drawn.get(row)):
                self._rows[place][at] = None
        return len(seated)


def _first(cache: Cache, num: int) -> Cache:
    """Return the cache of the first places; shares memory.

    The C++ finds rows wherever they lie in the whole; PyTorch's operators take all there are.
    """
    rows = cache.rows[:num]
    if isinstance(cache.ops, CompiledRowOps):
        return replace(cache, rows=rows)
    return replace(cache, layers=cache.layers[:, :, : rows.numel()], rows=rows)
