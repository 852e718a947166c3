"""Rows with named columns, of CSV, Parquet, datasets and plain JSON, read as posts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from huggingtweets.config.schema import SourceConfig
from huggingtweets.errors import SourceError
from huggingtweets.tweets.sources.posts import Post, Skip, parse_date, parse_id
from huggingtweets.tweets.sources.reading import nearest, show

_USUAL = {
    "text": "full_text text tweet tweet_text content body post message status_text",
    "user": "username screen_name user_name handle user_screen_name author_username user author",
    "id": "id_str id tweet_id tweetid status_id post_id",
    "date": "created_at date timestamp datetime createdat created time published_at published",
    "retweet": "is_retweet isretweet retweeted_status_id retweet",
}
_FALSE = frozenset({"false", "f", "0", "no", "n"})
_EMPTY = frozenset({"", "none", "null", "nan", "na"})


@dataclass(frozen=True)
class Columns:
    """Which column of a file holds what; None: none does."""

    text: str
    user: str | None = None
    id: str | None = None
    date: str | None = None
    retweet: str | None = None

    def names(self) -> list[str]:
        """Return the columns there are, each once."""
        every = (self.text, self.user, self.id, self.date, self.retweet)
        return list(dict.fromkeys(name for name in every if name is not None))


def choose_columns(
    names: Sequence[str], config: SourceConfig, where: str, *, is_of_one_user: bool
) -> Columns:
    """Pick the columns: those configured, else the usual names, whatever their case.

    Args:
        names: the columns the file has.
        config: what the user says about them.
        where: the file, for messages.
        is_of_one_user: the file's name says whose posts it holds, so no column is guessed to.

    Raises:
        SourceError: a configured column is not there, or no column looks like text.
    """
    usual = {key: words.split() for key, words in _USUAL.items()}
    if is_of_one_user or config.user_column == "":
        usual["user"] = []
    text = pick_column("text", config.text_column, usual["text"], names, where)
    if text is None:
        raise SourceError(
            f"{where}: got the columns {', '.join(show(name) for name in names[:12])}; expected "
            "one with the posts; name it with source.text_column="
        )
    return Columns(
        text,
        pick_column("user", config.user_column or None, usual["user"], names, where),
        pick_column("id", config.id_column, usual["id"], names, where),
        pick_column("date", config.date_column, usual["date"], names, where),
        pick_column("retweet", config.retweet_column, usual["retweet"], names, where),
    )


def pick_column(
    key: str, configured: str | None, usual: Sequence[str], names: Collection[str], where: str
) -> str | None:
    """Return the configured name if the file has it, else the first usual name it has.

    Raises:
        SourceError: the configured one is not there.
    """
    if configured is not None:
        if configured not in names:
            raise SourceError(
                f"{where}: got source.{key}_column={configured}; expected a column of the file"
                f"{nearest(configured, names)}"
            )
        return configured
    by_lower = {name.lower().strip(): name for name in reversed(list(names))}
    return next((by_lower[name] for name in usual if name in by_lower), None)


def row_to_post(
    row: Mapping[str, object], columns: Columns, line: int | None = None
) -> Post | Skip:
    """Read one row; a row without a text, or without a user where there is a column, is none."""
    text = row.get(columns.text)
    if not isinstance(text, str):
        return Skip(f"no text in the column {show(columns.text)}", line)
    author = None
    if columns.user is not None:
        value = row.get(columns.user)
        if isinstance(value, bool | float) or not str(value if value is not None else "").strip():
            return Skip(f"no user in the column {show(columns.user)}", line)
        author = str(value)[:200]
    return Post(
        text,
        parse_id(row.get(columns.id)) if columns.id else None,
        parse_date(row.get(columns.date)) if columns.date else None,
        _is_retweet(row.get(columns.retweet), columns.retweet) if columns.retweet else None,
        author,
    )


def _is_retweet(value: object, column: str) -> bool | None:
    """Read a flag in any spelling, or the id of the post that was retweeted."""
    word = str(value if value is not None else "").strip().lower()
    if word in _EMPTY:
        return False if column.lower().endswith("id") else None
    return word not in _FALSE
