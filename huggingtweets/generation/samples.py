"""What was sampled from a model, as plain values; imports nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prediction:
    """One sampled post."""

    input: str
    """The prompt."""
    prediction: str
    """The whole post, prompt included, cut at the first line break."""


@dataclass(frozen=True)
class Samples:
    """What was sampled."""

    predictions: tuple[Prediction, ...]
    """Prompt after prompt; fewer than asked for where the guards refused every attempt."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Reason to how many drawn posts it refused, or of too long ones, cut."""

    @property
    def refusals(self) -> str:
        """What was refused, for people: `6 banned, 2 copied`."""
        return ", ".join(
            f"{count} {reason.replace('_', ' ')}" for reason, count in self.refused.items()
        )
