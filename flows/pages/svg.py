"""Figures as inline SVG: what all share, and those of a dataset's report.

Colours are CSS variables of the page, so that they follow light and dark mode.

What is said of SA-1B is what the paper states (Segment Anything, Kirillov et al. 2023); its curves are not redrawn.
"""

import io
import re
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

SA1B_MASKS_PER_IMAGE = 100
"""Section 1: about 100 masks an image on average (1.1 B masks, 11 M images)."""
PAPER_PREDICTED_IOU = 0.88
PAPER_STABILITY = 0.95
"""Appendix B: the thresholds SA-1B was made with."""

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


def plot_relative_size(counts_B: np.ndarray, median: float) -> str:
    """Shares of masks by sqrt(mask area / image area); `counts_B` has equal bins over [0, 1], a multiple of 50."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        _draw_bars(axes, np.linspace(0, 1, 51), counts_B.reshape(50, -1).sum(axis=1))
        _draw_marker(axes, median, f"median {median:.2g}", ACCENT)
        axes.set_xlim(0, 1)
        axes.set_xlabel("√(mask area / image area)")
        axes.set_ylabel("share of masks (%)")
        return to_svg(figure, f"Relative mask size; median {median:.2g}")


def plot_masks_per_image(images_by_count: dict[int, int]) -> str:
    """Shares of images by their number of masks; `images_by_count` maps a number of masks to a number of images."""
    numbers = np.array(list(images_by_count), np.int64)
    images = np.array(list(images_by_count.values()), np.int64)
    mean = float((numbers * images).sum() / images.sum())
    top = max(int(numbers.max()), SA1B_MASKS_PER_IMAGE + 10)
    edges = np.arange(0, top + _nice_step(top / 24) + 1, _nice_step(top / 24))
    counts_B, _ = np.histogram(numbers, bins=edges, weights=images)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        _draw_bars(axes, edges, counts_B)
        close = abs(mean - SA1B_MASKS_PER_IMAGE) < 0.3 * top
        _draw_marker(axes, SA1B_MASKS_PER_IMAGE, f"SA-1B mean ≈ {SA1B_MASKS_PER_IMAGE}", REFERENCE)
        _draw_marker(axes, mean, f"mean {mean:.1f}", ACCENT, row=1 if close else 0)
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel("masks in an image")
        axes.set_ylabel("share of images (%)")
        return to_svg(figure, f"Masks per image; mean {mean:.1f}, SA-1B about {SA1B_MASKS_PER_IMAGE}")


def plot_iou_by_size(iou_sum_B: np.ndarray, scored_B: np.ndarray) -> str:
    """Mean predicted IoU of the masks in six classes of sqrt(mask area / image area); bins are equal over [0, 1]."""
    edges = np.array([0, 0.02, 0.05, 0.1, 0.2, 0.4, 1])
    starts = np.round(edges[:-1] * scored_B.size).astype(np.int64)
    masks_C = np.add.reduceat(scored_B, starts)
    mean_C = np.add.reduceat(iou_sum_B, starts) / np.maximum(masks_C, 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        places = np.arange(masks_C.size)
        axes.bar(places, mean_C, 0.84, color=ACCENT, alpha=0.75, linewidth=0)
        for place, mean, masks in zip(places, mean_C, masks_C, strict=True):
            label = f"{mean:.2f}\n{masks:,}" if masks else "none"
            axes.text(
                float(place), float(mean), label, ha="center", va="bottom", fontsize=8, color=MUTED, linespacing=1.3
            )
        axes.set_xticks(places, [f"< {edge:g}" for edge in edges[1:-1]] + ["≤ 1"])
        axes.set_ylim(0, 1.3)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("√(mask area / image area)")
        axes.set_ylabel("mean predicted IoU")
        return to_svg(figure, "Mean predicted IoU and number of masks by relative mask size")


def plot_centres(density_HW: np.ndarray) -> str:
    """Shares of masks by where their box is centred: counts over the picture from its top left, [48, 48] cells."""
    density_HW = _coarser(density_HW)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        share_HW = 100 * density_HW / max(1, density_HW.sum())
        rows, columns = density_HW.shape
        image = axes.pcolormesh(
            np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1), share_HW, facecolor=ACCENT, edgecolor="none"
        )
        image.set_array(None)
        image.set_facecolor([(*_rgb(ACCENT), float(alpha)) for alpha in (share_HW / max(share_HW.max(), 1e-9)).ravel()])
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel("x / image width")
        axes.set_ylabel("y / image height")
        even = 100 / (rows * columns)
        title = f"densest cell {share_HW.max():.1f} % of masks; even spread {even:.2f} %"
        axes.set_title(title, fontsize=8, color=MUTED)
        return to_svg(figure, "Where in the picture the masks' boxes are centred")


def plot_score(counts_B: np.ndarray, *, name: str, threshold: float | None, paper_threshold: float) -> str:
    """Shares of kept masks by a score; `counts_B` has equal bins over [0, 1]. Thresholds are drawn."""
    edges = np.linspace(0, 1, counts_B.size + 1)
    lowest = float(edges[np.flatnonzero(counts_B)[0]]) if counts_B.any() else paper_threshold
    left = max(0.0, np.floor((min(lowest, threshold or 1.0, paper_threshold) - 0.04) * 20) / 20)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        _draw_bars(axes, edges, counts_B)
        same = threshold is not None and abs(threshold - paper_threshold) < 0.005
        if not same:
            label = f"SA-1B's threshold {paper_threshold:.2f}"
            _draw_marker(axes, paper_threshold, label, REFERENCE, row=1, span=1 - left)
        if threshold:  # at 0 the filter is off
            label = f"threshold {threshold:.2f}" + (" (as SA-1B)" if same else "")
            _draw_marker(axes, threshold, label, ACCENT, span=1 - left)
        axes.set_xlim(left, 1)
        axes.set_xlabel(name)
        axes.set_ylabel("share of kept masks (%)")
        return to_svg(figure, f"Distribution of {name} over the kept masks")


def new_figure() -> tuple[Figure, Axes]:
    """A figure of one plot, as wide as a card of the page; to be made and drawn within `STYLE`."""
    figure = Figure(figsize=(4.9, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure, axes


def _draw_bars(axes: Axes, edges: np.ndarray, counts_B: np.ndarray) -> None:
    """Bars in percent, with head-room for the markers' labels."""
    share_B = 100 * counts_B / max(1, counts_B.sum())
    gap = 0.12 * (edges[1] - edges[0])
    axes.bar(edges[:-1] + gap / 2, share_B, np.diff(edges) - gap, align="edge", color=ACCENT, alpha=0.75, linewidth=0)
    axes.set_ylim(0, max(1.0, float(share_B.max()) * 1.28))


def _draw_marker(axes: Axes, x: float, label: str, colour: str, *, row: int = 0, span: float | None = None) -> None:
    """A vertical line with its label at the top; `row` 1 writes the label one line lower."""
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


def _coarser(density_HW: np.ndarray) -> np.ndarray:
    """The same counts in as many cells as leave four masks a cell on average, at least 8 x 8."""
    side = max(side for side in (8, 12, 16, 24, 48) if side == 8 or 4 * side**2 <= density_HW.sum())
    block = density_HW.shape[0] // side
    coarse: np.ndarray = density_HW.reshape(side, block, side, block).sum(axis=(1, 3))
    return coarse


def _nice_step(at_least: float) -> int:
    """The first of 1, 2, 5, 10, 20, 50, ... that is not below `at_least`."""
    step = 1
    while step < at_least:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def to_svg(figure: Figure, description: str) -> str:
    """The bare <svg> element: no prologue, no metadata, the page's font and colours, ids of its own."""
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
