"""The experiment on object proposals (section 7.3): AR@1000 by size, and by frequency on LVIS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import Progress

from engine.automatic.config import GenerateConfig
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.proposal_recall import FREQUENCIES, SIZES, ProposalEvaluation, evaluate_proposals
from flows.evaluation.compare import load_contender, shown
from flows.evaluation.tables import Row
from flows.experiments.datasets import Datasets
from flows.experiments.published import PROPOSALS
from flows.experiments.tables import estimate_cell, published_cell


def generator(points_per_side: int) -> GenerateConfig:
    """Make the paper's generator of proposals: one grid, box NMS at .9, and no filter but that of empty masks."""
    return GenerateConfig(
        points_per_side=points_per_side,
        crop_layers=0,
        predicted_iou_threshold=float("-inf"),
        stability_threshold=0,
        box_nms_threshold=0.9,
        max_area_fraction=None,
        min_region_px=0,
        min_mask_area_px=1,
    )


def run_proposals(
    models: Sequence[str], datasets: Datasets, config: EvaluationConfig, points_per_side: int
) -> list[ProposalEvaluation]:
    """Measure the proposals of each model on the same images.

    Raises:
        ValueError: A model is unknown, no mask is left to find, or an image cannot be read.
    """
    contenders = {name: load_contender(name, generator(points_per_side)) for name in models}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        results = [
            evaluate_proposals(
                contender.proposer, datasets.images, config, on_progress=shown(bar, f"{name}: proposals")
            )
            for name, contender in contenders.items()
        ]
    return [
        replace(result, left_out=replace(result.left_out, unlabelled_pictures=datasets.unlabelled))
        for result in results
    ]


def proposals_json(result: ProposalEvaluation) -> dict[str, Any]:
    """Make the document that `--json` prints for one model."""
    return {"experiment": "proposals", **result.to_json(), "published": [each.to_json() for each in PROPOSALS]}


def proposals_table(results: Sequence[ProposalEvaluation]) -> list[Row]:
    """Build the table: a row for each dataset and model, then all masks together, then the published figures."""
    groups = (*SIZES, *FREQUENCIES)
    rows = [
        ["dataset", "method", "#images", "#masks", "#proposals", *(f"#AR@1000 {group}" for group in groups), "source"]
    ]
    datasets = list(dict.fromkeys(score.domain for score in results[0].scores))
    for dataset in [*datasets, None]:
        for result in results:
            members = result.of("all", dataset)
            images = str(len({score.image for score in members}))
            made = "" if dataset else f"{result.proposals_per_image:.0f} an image"
            cells = [estimate_cell(result.recall(group, dataset)) for group in groups]
            name = dataset or "all masks"
            rows.append([name, result.model, images, str(len(members)), made, *cells, "measured here"])
    for each in PROPOSALS:
        cells = [published_cell(each.figures.get(f"ar_{group}")) for group in groups]
        rows.append([each.on, each.method, "", "", "", *cells, each.source])
    return rows
