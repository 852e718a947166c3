"""Index arithmetic on ragged arrays laid end to end."""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def spans(starts: Indices, lengths: Indices) -> Indices:
    """Return the indices of many spans, one span after another.

    `spans([5, 2], [2, 3])` is `[5, 6, 2, 3, 4]`.
    """
    offsets = np.cumsum(lengths) - lengths
    within = np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(offsets, lengths)
    return within + np.repeat(starts, lengths)
