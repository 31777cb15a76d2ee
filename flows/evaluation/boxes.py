"""Comparison of a detector's boxes with Felzenszwalb's on a folder of labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.detector.weights import Detector
from engine.evaluation.boxes import BUDGETS, BoxesOfMasks, BoxEvaluation, DetectorBoxes, difference, evaluate_boxes
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.evaluation.config import EvaluationConfig
from engine.evaluation.scores import figure_json
from engine.labelled import load_folder
from engine.model.weights import Model
from flows.evaluation.tables import to_markdown
from flows.progress import print_lines


def compare_boxes(
    model: Model, detector: Detector, data: Path, config: EvaluationConfig, *, beside: bool
) -> dict[str, Any]:
    """Measure a detector's boxes and, if asked, Felzenszwalb's beside them; return the `--json` document.

    Raises:
        ValueError: The folder has no labelled image, or no mask is left to measure.
    """
    images = load_folder(data)
    proposer = DetectorBoxes(detector=detector, model=model)
    ours = evaluate_boxes(proposer, images, config, on_progress=print_lines("detector"))
    content: dict[str, Any] = {"model": model.model_id, "min_iou": 0.5, "detector": ours.to_json()}
    if beside:
        classical = BoxesOfMasks(proposer=FelzenszwalbSegmenter())
        theirs = evaluate_boxes(classical, images, config, on_progress=print_lines(classical.name))
        content |= {"beside": theirs.to_json(), "difference": differences(theirs, ours, config.seed)}
    return content


def differences(before: BoxEvaluation, after: BoxEvaluation, seed: int) -> dict[str, Any]:
    """Compute the paired differences of recall at each budget, over all masks and for each domain."""
    groups = [None, *dict.fromkeys(score.domain for score in after.scores)]
    return {
        group or "overall": {
            name: value
            for budget in BUDGETS
            for name, value in figure_json(
                f"recall_{budget}", difference(before, after, budget, domain=group, seed=seed)
            ).items()
        }
        for group in groups
    }


def recall_table(compared: dict[str, Any]) -> str:
    """Format the comparison as a Markdown table, one line for each domain and method."""
    rows = [["domain", "boxes of", "images", "masks", *(f"recall, {budget} boxes" for budget in BUDGETS)]]
    for method in ("detector", "beside"):
        if method not in compared:
            continue
        content = compared[method]
        for domain, summary in {"all": content["overall"], **content["domains"]}.items():
            recalls = [_figure(summary, f"recall_{budget}") for budget in BUDGETS]
            rows.append([domain, content["name"], str(summary["images"]), str(summary["masks"]), *recalls])
    return to_markdown(rows)


def _figure(summary: dict[str, Any], name: str) -> str:
    interval = summary[f"{name}_interval"]
    return f"{summary[name]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
