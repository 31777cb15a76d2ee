"""The section that compares the dataset with SA-1B: a table, and distributions of size, place and score.

All figures of SA-1B are from its paper (Segment Anything, Kirillov et al. 2023); its curves are not redrawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np

from flows.pages.markup import card, note, table
from flows.pages.svg import (
    ACCENT,
    MUTED,
    REFERENCE,
    STYLE,
    draw_bars,
    draw_marker,
    new_figure,
    to_svg,
)
from flows.report.contents import MaskSet, ReportContents
from flows.words import percent

SA1B_MASKS_PER_IMAGE = 100
"""Mean number of masks of an image of SA-1B (section 1: 1.1 B masks, 11 M images)."""
PAPER_THRESHOLDS = {"predicted_iou": 0.88, "stability": 0.95}
"""Thresholds for each score with which SA-1B was made (the paper's appendix B)."""

SIZE_BINS = 1000
CENTRE_BINS = 48
SCORE_BINS = 100


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """Histograms of one set of masks: by size, place and score.

    A histogram of a score leaves out the masks without that score. In array shapes, B is a number of equal bins over
    [0, 1]. H and W divide an image into a grid of cells, counted from the top left.
    """

    relative_size_B: np.ndarray
    """Number of masks by relative size, sqrt(mask area / image area); SIZE_BINS bins, int64."""
    iou_sum_B: np.ndarray
    """Sum of the predicted IoUs in each bin of relative size, float64; masks without a predicted IoU are left out."""
    scored_B: np.ndarray
    """Number of masks with a predicted IoU in each bin of relative size, int64."""
    centre_HW: np.ndarray
    """Number of masks by the centre of their box; CENTRE_BINS x CENTRE_BINS cells, int64."""
    predicted_iou_B: np.ndarray
    """Number of masks by predicted IoU; SCORE_BINS bins, int64."""
    stability_B: np.ndarray
    """Number of masks by stability score; SCORE_BINS bins, int64."""

    @property
    def median_relative_size(self) -> float:
        """Median of sqrt(mask area / image area) over the masks, exact to the width of a bin."""
        cumulated = np.cumsum(self.relative_size_B)
        return float((np.searchsorted(cumulated, cumulated[-1] / 2) + 0.5) / self.relative_size_B.size)


def render(contents: ReportContents) -> str:
    """Render the section as HTML; "" where there are no masks."""
    masks = contents.newest
    if masks is None or not masks.masks:
        return ""
    histograms = read_histograms(contents, masks)
    about = "What the paper states of SA-1B, next to this run. Its curves are not redrawn here."
    return (
        f"<h2>Beside SA-1B</h2>{note(about)}{card(_comparison(contents, masks, histograms))}"
        f'<div class="plots">{_all_plots(contents, masks, histograms)}</div>'
    )


def read_histograms(contents: ReportContents, masks: MaskSet) -> Histograms:
    """Count masks by size, place and score.

    The query engine counts, so that the memory needed does not grow with the dataset.
    """
    mine = f"m.plan IN {masks.plans_sql}"
    joined = f"FROM masks m JOIN images i ON m.image_id = i.image_id WHERE {mine}"
    size_bin = _bin("sqrt(m.area_px / (CAST(i.height AS DOUBLE) * i.width))", SIZE_BINS)
    column = _bin("(m.x0 + m.x1) / (2.0 * i.width)", CENTRE_BINS)
    row = _bin("(m.y0 + m.y1) / (2.0 * i.height)", CENTRE_BINS)
    iou = "CAST(m.predicted_iou AS DOUBLE)"
    sums = ("count(*)", f"sum({iou})", f"count({iou})")
    sizes_3B = _histogram(contents, size_bin, joined, SIZE_BINS, sums)
    centres_1B = _histogram(contents, f"{row} * {CENTRE_BINS} + {column}", joined, CENTRE_BINS**2)
    return Histograms(
        relative_size_B=sizes_3B[0].astype(np.int64),
        iou_sum_B=sizes_3B[1],
        scored_B=sizes_3B[2].astype(np.int64),
        centre_HW=centres_1B[0].astype(np.int64).reshape(CENTRE_BINS, CENTRE_BINS),
        predicted_iou_B=_score_histogram(contents, "predicted_iou", mine),
        stability_B=_score_histogram(contents, "stability_score", mine),
    )


def _score_histogram(contents: ReportContents, column: str, mine: str) -> np.ndarray:
    # The model's estimate is not bound to [0, 1]; what lies outside is counted in the outermost bins.
    source = f"FROM masks m WHERE {mine} AND m.{column} IS NOT NULL"
    bin_sql = _bin(f"CAST(m.{column} AS DOUBLE)", SCORE_BINS)
    counts: np.ndarray = _histogram(contents, bin_sql, source, SCORE_BINS)[0].astype(np.int64)
    return counts


def _bin(value: str, bins: int) -> str:
    # 1e-5: a float32 score of 0.7 is 0.69999999, and belongs to the bin that starts there.
    return f"CAST(greatest(0, least({bins - 1}, floor({value} * {bins} + 1e-5))) AS BIGINT)"


def _histogram(
    contents: ReportContents, bin_sql: str, source_sql: str, bins: int, values: Sequence[str] = ("count(*)",)
) -> np.ndarray:
    """Compute V SQL aggregates `values` in each of B bins, float64 [V, B]."""
    named = ", ".join(f"{value} AS value_{place}" for place, value in enumerate(values))
    out_VB = np.zeros((len(values), bins))
    for row in contents.rows(f"SELECT {bin_sql} AS bin, {named} {source_sql} GROUP BY bin"):
        out_VB[:, row["bin"]] = [row[f"value_{place}"] or 0 for place in range(len(values))]
    return out_VB


def _comparison(contents: ReportContents, masks: MaskSet, histograms: Histograms) -> str:
    bare = contents.images_by_count.get(0, 0)
    audit = "94 % of masks above 90 % IoU with their correction, 97 % above 75 % (500 images, section 5)"
    rows = (
        ("Images", f"{masks.images:,}", "11 million, shortest side 1500 px (section 5)"),
        ("Masks", f"{masks.masks:,}", "1.1 billion, all made automatically (section 5)"),
        ("Masks per image", f"{masks.masks_per_image:.1f}", "about 100 on average (section 1)"),
        ("Images without a mask", f"{bare:,} ({percent(bare, masks.images)})", "not stated"),
        ("Median √(mask area / image area)", f"{histograms.median_relative_size:.3f}", "drawn in figure 6, not stated"),
        ("Quality, judged by people", "not measured", audit),
    )
    return table(("", "#This run", "SA-1B"), rows)


def _all_plots(contents: ReportContents, masks: MaskSet, histograms: Histograms) -> str:
    # Sizes, numbers and places
    sizes = plot_relative_size(histograms.relative_size_B, histograms.median_relative_size)
    drawn = [
        _plot_card(
            "Mask size",
            sizes,
            "The axis of the paper's figure 6 (middle). SA-1B “tends to include a greater percentage of small and "
            "medium relative-size masks” than earlier datasets.",
        ),
        _plot_card(
            "Masks per image",
            plot_masks_per_image(contents.images_by_count),
            "The paper's figure 6 (left); SA-1B's mean as stated in section 1.",
        ),
        _plot_card(
            "Where masks lie",
            plot_centres(histograms.centre_HW),
            "Centres of the masks' boxes, as the paper's figure 5: every dataset leans to the middle of the image; "
            "SA-1B covers the corners more than LVIS v1 and ADE20K.",
        ),
    ]

    # Scores, where the masks have any
    if histograms.predicted_iou_B.any():
        svg = plot_score(
            histograms.predicted_iou_B,
            name="predicted IoU",
            threshold=masks.thresholds.get("predicted_iou"),
            paper_threshold=PAPER_THRESHOLDS["predicted_iou"],
        )
        drawn.append(_plot_card("Predicted IoU", svg, "The model's own estimate. SA-1B's threshold: appendix B."))
    if histograms.stability_B.any():
        svg = plot_score(
            histograms.stability_B,
            name="stability score",
            threshold=masks.thresholds.get("stability"),
            paper_threshold=PAPER_THRESHOLDS["stability"],
        )
        about = "IoU of a slightly tighter and a slightly looser cut. SA-1B's threshold: appendix B."
        drawn.append(_plot_card("Stability", svg, about))
    if histograms.scored_B.any():
        svg = plot_iou_by_size(histograms.iou_sum_B, histograms.scored_B)
        about = "Mean over the kept masks, and below it how many they are. Crops (--preset paper) look for small ones."
        drawn.append(_plot_card("Predicted IoU by mask size", svg, about))
    return "".join(drawn)


def _plot_card(name: str, svg: str, caption: str) -> str:
    return f'<div class="card"><h3>{name}</h3>{svg}<p>{caption}</p></div>'


def plot_relative_size(counts_B: np.ndarray, median: float) -> str:
    """Plot the distribution of sqrt(mask area / image area).

    Args:
        counts_B: Number of masks in each of B equal bins over [0, 1]; B is a multiple of 50.
        median: Median to mark.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        draw_bars(axes, np.linspace(0, 1, 51), counts_B.reshape(50, -1).sum(axis=1))
        draw_marker(axes, median, f"median {median:.2g}", ACCENT)
        axes.set_xlim(0, 1)
        axes.set_xlabel("√(mask area / image area)")
        axes.set_ylabel("masks (%)")
        return to_svg(figure, f"Relative mask size; median {median:.2g}")


def plot_masks_per_image(images_by_count: dict[int, int]) -> str:
    """Plot the distribution of masks per image; `images_by_count` maps a number of masks to a number of images."""
    numbers = np.array(list(images_by_count), np.int64)
    images = np.array(list(images_by_count.values()), np.int64)
    mean = float((numbers * images).sum() / images.sum())
    top = max(int(numbers.max()), SA1B_MASKS_PER_IMAGE + 10)
    edges = np.arange(0, top + _nice_step(top / 24) + 1, _nice_step(top / 24))
    counts_B, _ = np.histogram(numbers, bins=edges, weights=images)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        draw_bars(axes, edges, counts_B)
        close = abs(mean - SA1B_MASKS_PER_IMAGE) < 0.3 * top
        draw_marker(axes, SA1B_MASKS_PER_IMAGE, f"SA-1B mean ≈ {SA1B_MASKS_PER_IMAGE}", REFERENCE)
        draw_marker(axes, mean, f"mean {mean:.1f}", ACCENT, row=1 if close else 0)
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel("masks in an image")
        axes.set_ylabel("images (%)")
        return to_svg(figure, f"Masks per image; mean {mean:.1f}, SA-1B about {SA1B_MASKS_PER_IMAGE}")


def plot_iou_by_size(iou_sum_B: np.ndarray, scored_B: np.ndarray) -> str:
    """Plot the mean predicted IoU in six classes of relative mask size, sqrt(mask area / image area).

    Args:
        iou_sum_B: Sum of the predicted IoUs of the masks in each of B equal bins of relative size over [0, 1].
        scored_B: Number of masks with a predicted IoU in each of these bins.
    """
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
    """Plot how many masks have the centre of their box in each cell of the image.

    Args:
        density_HW: Number of masks in each of 48 x 48 cells, counted from the top left of the image.
    """
    density_HW = _coarser(density_HW)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        percent_HW = 100 * density_HW / max(1, density_HW.sum())
        rows, columns = density_HW.shape
        image = axes.pcolormesh(
            np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1), percent_HW, facecolor=ACCENT, edgecolor="none"
        )
        image.set_array(None)
        image.set_facecolor(
            [(*_rgb(ACCENT), float(alpha)) for alpha in (percent_HW / max(percent_HW.max(), 1e-9)).ravel()]
        )
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_xlim(0, 1)
        axes.set_ylim(1, 0)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel("x / image width")
        axes.set_ylabel("y / image height")
        even = 100 / (rows * columns)
        title = f"densest cell {percent_HW.max():.1f} % of masks; even spread {even:.2f} %"
        axes.set_title(title, fontsize=8, color=MUTED)
        return to_svg(figure, "Where in the image the masks' boxes are centred")


def plot_score(counts_B: np.ndarray, *, name: str, threshold: float | None, paper_threshold: float) -> str:
    """Plot the distribution of a score over the kept masks.

    Args:
        counts_B: Number of masks in each of B equal bins of the score over [0, 1].
        name: Name of the score.
        threshold: Threshold that the masks were filtered with, to mark; None or 0 for no threshold.
        paper_threshold: Threshold in the SAM paper, to mark.
    """
    edges = np.linspace(0, 1, counts_B.size + 1)
    lowest = float(edges[np.flatnonzero(counts_B)[0]]) if counts_B.any() else paper_threshold
    left = max(0.0, np.floor((min(lowest, threshold or 1.0, paper_threshold) - 0.04) * 20) / 20)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure()
        draw_bars(axes, edges, counts_B)
        same = threshold is not None and abs(threshold - paper_threshold) < 0.005
        if not same:
            label = f"SA-1B's threshold {paper_threshold:.2f}"
            draw_marker(axes, paper_threshold, label, REFERENCE, row=1, span=1 - left)
        if threshold:  # at 0 the filter is off
            label = f"threshold {threshold:.2f}" + (" (as SA-1B)" if same else "")
            draw_marker(axes, threshold, label, ACCENT, span=1 - left)
        axes.set_xlim(left, 1)
        axes.set_xlabel(name)
        axes.set_ylabel("kept masks (%)")
        return to_svg(figure, f"Distribution of {name} over the kept masks")


def _coarser(density_HW: np.ndarray) -> np.ndarray:
    """Merge cells until a cell holds four masks on average or 8 x 8 cells are left."""
    side = max(side for side in (8, 12, 16, 24, 48) if side == 8 or 4 * side**2 <= density_HW.sum())
    block = density_HW.shape[0] // side
    coarse: np.ndarray = density_HW.reshape(side, block, side, block).sum(axis=(1, 3))
    return coarse


def _nice_step(at_least: float) -> int:
    """Find the smallest number of the series 1, 2, 5, 10, 20, 50, ... that is `at_least` or more."""
    step = 1
    while step < at_least:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
