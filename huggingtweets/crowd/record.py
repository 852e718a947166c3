"""The crowd: a model of some posts of many people, from which the models of others may begin."""

from dataclasses import dataclass
from pathlib import Path

from huggingtweets.config.schema import BATCH, CROWD_FOLDER
from huggingtweets.storage.files import read_json, write_json
from huggingtweets.storage.paths import expanded
from huggingtweets.storage.seals import find_fault, take_seals

RECORD = "people.json"
"""In a crowd's folder: whose posts are in it, and what its finished model is."""


@dataclass(frozen=True)
class Crowd:
    """A finished one."""

    folder: Path
    base: str
    """Name of the base it was trained from."""
    people: tuple[str, ...]
    """Handles."""
    num_posts: int

    @property
    def model(self) -> Path:
        """Folder of the whole model."""
        return self.folder / "model"

    @property
    def told(self) -> str:
        """What a card says of it: nobody's name."""
        return f"{self.num_posts:,} posts of {len(self.people)} people"


def crowd_folder(warm_start: str, output_dir: Path) -> Path:
    """Return where the crowd lies, or is to lie, that a `recipe.warm_start` means."""
    return output_dir / CROWD_FOLDER if warm_start == BATCH else expanded(warm_start)


def read_crowd(folder: Path) -> Crowd | None:
    """Return the crowd in a folder; None: there is none, it is unfinished, or damaged."""
    try:
        record = read_json(folder / RECORD)
        people = tuple(map(str, record["people"]))
        crowd = Crowd(folder, str(record["base"]), people, int(record["posts"]))
        is_whole = find_fault(crowd.model, record["files"]) is None
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return crowd if is_whole else None


def seal_crowd(crowd: Crowd) -> None:
    """Record whose posts are in it, once its model is written: only now it is finished.

    Who was in an earlier crowd of the folder stays recorded: models may have begun from that.
    """
    record = {
        "base": crowd.base,
        "people": list(crowd.people),
        "earlier": sorted(ever_in_crowd(crowd.folder) - set(crowd.people)),
        "posts": crowd.num_posts,
        "files": take_seals(crowd.model),
    }
    write_json(crowd.folder / RECORD, record)


def ever_in_crowd(folder: Path) -> frozenset[str]:
    """Return the handles of all whose posts a crowd in this folder ever held, whole or not."""
    try:
        record = read_json(folder / RECORD)
        return frozenset(map(str, (*record["people"], *record["earlier"])))
    except (OSError, ValueError, TypeError, LookupError):
        return frozenset()
