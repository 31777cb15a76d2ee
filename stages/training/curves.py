"""Curves of a training as one SVG file, which is stored beside its weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

POINTS = 200
"""Maximum number of points of each curve in the SVG."""


def condense_history(history: Sequence[dict[str, float]], points: int = POINTS) -> list[dict[str, float]]:
    """Average a history over at most `points` ranges of equal length; each result's `step` is the range's last step."""
    stretches = np.array_split(np.arange(len(history)), min(points, len(history))) if history else []
    return [
        {
            name: history[stretch[-1]]["step"]
            if name == "step"
            else round(float(np.mean([history[i][name] for i in stretch])), 6)
            for name in history[0]
        }
        for stretch in stretches
    ]


def write_curves(path: Path, history: Sequence[dict[str, float]], title: str) -> None:
    """Write an SVG with two plots over the training steps: the loss above, and IoUs with the ground truth below.

    The IoUs are those of the best of three masks, of the mask ranked first, and of the mask after corrections.
    """
    points = condense_history(history)
    steps = [point["step"] + 1 for point in points]
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(steps, [point["loss"] for point in points], color="#1f5fa8")
    above.set_ylabel("loss")
    for name, label, colour in (
        ("best_iou", "best of three", "#2a9d5c"),
        ("chosen_iou", "chosen", "#1f5fa8"),
        ("corrected_iou", "after corrections", "#c2571a"),
    ):
        below.plot(steps, [point[name] for point in points], label=label, color=colour)
    below.set_ylabel("IoU in training")
    below.set_xlabel("step")
    below.set_ylim(0, 1)
    below.legend(frameon=False, loc="lower right", fontsize=8)
    for axes in (above, below):
        axes.grid(linewidth=0.4, alpha=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, metadata={"Date": None})
