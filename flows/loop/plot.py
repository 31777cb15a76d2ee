"""Learning curves of a loop as one SVG file: each figure by round, and below it the gain over the control."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TITLES = {
    "miou_1": "mean IoU, 1 click",
    "miou_3": "mean IoU, 3 clicks",
    "noc85": "clicks to IoU .85",
    "simulated_seconds_per_mask": "simulated seconds a mask",
}
"""Metrics that are drawn, each with its title."""
LABELS = {"new masks": "with the new masks", "control": "control: as long, without them"}
COLOURS = {"new masks": "#1f5fa8", "control": "#c2571a"}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gigamask",
    "font.size": 9,
    "axes.edgecolor": "#8a8f98",
    "grid.color": "#d6d9de",
}


def write_plot(path: Path, result: Mapping[str, Any], title: str) -> None:
    """Draw what `run_loop` returns; metrics that were not measured are left out.

    The ground is white, so that the plot can be read on light and dark pages.
    """
    names = measured_names(result)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * max(2, len(names)), 4.6), layout="constrained", facecolor="white")
        axes_2N = figure.subplots(2, len(names), sharex=True, squeeze=False, height_ratios=(3, 2))
        for name, (above, below) in zip(names, axes_2N.T, strict=True):
            draw_arms(above, result, name, COLOURS)
            draw_gains(below, result["gains"], name, COLOURS["new masks"])
            for axes in (above, below):
                axes.set_facecolor("white")
            above.set_title(TITLES[name], fontsize=9)
            below.set_xlabel("round")
        axes_2N[1, 0].set_ylabel("gain over control")
        handles, labels = axes_2N[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.suptitle(title, fontsize=10)
        figure.savefig(path, format="svg", metadata={"Date": None})


def measured_names(result: Mapping[str, Any]) -> list[str]:
    """List the metrics to draw that were measured."""
    return [name for name in TITLES if any(arm[name] is not None for arm in result["rounds"])]


def draw_arms(axes: Axes, result: Mapping[str, Any], name: str, colours: Mapping[str, str]) -> None:
    """Draw a thin line for each seed and a thick one for their mean, for both arms; round 0 is the first model."""
    for arm, colour in colours.items():
        curves = [_curve(result, arm, seed, name) for seed in sorted({each["seed"] for each in result["rounds"]})]
        for curve in curves:
            axes.plot([number for number, _ in curve], [value for _, value in curve], color=colour, lw=0.7, alpha=0.45)
        rounds = sorted({number for curve in curves for number, _ in curve})
        means = [np.mean([value for curve in curves for at, value in curve if at == number]) for number in rounds]
        axes.plot(rounds, means, color=colour, lw=2, marker="o", ms=4, label=LABELS[arm])
    _tidy(axes)


def _curve(result: Mapping[str, Any], arm: str, seed: int, name: str) -> list[tuple[int, float]]:
    measured: Sequence[Mapping[str, Any]] = [*result["start"], *result["rounds"]]
    found = [each for each in measured if each["seed"] == seed and each["arm"] in (arm, "start")]
    return sorted((each["round"], each[name]) for each in found if each[name] is not None)


def draw_gains(axes: Axes, gains: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    """Draw the gain of each round with its interval, beside a line at zero."""
    axes.axhline(0, color=matplotlib.rcParams["axes.labelcolor"], lw=1)
    for gain in gains:
        if gain[name] is not None:
            axes.plot(gain["round"], gain[name], color=colour, marker="o", ms=4)
            if gain[f"{name}_interval"] is not None:
                axes.vlines(gain["round"], *gain[f"{name}_interval"], color=colour, lw=1.4)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)
