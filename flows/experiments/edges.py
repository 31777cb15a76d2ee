"""The experiment on edges (section 7.2): edge maps against the boundaries that people drew, as in BSDS500."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress

from engine.evaluation.config import EvaluationConfig
from engine.evaluation.edge_maps import EdgeDetector, GradientEdges, SamEdges
from engine.evaluation.edges import FIGURES, EdgeEvaluation, evaluate_edges
from engine.model.weights import load_model
from flows.evaluation.compare import shown
from flows.evaluation.tables import Row
from flows.experiments.datasets import Datasets
from flows.experiments.published import EDGES
from flows.experiments.tables import estimate_cell, published_cell

GRADIENT = "gradient"
"""Name of the classical baseline among the models."""


def run_edges(
    models: Sequence[str], datasets: Datasets, config: EvaluationConfig, thresholds: int
) -> list[EdgeEvaluation]:
    """Measure the edges of each model on the same images.

    Raises:
        ValueError: A model is unknown, an image cannot be read, or people's masks do not divide an image.
    """
    detectors: dict[str, EdgeDetector] = {
        name: GradientEdges() if name == GRADIENT else SamEdges(model=load_model(name)) for name in models
    }
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        return [
            evaluate_edges(
                detector, datasets.images, config, thresholds=thresholds, on_progress=shown(bar, f"{name}: edges")
            )
            for name, detector in detectors.items()
        ]


def edges_json(result: EdgeEvaluation) -> dict[str, Any]:
    """Make the document that `--json` prints for one model."""
    return {"experiment": "edges", **result.to_json(), "published": [each.to_json() for each in EDGES]}


def edges_table(results: Sequence[EdgeEvaluation]) -> list[Row]:
    """Build the table: a row for each model, then the published figures."""
    rows = [["images of", "method", "#images", "#people's partitions", "#ODS", "#OIS", "#AP", "#R50", "source"]]
    for result in results:
        cells = [estimate_cell(result.figures[name]) for name in FIGURES]
        rows.append(["--data", result.name, str(len(result.counts_IT4)), str(result.people), *cells, "measured here"])
    for each in EDGES:
        cells = [published_cell(each.figures.get(name)) for name in FIGURES]
        rows.append([each.on, each.method, "", "", *cells, each.source])
    return rows
