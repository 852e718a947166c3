"""Where the checkout lies, and a base that trains in a second or two.

Not in conftest.py: each folder may have one, and `import conftest` gives whichever came last.
"""

from pathlib import Path

ROOT = Path(__file__).parents[1]

SMALL_MODEL = (
    "model=tiny",
    "model.num_layers=2",
    "model.width=32",
    "model.num_heads=2",
    "model.vocab_size=400",
    "model.max_positions=64",
)
"""Overrides."""
