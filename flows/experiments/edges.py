"""The experiment on edges (section 7.2): edge maps against the boundaries that people drew, as in BSDS500."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import Progress

from engine.evaluation.config import EvaluationConfig
from engine.evaluation.edge_maps import EdgeDetector, GradientEdges, SamEdges
from engine.evaluation.edges import FIGURES, EdgeEvaluation, evaluate_edges, evaluate_people
from engine.model.weights import load_model
from flows.evaluation.compare import shown
from flows.evaluation.tables import Row
from flows.experiments.datasets import Datasets
from flows.experiments.published import EDGES
from flows.experiments.tables import estimate_cell, published_cell

GRADIENT = "gradient"
"""Name of the classical baseline among the models."""
PEOPLE = "people"
"""Name of the comparison of people with each other among the models."""


def run_edges(
    models: Sequence[str], datasets: Datasets, config: EvaluationConfig, thresholds: int
) -> list[EdgeEvaluation]:
    """Measure the edges of each model on the same images.

    Every model is loaded before the first is measured, and people are measured first: an unknown model, or images that
    one person divided, end the command before anything long is done.

    Raises:
        ValueError: There are several datasets, a model is unknown, an image cannot be read, or people's masks do not
            divide an image.
    """
    names = sorted({image.domain for image in datasets.images})
    if len(names) > 1:
        raise ValueError(f"got the datasets {', '.join(names)}, expected one: measure the edges of each on its own")
    detectors = {name: _make_detector(name) for name in models}
    people_first = sorted(detectors, key=lambda name: name != PEOPLE)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        results = {
            name: _measure(detectors[name], datasets, config, thresholds, shown(bar, f"{name}: edges"))
            for name in people_first
        }
    return [
        replace(results[name], left_out=replace(results[name].left_out, unlabelled_pictures=datasets.unlabelled))
        for name in models
    ]


def _make_detector(name: str) -> EdgeDetector | None:
    """Load a model as a detector of edges; None for people."""
    if name == PEOPLE:
        return None
    return GradientEdges() if name == GRADIENT else SamEdges(model=load_model(name))


def _measure(
    detector: EdgeDetector | None,
    datasets: Datasets,
    config: EvaluationConfig,
    thresholds: int,
    on_progress: Callable[[int, int], None],
) -> EdgeEvaluation:
    if detector is None:
        return evaluate_people(datasets.images, config, on_progress=on_progress)
    return evaluate_edges(detector, datasets.images, config, thresholds=thresholds, on_progress=on_progress)


def edges_json(result: EdgeEvaluation) -> dict[str, Any]:
    """Make the document that `--json` prints for one model."""
    return {"experiment": "edges", **result.to_json(), "published": [each.to_json() for each in EDGES]}


def edges_table(results: Sequence[EdgeEvaluation]) -> list[Row]:
    """Build the table: a row for each model, then the published figures."""
    titles = [f"#{name.upper()}" for name in FIGURES]
    rows = [["dataset", "method", "#images", "#people's partitions", "#thresholds", *titles, "source"]]
    for result in results:
        cells = [estimate_cell(result.figures.get(name)) for name in FIGURES]
        images, thresholds = result.counts_IT4.shape[:2]
        counts = [str(images), str(result.people), str(thresholds)]
        rows.append([result.dataset, result.name, *counts, *cells, "measured here"])
    for each in EDGES:
        cells = [published_cell(each.figures.get(name)) for name in FIGURES]
        rows.append([each.on, each.method, "", "", "", *cells, each.source])
    return rows
