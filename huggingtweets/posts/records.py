"""Posts as received: `Post`, `Timeline`, and their form on disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from huggingtweets.errors import SourceError
from huggingtweets.storage.files import read_jsonl, set_aside, write_jsonl


@dataclass(frozen=True)
class Post:
    """One post, its text as the service gave it."""

    id: str
    text: str
    created_at: str | None = None
    """UTC, `2022-04-28T00:45:59Z`."""
    is_retweet: bool | None = None
    """None where the source does not say: then a text that begins with `RT @` is one."""


@dataclass(frozen=True)
class Timeline:
    """The posts of one person, newest first."""

    handle: str
    display_name: str
    """As the person wrote it: hostile until escaped."""
    posts: tuple[Post, ...]
    notes: tuple[str, ...] = ()
    """What the source skipped or could not match, one sentence each."""
    picture_url: str | None = None
    """Where the profile picture is, by the source's word; nothing is fetched from it unasked."""
    how: tuple[str, ...] = field(default=(), compare=False)
    """What the file was taken for, as `check` shows it; not kept on disk."""


def write_timelines(path: Path, timelines: Sequence[Timeline]) -> None:
    """Write the posts of one job, atomically: a header line per person, then a line per post."""
    rows: list[dict[str, object]] = []
    for timeline in timelines:
        head: dict[str, object] = {
            "handle": timeline.handle,
            "display_name": timeline.display_name,
            "notes": list(timeline.notes),
            "num_tweets": len(timeline.posts),
            "picture_url": timeline.picture_url,
        }
        rows += [head, *(vars(post) for post in timeline.posts)]
    told = ({key: value for key, value in row.items() if value is not None} for row in rows)
    write_jsonl(path, told)


def read_timelines(path: Path) -> tuple[Timeline, ...]:
    """Read what `write_timelines` wrote.

    Raises:
        SourceError: the file is damaged.
    """
    try:
        timelines = []
        rows = iter(read_jsonl(path))
        for head in rows:
            posts = tuple(Post(**row) for row in islice(rows, head["num_tweets"]))
            if len(posts) != head["num_tweets"]:
                raise ValueError("posts are missing at the end")
            names, notes = (head["handle"], head["display_name"]), tuple(head["notes"])
            timelines.append(Timeline(*names, posts, notes, head.get("picture_url")))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as err:
        raise SourceError(
            f"{path}: cannot be read ({err}); expected the posts of a job; delete the file"
        ) from err
    return tuple(timelines)


def is_saved(path: Path, handles: Sequence[str]) -> bool:
    """Whether a file holds the posts of these very people; any other goes aside."""
    if not (path.exists() or path.is_symlink()):
        return False
    try:
        timelines = read_timelines(path)
        fault = "holds the posts of other people"
        if [timeline.handle for timeline in timelines] == list(handles):
            return True
    except SourceError as err:
        fault = str(err).partition("; expected")[0].removeprefix(f"{path}: ")
    set_aside(path, fault)
    return False
