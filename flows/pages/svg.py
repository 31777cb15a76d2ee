"""Plots as inline SVG: style, bars, markers, and the conversion from matplotlib to a bare <svg>.

Colours are CSS variables of the page, so that they follow light and dark mode.
"""

import io
import re
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Matplotlib wants real colours; these stand for the page's variables and occur nowhere else.
INK, MUTED, LINE, ACCENT, REFERENCE, CARD = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06"
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", REFERENCE: "--reference", CARD: "--card",
}  # fmt: skip
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "gigamask",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


def new_figure() -> tuple[Figure, Axes]:
    """Make a figure with one plot, as wide as a card of the page.

    Call this function, and draw, inside `matplotlib.rc_context(STYLE)`.
    """
    figure = Figure(figsize=(4.9, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure, axes


def draw_bars(axes: Axes, edges: np.ndarray, counts_B: np.ndarray) -> None:
    """Draw a histogram in percent of all counts, with room above the bars for the labels of markers."""
    percent_B = 100 * counts_B / max(1, counts_B.sum())
    gap = 0.12 * (edges[1] - edges[0])
    axes.bar(edges[:-1] + gap / 2, percent_B, np.diff(edges) - gap, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
    axes.set_ylim(0, max(1.0, float(percent_B.max()) * 1.28))


def draw_marker(axes: Axes, x: float, label: str, colour: str, *, row: int = 0, span: float | None = None) -> None:
    """Draw a vertical line with its label at the top; `row` 1 writes the label one line lower."""
    axes.axvline(x, color=colour, linewidth=1.4, linestyle="-" if colour == ACCENT else (0, (4, 3)))
    right = axes.dataLim.x1 if span is None else 1.0
    width = span or max(right, x) or 1.0
    on_left = x > right - 0.42 * width
    axes.annotate(
        label,
        (x, 1 - 0.085 * row),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if on_left else 5, -3),
        textcoords="offset points",
        ha="right" if on_left else "left",
        va="top",
        color=colour,
        fontsize=8.5,
        fontweight="bold",
        bbox={"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1},
    )


def to_svg(figure: Figure, description: str) -> str:
    """Render a figure as a bare <svg> element: without metadata, in the page's font and colours, with unique ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    prefix = re.sub(r"\W+", "-", description.lower()).strip("-")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    opening = f'<svg role="img" aria-label="{escape(description)}" '
    return re.sub(r'<svg (.*?)width="[^"]*"(.*?)height="[^"]*"', rf"{opening}\1\2", text, count=1, flags=re.DOTALL)


def make_svg_file(svg: str) -> str:
    """Make a file of a bare <svg>: with the colours of the page, which follow light and dark mode."""
    sheet = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    style = sheet[: sheet.index("* {")] + ":root { background: var(--page); font-family: system-ui, sans-serif; }"
    end = svg.index(">") + 1
    return f'<?xml version="1.0" encoding="utf-8"?>\n{svg[:end]}<style>{style}</style>{svg[end:]}'
