"""The graph of a lineage as an SVG file or an HTML page: what was used on the left, what it became on the right."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from flows.lineage.graph import Graph, Key, direct_edges
from flows.pages.markup import card, document, table, text, write_page
from flows.pages.svg import ACCENT, CARD, INK, LINE, MUTED, STYLE, make_svg_file, to_svg
from flows.words import moment
from stages.training.lineage import Link

BOX_WIDTH, BOX_HEIGHT = 2.35, 0.62
"""Size of a box, in inches."""
COLUMN_WIDTH, ROW_HEIGHT = 3.0, 0.78
"""Distance of two boxes, in inches."""
MAX_ROWS = 12
"""Largest number of boxes in a column; a longer column ends with a box that counts the others."""
MAX_ID, MAX_DETAIL = 30, 44
"""Largest numbers of letters in the lines of a box."""


def write_graph(graph: Graph, path: Path) -> Path:
    """Draw a graph into an SVG file, or into an HTML page with all links below it, by the name's end."""
    svg = draw(graph)
    if path.suffix == ".svg":
        return write_page(make_svg_file(svg), path)
    lineage = graph.lineage
    body = (
        f'<p class="kicker">gigamask lineage</p><h1>{text(lineage.kind)} {text(lineage.id)}</h1>'
        f'<div class="stack">{card(svg)}</div>'
        f"<h2>Made from</h2>{card(_links(lineage.made_from))}<h2>Made into</h2>{card(_links(lineage.made_into))}"
        f"<footer>Written {moment(datetime.now(UTC))}.</footer>"
    )
    return write_page(document(f"{lineage.kind} {lineage.id} · gigamask lineage", body), path)


def draw(graph: Graph) -> str:
    """Draw a graph as a bare <svg> of its natural size."""
    columns = _columns(graph)
    places, hidden = _places(columns)
    first, last = min(columns), max(columns)
    width = (last - first) * COLUMN_WIDTH + BOX_WIDTH + 0.2
    rows = min(max(len(keys) for keys in columns.values()), MAX_ROWS + 1)
    height = rows * ROW_HEIGHT + 0.2
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-0.1, width - 0.1)
        axes.set_ylim(-height / 2, height / 2)
        for used, made in sorted(direct_edges(graph)):
            if used in places and made in places:
                _draw_edge(axes, places[used], places[made])
        for key, place in places.items():
            node = graph.nodes[key]
            _draw_box(axes, place, (node.kind, node.id, node.detail), is_start=node.column == 0)
        for place, count in hidden:
            _draw_box(axes, place, ("", f"and {count} more", "the list below has those of one step"), is_start=False)
        lineage = graph.lineage
        return _keep_size(to_svg(figure, f"Lineage of {lineage.kind} {lineage.id}"), width)


def _columns(graph: Graph) -> Mapping[int, Sequence[Key]]:
    """Sort the nodes into columns; within one, by kind in the order in which they were found."""
    columns: dict[int, list[Key]] = {}
    for key, node in graph.nodes.items():
        columns.setdefault(node.column, []).append(key)
    kinds = list(dict.fromkeys(node.kind for node in graph.nodes.values()))
    return {column: sorted(keys, key=lambda key: kinds.index(key[0])) for column, keys in columns.items()}


def _places(
    columns: Mapping[int, Sequence[Key]],
) -> tuple[dict[Key, tuple[float, float]], list[tuple[tuple[float, float], int]]]:
    """Place the left middle of each box, in inches; the second list has the boxes that count those not drawn."""
    places, hidden = dict[Key, tuple[float, float]](), list[tuple[tuple[float, float], int]]()
    for column, keys in columns.items():
        x = (column - min(columns)) * COLUMN_WIDTH
        shown = keys if len(keys) <= MAX_ROWS + 1 else keys[:MAX_ROWS]
        rows = len(shown) + (len(shown) < len(keys))
        tops = [((rows - 1) / 2 - row) * ROW_HEIGHT for row in range(rows)]
        places |= {key: (x, y) for key, y in zip(shown, tops, strict=False)}
        if len(shown) < len(keys):
            hidden.append(((x, tops[-1]), len(keys) - len(shown)))
    return places, hidden


def _draw_edge(axes: Axes, used: tuple[float, float], made: tuple[float, float]) -> None:
    (x0, y0), (x1, y1) = (used[0] + BOX_WIDTH, used[1]), made
    bend = max(0.35, (x1 - x0) / 2)
    curve = Curve(
        [(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)],
        [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4],
    )
    arrow = FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=8, color=MUTED, linewidth=0.8, zorder=1)
    axes.add_patch(arrow)


def _draw_box(axes: Axes, place: tuple[float, float], words: tuple[str, str, str], *, is_start: bool) -> None:
    x, y = place
    box = FancyBboxPatch(
        (x, y - BOX_HEIGHT / 2),
        BOX_WIDTH,
        BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=CARD,
        edgecolor=ACCENT if is_start else LINE,
        linewidth=2 if is_start else 1,
        zorder=2,
    )
    axes.add_patch(box)
    kind, name, detail = words
    lines = [(0.17, kind, MUTED, 7.0, "normal"), (0.0, _shorten(name), INK, 8.5, "bold")]
    lines.append((-0.18, _cut(detail), MUTED, 7.0, "normal"))
    for up, line, colour, size, weight in lines:
        axes.text(x + 0.1, y + up, line, color=colour, fontsize=size, fontweight=weight, va="center", zorder=3)


def _shorten(line: str) -> str:
    """Cut the middle out of a long id: ids differ at their ends."""
    return line if len(line) <= MAX_ID else f"{line[: MAX_ID - 13]}…{line[-12:]}"


def _cut(line: str) -> str:
    return line if len(line) <= MAX_DETAIL else f"{line[: MAX_DETAIL - 1]}…"


def _keep_size(svg: str, width: float) -> str:
    """Give a drawing its natural width, so that a wide one scrolls and a narrow one is not blown up."""
    return svg.replace("<svg ", f'<svg style="display: block; width: {width * 96:.0f}px; height: auto" ', 1)


def _links(links: Sequence[Link]) -> str:
    rows = [(text(link.kind), f"<code>{text(link.id)}</code>", text(link.detail)) for link in links]
    return table(("Kind", "Id", "About it"), rows) if rows else "Nothing."
