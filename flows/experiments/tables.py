"""Cells of the tables of experiments: an estimate with its interval, and a published figure."""

from __future__ import annotations

from engine.evaluation.scores import Estimate


def estimate_cell(figure: Estimate | None) -> str:
    """Write an estimate with its 95 % interval, where it has one; empty without an estimate."""
    if figure is None:
        return ""
    interval = "" if figure.interval is None else f" [{figure.interval[0]:.3f}, {figure.interval[1]:.3f}]"
    return f"{figure.value:.3f}{interval}"


def published_cell(figure: float | None) -> str:
    """Write a published figure; empty where the source has none."""
    return "" if figure is None else f"{figure:.3f}"
