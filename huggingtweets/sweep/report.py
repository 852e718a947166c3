"""report.html of a sweep: one self-contained page. No script, and nothing is fetched."""

from dataclasses import dataclass

from huggingtweets.publishing.names import visible
from huggingtweets.publishing.pages import page_environment
from huggingtweets.sweep.charts import front, history, label, shown, slices
from huggingtweets.sweep.plan import Sweep
from huggingtweets.sweep.status import best_command, won
from huggingtweets.sweep.summary import SweepSummary, TrialRow

MAX_ROWS = 200
"""Of the table of trials; sweep.json and the study have all."""
MAX_USERS = 100


@dataclass(frozen=True)
class UserRow:
    """How the trials differ for one user."""

    slug: str
    best: float
    """Held-out bits per byte in the trial that is best for all."""
    own_best: float
    """The lowest of all trials."""
    own_number: int
    own_params: str
    worst: float


def render_sweep_report(sweep: Sweep, summary: SweepSummary) -> str:
    """Return the page."""
    environment = page_environment()
    environment.filters.update(value=shown, label=label)
    space = sweep.spec.space
    pictures = [history(summary, index) for index in range(len(summary.names))]
    users = user_rows(summary)
    done = sorted((row for row in summary.rows if row.values), key=lambda row: row.values)
    others = [row for row in summary.rows if not row.values]
    return environment.get_template("sweep.html.jinja").render(
        name=visible(sweep.spec.name),
        spec=sweep.spec,
        slugs=sweep.slugs,
        keys=list(space),
        summary=summary,
        counts=summary.counts,
        best=summary.row(summary.best[0]) if summary.best else None,
        pictures=[picture for picture in [*pictures, front(summary)] if picture],
        slices=slices(summary, space),
        importances=sorted(summary.importances.items(), key=lambda pair: -pair[1]),
        users=users[:MAX_USERS],
        num_users_hidden=max(0, len(users) - MAX_USERS),
        rows=[*done, *others][:MAX_ROWS],
        num_hidden=max(0, len(summary.rows) - MAX_ROWS),
        steps=sum(row.steps for row in summary.rows),
        planned=sum(row.planned_steps for row in summary.rows),
        seconds=sum(row.seconds for row in summary.rows),
        wall=wall_seconds(summary),
        folder=str(sweep.root.resolve()),
        command=best_command(sweep.root),
        won=won(summary),
    )


def user_rows(summary: SweepSummary) -> list[UserRow]:
    """Return what each user made of the trials; those who would choose otherwise first."""
    done = [row for row in summary.rows if row.values]
    if not summary.best:
        return []
    best = summary.row(summary.best[0])
    rows = []
    for slug, figures in best.users.items():
        scores = [(row.users[slug].heldout, row) for row in done]
        known = [(score, row) for score, row in scores if score is not None]
        if figures.heldout is None or not known:
            continue
        own_best, own = min(known, key=lambda pair: pair[0])
        worst = max(score for score, _ in known)
        rows.append(UserRow(slug, figures.heldout, own_best, own.number, _params(own), worst))
    return sorted(rows, key=lambda row: row.own_best - row.best)


def _params(row: TrialRow) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {shown(v)}" for key, v in row.params.items())


def wall_seconds(summary: SweepSummary) -> float:
    """Return how long trials were under way; pauses between starts do not count."""
    spans = sorted(
        (row.started.timestamp(), row.ended.timestamp())
        for row in summary.rows
        if row.started and row.ended
    )
    total, until = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
