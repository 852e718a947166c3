"""What a W&B run is called, and which run it is: by the job and the user's environment.

W&B reads WANDB_TAGS, WANDB_NOTES and the like itself. What names one run (WANDB_RUN_ID, WANDB_NAME)
is meant for the training of a job that is alone; of many jobs it is what their names begin with, as
one id for all would leave all but the first untracked.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from huggingtweets.logs import redact
from huggingtweets.tracking.base import Phase, run_name

_MAX_CHARS = 120
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class RunNames:
    """The names of the runs of one job, a batch or a trial."""

    slug: str
    folder: Path
    identity: str = ""
    """Digest of the job; empty: every start makes new runs."""
    is_alone: bool = False

    def run_id(self, phase: Phase) -> str | None:
        """Return the id, the same for every start of the job; None: W&B makes one up."""
        asked = os.environ.get("WANDB_RUN_ID", "").strip()
        if asked and self._is_meant(phase):
            return asked
        if not (asked or self.identity):
            return None
        # Cut at the front: what tells the ids of a batch apart stands at the end.
        own = hashlib.sha256(f"{self.identity}/{self.slug}/{phase}".encode()).hexdigest()[:16]
        return _NOT_IN_IDS.sub("-", f"{asked}-{own}" if asked else own)[-_MAX_CHARS:]

    def name(self, phase: Phase) -> str:
        """Return the name shown for a run."""
        asked = redact(os.environ.get("WANDB_NAME", "").strip())
        own = run_name(self.slug, phase)
        if asked and self._is_meant(phase):
            return asked[:_MAX_CHARS]
        return f"{asked} {own}"[:_MAX_CHARS] if asked else own

    @property
    def group(self) -> str | None:
        """What jobs of one batch stand together by: as asked for, else the output folder."""
        asked = os.environ.get("WANDB_RUN_GROUP", "").strip()
        return redact(asked or self.folder.resolve().parent.name)[:_MAX_CHARS] or None

    def _is_meant(self, phase: Phase) -> bool:
        """Whether the environment's one run is this one."""
        return self.is_alone and phase in (Phase.train, Phase.trial)
