"""`gigamask evaluate`: a model, and the classical baseline where asked for, against people's masks."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from engine.classical import FelzenszwalbSegmenter
from engine.evaluate import Evaluation, EvaluationConfig, evaluate_folder
from engine.interact import SamSegmenter, Segmenter
from engine.model.weights import load_model

BASELINE = "felzenszwalb"


def evaluate_models(names: list[str], data: Path, config: EvaluationConfig) -> list[Evaluation]:
    """One Evaluation a name, on the same masks. Raises ValueError for an unknown model or a folder without masks."""
    segmenters = [_segmenter(name) for name in names]
    evaluations = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for segmenter in segmenters:
            task = bar.add_task(segmenter.name)
            evaluations.append(
                evaluate_folder(
                    segmenter,
                    data,
                    config,
                    on_progress=lambda done, total, task=task: bar.update(task, completed=done, total=total),
                )
            )
    return evaluations


def _segmenter(name: str) -> Segmenter:
    if name == BASELINE:
        return FelzenszwalbSegmenter()
    return SamSegmenter(model=load_model(name))
