"""Three small pictures for the docs: bits per byte by posts, by epochs, by rank."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from markupsafe import Markup

from huggingtweets.publishing.charts import Axis, Frame, Point, number_axis
from quality_real.plan import SHORT, Row
from quality_real.rows import Rows

STYLE = (
    "text{font:11px sans-serif;fill:#52606d}.grid{stroke:#e4e7eb}"
    ".line{fill:none;stroke-width:2}.l0{stroke:#1f6feb}.l1{stroke:#d9730d}.l2{stroke:#2da44e}"
    ".d0{fill:#1f6feb}.d1{fill:#d9730d}.d2{fill:#2da44e}rect{fill:#fff}"
)
Lines = Mapping[str, Sequence[Point]]


def draw(title: str, x_label: str, lines: Lines, *, is_log: bool) -> str:
    """Return a picture that stands by itself, a mark at each value across."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    air = 0.08 * (max(ys) - min(ys)) or 0.1
    low, high = (xs[0], xs[-1]) if len(xs) > 1 else (xs[0] / 2, 2 * xs[0])
    across = Axis(low, high, [(x, f"{x:g}") for x in xs], is_log)
    frame = Frame(across, number_axis(min(ys) - air, max(ys) + air, 4))
    parts = []
    for index, (name, points) in enumerate(lines.items()):
        parts.append(
            Markup('<polyline class="line l{}" points="{}"/>').format(index, frame.points(points))
        )
        parts += [
            Markup('<circle class="d{}" cx="{}" cy="{}" r="3.5"/>').format(
                index, frame.x(x), frame.y(y)
            )
            for x, y in points
        ]
        parts.append(
            Markup('<text class="d{}" x="425" y="{}" text-anchor="end">{}</text>').format(
                index, 24 + 14 * index, name
            )
        )
    svg = str(frame.chart(title, x_label, parts).svg)
    inside = f"<style>{STYLE}</style><rect width='100%' height='100%'/>"
    head, _, rest = svg.partition(">")
    return (
        head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + f">{inside}{rest}\n"
    )


def mean_curve(rows: Sequence[Row], key: str) -> list[Point]:
    """Return a figure by epoch, mean over the rows that have all epochs."""
    curves = [[(line["epoch"], line[key]) for line in row["evals"]] for row in rows]
    most = max(map(len, curves))
    whole = [curve for curve in curves if len(curve) == most]
    return [
        (float(round(at[0][0])), fmean(bits for _, bits in at)) for at in zip(*whole, strict=True)
    ]


def by_epochs(rows: Rows) -> Lines:
    """Held-out and training posts over the epochs of the longest training."""
    settings = rows.settings("epochs")
    longest = max(settings.values(), key=lambda own: own[0]["figures"]["steps"], default=[])
    if not longest:
        return {}
    return {
        "held-out posts": mean_curve(longest, "bits"),
        "training posts": mean_curve(longest, "train_bits"),
    }


def by_rank(rows: Rows) -> Lines:
    """Held-out posts over the rank, of the accounts that have all ranks."""
    settings = [rows.settings("blocks").get(SHORT, []), *rows.settings("ranks").values()]
    accounts = [{row["run"]["account"] for row in own} for own in settings]
    shared = set.intersection(*accounts)
    points = []
    for own in settings if shared else ():
        rank = float(own[0]["recipe"]["recipe.lora_rank"])
        of_shared = [row for row in own if row["run"]["account"] in shared]
        points.append((rank, fmean(row["figures"]["bits"] for row in of_shared)))
    return {"held-out posts": sorted(points)} if len(points) > 1 else {}


def by_posts(rows: Rows) -> Lines:
    """Held-out posts over the number of training posts, of those that most accounts have."""
    settings = [*rows.settings("posts").values()]
    most = max(map(len, settings), default=0)
    settings = [own for own in settings if len(own) == most]
    accounts = [{row["run"]["account"] for row in own} for own in settings]
    shared = set.intersection(*accounts) if accounts else set()
    found: dict[str, list[Point]] = {}
    for own in settings if shared else ():
        run = own[0]["run"]
        bits = fmean(row["figures"]["bits"] for row in own if row["run"]["account"] in shared)
        name, _, _ = run["base"].partition(",")
        found.setdefault(f"from the {name}", []).append((float(run["num_train"]), bits))
    return {name: sorted(points) for name, points in sorted(found.items())}


def write_plots(rows: Rows, folder: Path) -> list[Path]:
    """Write the pictures there are figures for.

    Args:
        rows: all that was found.
        folder: to write into.
    """
    kinds = {
        "posts": ("training posts", by_posts(rows), True),
        "epochs": ("epochs", by_epochs(rows), False),
        "rank": ("rank of the adapter", by_rank(rows), True),
    }
    written = []
    for name, (label, lines, is_log) in kinds.items():
        if lines:
            path = folder / f"quality-{name}.svg"
            title = f"Bits per byte by {label}"
            path.write_text(draw(title, label, lines, is_log=is_log), encoding="utf-8")
            written.append(path)
    return written
