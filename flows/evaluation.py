"""`gigamask evaluate`: a model, and the classical baseline where asked for, against people's masks."""

from collections.abc import Callable
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
    with Progress(console=Console(stderr=True), transient=True) as bar:
        return [evaluate_folder(each, data, config, on_progress=_shown(bar, each.name)) for each in segmenters]


def _shown(bar: Progress, name: str) -> Callable[[int, int], None]:
    task = bar.add_task(name, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def _segmenter(name: str) -> Segmenter:
    if name == BASELINE:
        return FelzenszwalbSegmenter()
    return SamSegmenter(model=load_model(name))
