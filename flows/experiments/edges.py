"""The experiment on edges (section 7.2): edge maps against the boundaries that people drew, close to BSDS500.

The table has no published figures, because the matching is not exactly the benchmark's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from flows.experiments.tables import estimate_cell

GRADIENT = "gradient"
"""Name of the classical baseline among the models."""


def run_edges(
    models: Sequence[str], datasets: Datasets, config: EvaluationConfig, thresholds: int
) -> list[EdgeEvaluation]:
    """Measure the edges of each model on the same images.

    Raises:
        ValueError: There are several datasets, a model is unknown, an image cannot be read, or people's masks do not
            divide an image.
    """
    names = sorted({image.domain for image in datasets.images})
    if len(names) > 1:
        raise ValueError(f"got the datasets {', '.join(names)}, expected one: measure the edges of each on its own")
    detectors: dict[str, EdgeDetector] = {
        name: GradientEdges() if name == GRADIENT else SamEdges(model=load_model(name)) for name in models
    }
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        results = [
            evaluate_edges(
                detector, datasets.images, config, thresholds=thresholds, on_progress=shown(bar, f"{name}: edges")
            )
            for name, detector in detectors.items()
        ]
    return [
        replace(result, left_out=replace(result.left_out, unlabelled_pictures=datasets.unlabelled))
        for result in results
    ]


def edges_json(result: EdgeEvaluation) -> dict[str, Any]:
    """Make the document that `--json` prints for one model."""
    return {"experiment": "edges", **result.to_json()}


def edges_table(results: Sequence[EdgeEvaluation]) -> list[Row]:
    """Build the table: a row for each model."""
    rows = [["method", "#images", "#people's partitions", "#thresholds", "#ODS", "#OIS", "#AP", "#R50", "matching"]]
    for result in results:
        cells = [estimate_cell(result.figures[name]) for name in FIGURES]
        images, thresholds = result.counts_IT4.shape[:2]
        counts = [str(images), str(result.people), str(thresholds)]
        rows.append([result.name, *counts, *cells, "not exactly the benchmark's"])
    return rows
