"""Draw the house from its imports: docs/house.svg, a row per floor, a box per folder or module.

    python benchmarks/house.py            # or: make picture

A box is as wide as its code is long. A line goes from a box to one that it imports; of those to the
ground floor, which everything stands on, none is drawn. Floors are those of tests/test_layers.py.
"""

import io
import sys
import tokenize
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import test_layers as layers  # type: ignore[import-not-found]  # noqa: E402

WIDTH, FLOOR, HEIGHT, GAP = 980, 58, 30, 10
LEAST = 64  # pixels of the narrowest box
_NO_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
)  # fmt: skip

GROUND = sorted(
    {name.partition(".")[0] for name in layers.MODULES if "." in name} & layers.FLOORS[0]
)
"""Folders on the ground floor."""

Edge = tuple[str, str]
Box = tuple[float, float, float]
"""Left end, top and width."""


def room_of(module: str) -> str:
    """Return the folder of a module, or the module where it lies in none."""
    room, _, inner = module.partition(".")
    return room if inner or room not in layers.FLOORS[0] else "ground"


def lines_of(path: Path) -> int:
    """Count the lines that hold code, docstrings among them."""
    code = io.StringIO(path.read_text(encoding="utf-8"))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(code.readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def place(sizes: Counter[str]) -> dict[str, Box]:
    """Put the rooms of each floor beside each other, the ground floor below all."""
    floors = [["ground", *GROUND], *(sorted(names & set(sizes)) for names in layers.FLOORS[1:])]
    floors = [names for names in floors if names]
    most = max(sum(sizes[name] for name in names) for names in floors)
    boxes: dict[str, Box] = {}
    for number, names in enumerate(floors):
        free = WIDTH - 2 * GAP - GAP * (len(names) - 1)
        widths = [max(LEAST + 6 * len(name), free * sizes[name] / most * 0.9) for name in names]
        left = (WIDTH - sum(widths) - GAP * (len(names) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            boxes[name] = (left, GAP + FLOOR * (len(floors) - 1 - number), width)
            left += width + GAP
    return boxes


def port(boxes: dict[str, Box], edge: Edge, edges: list[Edge], *, side: int) -> tuple[float, float]:
    """Return where a line leaves its upper box (side 0) or comes to its lower one (side 1)."""
    x, top, width = boxes[edge[side]]
    beside = [one for one in edges if one[side] == edge[side]]
    beside.sort(key=lambda one: boxes[one[1 - side]][0] + boxes[one[1 - side]][2] / 2)
    share = (beside.index(edge) + 1) / (len(beside) + 1)
    return x + width * share, top if side else top + HEIGHT


def draw(sizes: Counter[str], edges: Counter[Edge]) -> str:
    """Return the picture as SVG."""
    boxes = place(sizes)
    height = max(top for _, top, _ in boxes.values()) + HEIGHT + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Which folder imports which">',
        "<style>rect{fill:#eef1f7;stroke:#7b8794}text{font:13px sans-serif;fill:#1f2933}"
        "path{fill:none;stroke:#486581}.n{font-size:10px;fill:#52606d}</style>",
        f'<rect width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>',
    ]
    drawn = sorted(edge for edge in edges if edge[1] not in ("ground", *GROUND))
    for edge in drawn:
        start, end = port(boxes, edge, drawn, side=0), port(boxes, edge, drawn, side=1)
        middle = (start[1] + end[1]) / 2
        parts.append(
            f'<path d="M{start[0]:.0f},{start[1]:.0f} C{start[0]:.0f},{middle:.0f} '
            f'{end[0]:.0f},{middle:.0f} {end[0]:.0f},{end[1]:.0f}" '
            f'style="stroke-width:{min(4.0, 0.5 + edges[edge] / 6):.1f};opacity:.4">'
            f"<title>{' imports '.join(edge)}: {edges[edge]} times</title></path>"
        )
    for name, (x, y, width) in boxes.items():
        middle = x + width / 2
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HEIGHT}" rx="5"/>'
            f'<text x="{middle:.0f}" y="{y + 14:.0f}" text-anchor="middle">{escape(name)}</text>'
            f'<text class="n" x="{middle:.0f}" y="{y + 26:.0f}" text-anchor="middle">'
            f"{sizes[name]:,} lines</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the picture."""
    sizes: Counter[str] = Counter()
    edges: Counter[Edge] = Counter()
    for name, path in layers.MODULES.items():
        room = room_of(name)
        sizes[room] += lines_of(path)
        for other in layers.imports(path):
            if room_of(other) != room:
                edges[room, room_of(other)] += 1
    (ROOT / "docs" / "house.svg").write_text(draw(sizes, edges), encoding="utf-8")


if __name__ == "__main__":
    main()
