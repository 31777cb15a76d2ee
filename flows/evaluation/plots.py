"""Plots of an evaluation as inline SVG. The model has the page's accent colour; the compared model has the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.evaluation.scores import Calibration, Estimate
from flows.pages.svg import ACCENT, REFERENCE, STYLE, new_figure, to_svg

COLOURS = (ACCENT, REFERENCE)
MARKERS = ("o", "D")
PANELS_IN_ROW = 3


@dataclass(frozen=True, kw_only=True)
class Series:
    """Estimates of one metric for one model, with the name of the model."""

    model: str
    figures: Mapping[str, Estimate | None]
    """Estimates by group or by number of clicks; None where nothing was measured."""


def plot_groups(series: Sequence[Series], *, of: str, labels: Mapping[str, str]) -> str:
    """Plot one row for each entry of `labels`: the mean and 95 % interval of each model.

    Args:
        series: At most two series: first that of the model, then that of the compared model.
        of: Label of the axis, which names the plotted metric.
        labels: Labels of the rows by key of the estimates in `series`, from the top row down.
    """
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(4.9, 0.9 + 0.36 * len(labels)), layout="constrained")
        axes = drawing.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        for number, one in enumerate(series):
            shift = 0.0 if len(series) == 1 else (-0.14, 0.14)[number]
            for row, group in enumerate(labels):
                if (figure := one.figures.get(group)) is not None:
                    _draw_mean(axes, figure, row + shift, number)
        axes.set_yticks(range(len(labels)), labels.values())
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel(of)
        _draw_legend(axes, series)
        return to_svg(drawing, f"{of} by {', '.join(labels)}")


def plot_over_clicks(panels: Mapping[str, Sequence[Series]]) -> str:
    """Plot the mean IoU over the number of clicks, with 95 % intervals.

    Args:
        panels: Series of the models, by domain; each domain has a panel of its own.
    """
    rows = -(-len(panels) // PANELS_IN_ROW)
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(12, 0.6 + 2.2 * rows), layout="constrained")
        grid = drawing.subplots(rows, min(PANELS_IN_ROW, len(panels)), sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (domain, series) in zip(grid.flat, panels.items(), strict=False):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.grid(axis="y")
            axes.set_ylim(0, 1)
            axes.set_title(domain, fontsize=9, loc="left")
            axes.set_xlabel("clicks")
            for number, one in enumerate(series):
                _draw_clicks(axes, one, number)
        grid[0, 0].set_ylabel("mean IoU")
        _draw_legend(grid[0, 0], next(iter(panels.values())))
        return to_svg(drawing, f"Mean IoU over clicks in {', '.join(panels)}")


def plot_calibration(calibration: Calibration) -> str:
    """Plot the mean true IoU of the candidates in each tenth of predicted IoU.

    The area of a dot shows how many candidates have a predicted IoU in that tenth.
    """
    with matplotlib.rc_context(STYLE):
        drawing, axes = new_figure()
        axes.plot([0, 1], [0, 1], color=REFERENCE, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate("an honest head", (0.99, 0.66), ha="right", va="top", color=REFERENCE, fontsize=8.5)
        predicted = [one.mean_predicted_iou for one in calibration.bins]
        true = [one.mean_true_iou for one in calibration.bins]
        most = max(one.candidates for one in calibration.bins)
        area = [12 + 160 * one.candidates / most for one in calibration.bins]
        axes.plot(predicted, true, color=ACCENT, linewidth=1.4)
        axes.scatter(predicted, true, s=area, color=ACCENT, alpha=0.75, linewidth=0)
        axes.set_xlim(min(0, *predicted), max(1, *predicted))
        axes.set_ylim(0, 1)
        axes.set_xlabel("predicted IoU")
        axes.set_ylabel("true IoU")
        return to_svg(drawing, f"True over predicted IoU; expected error {calibration.expected_error:.3f}")


def plot_recall(recalls: Mapping[str, Sequence[float]], thresholds: Sequence[float]) -> str:
    """Plot the recall of ground truth over the IoU from which a mask counts as found.

    Args:
        recalls: Recall at each threshold, by name of the model; each model has a line of its own.
        thresholds: The IoU thresholds, in the order of the recalls.
    """
    with matplotlib.rc_context(STYLE):
        drawing, axes = new_figure()
        for number, (model, recall_T) in enumerate(recalls.items()):
            axes.plot(thresholds, recall_T, color=COLOURS[number], marker=MARKERS[number], markersize=4, label=model)
        axes.set_xlim(0.49, 0.96)
        axes.set_xticks(np.arange(0.5, 1, 0.1))
        axes.set_ylim(0, None)
        axes.set_xlabel("IoU that counts as found")
        axes.set_ylabel("recall of ground truth")
        axes.legend(frameon=False, fontsize=8.5, labelcolor="linecolor")
        return to_svg(drawing, f"Recall over IoU: {', '.join(recalls)}")


def _draw_mean(axes: Axes, figure: Estimate, row: float, number: int) -> None:
    """Draw a mean as a dot with its interval, and write the value to the right."""
    low, high = figure.interval or (figure.value, figure.value)
    axes.plot([low, high], [row, row], color=COLOURS[number], linewidth=1.6, alpha=0.6, solid_capstyle="round")
    axes.plot([figure.value], [row], MARKERS[number], color=COLOURS[number], markersize=4.5)
    axes.annotate(
        f"{figure.value:.3f}",
        (high, row),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=COLOURS[number],
    )


def _draw_clicks(axes: Axes, one: Series, number: int) -> None:
    drawn = {int(clicks): figure for clicks, figure in one.figures.items() if figure is not None}
    clicks, means = list(drawn), [figure.value for figure in drawn.values()]
    edges = [figure.interval or (figure.value, figure.value) for figure in drawn.values()]
    axes.fill_between(clicks, *np.transpose(edges), color=COLOURS[number], alpha=0.15, linewidth=0)
    axes.plot(clicks, means, color=COLOURS[number], marker=MARKERS[number], markersize=3.5, linewidth=1.4)
    axes.set_xticks(clicks)


def _draw_legend(axes: Axes, series: Sequence[Series]) -> None:
    for number, one in enumerate(series):
        axes.plot([], [], MARKERS[number], color=COLOURS[number], markersize=4.5, label=one.model)
    axes.legend(frameon=False, fontsize=8, labelcolor="linecolor", loc="best", handletextpad=0.2)
