"""Evaluation of models against ground truth, each compared with another model or with the classical baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from engine.automatic.config import GenerateConfig
from engine.evaluation import automatic as automatic_evaluation
from engine.evaluation import scores
from engine.evaluation.automatic import AutomaticEvaluation, evaluate_automatic
from engine.evaluation.classical import FelzenszwalbSegmenter
from engine.evaluation.clicked import Evaluation, evaluate_source
from engine.evaluation.proposals import Proposer, SamProposer
from engine.evaluation.scores import Estimate
from engine.evaluation.source import FolderSource, ImageSource
from engine.interactive.segment import Segmenter
from engine.interactive.zoom import make_segmenter
from engine.model.weights import load_model
from flows.config.evaluate import BASELINE, EvaluateConfig
from flows.progress import log, print_lines
from stages.benchmark_folders import find_benchmark
from stages.coco_source import CocoSource


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Evaluations of one model: with clicks and, if wanted, of the automatic masks."""

    model: str
    """Name of the model in tables and plots; its model_id where two measured models share a name."""
    clicks: Evaluation
    automatic: AutomaticEvaluation | None
    """Figures of the model's automatic masks; None where automatic masks were not measured."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Evaluation of a model and of the model that it is compared with.

    Both models were measured on the same ground truth. In each image, at most as many automatic masks of the compared
    model are measured as the model made.
    """

    measured: Measured
    beside: Measured | None

    def click_differences(self, domain: str | None = None) -> dict[str, Estimate]:
        """Compute the model's metrics after clicks minus the compared model's metrics after clicks.

        Args:
            domain: Name of the domain whose images are compared; None to compare the images of all domains.

        Returns:
            Difference by name of the metric; empty where the model was not compared.
        """
        if self.beside is None:
            return {}
        pair = (self.beside.clicks, self.measured.clicks)
        before, after = ([score for score in each.scores if domain in (None, score.domain)] for each in pair)
        config = self.measured.clicks.config
        return {name: scores.paired_difference(before, after, name, config.seed) for name in config.figure_names}

    def automatic_differences(self, domain: str | None = None) -> dict[str, Estimate | None]:
        """Compute the metrics of the model's automatic masks minus those of the compared model's automatic masks.

        Args:
            domain: Name of the domain whose images are compared; None to compare the images of all domains.

        Returns:
            Difference by name of the metric, None where one of the models has no mask to measure. The dictionary is
            empty where no automatic masks were compared.
        """
        if self.beside is None or self.beside.automatic is None or self.measured.automatic is None:
            return {}
        pair = (self.beside.automatic, self.measured.automatic)
        return automatic_evaluation.difference(*pair, self.measured.clicks.config.seed, domain=domain)


def evaluate_models(
    names: Sequence[str], data: Path, settings: EvaluateConfig, folder: Path | None = None
) -> list[Result]:
    """Measure each named model, and the model that it is compared with, on the same ground truth.

    Args:
        data: Folder of labelled images, or a COCO instances JSON.
        folder: Folder of the images of a COCO JSON; None for the file's own.

    Raises:
        ValueError: A model is unknown, or there are no masks.
    """
    everyone = dict.fromkeys([*names, *([settings.beside] if settings.beside else [])])
    contenders = {name: load_contender(name, settings.generate) for name in everyone}
    called = _called(contenders)
    source = open_source(data, folder)
    images = source.images()
    results = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        clicks = {}
        for name, contender in contenders.items():
            on_progress = shown(bar, f"{name}: clicks")
            clicks[name] = evaluate_source(contender.segmenter, source, settings.evaluate, on_progress=on_progress)

        def automatic(name: str, at_most: Mapping[str, int] | None = None) -> AutomaticEvaluation | None:
            if not settings.automatic:
                return None
            on_progress = shown(bar, f"{name}: automatic masks")
            proposer = contenders[name].proposer
            return evaluate_automatic(proposer, images, settings.evaluate, at_most=at_most, on_progress=on_progress)

        for name in names:
            measured, beside = Measured(model=called[name], clicks=clicks[name], automatic=automatic(name)), None
            if (other := settings.beside) and other != name:
                as_many = measured.automatic.made_in_image if measured.automatic else None
                beside = Measured(model=called[other], clicks=clicks[other], automatic=automatic(other, as_many))
            results.append(Result(measured=measured, beside=beside))
    return results


def open_source(data: Path, folder: Path | None = None) -> ImageSource:
    """Open a folder of labelled images, the folder of a benchmark, or a COCO or LVIS instances JSON.

    Args:
        folder: Folder of the images of a COCO JSON; None for the file's own.
    """
    if data.is_file():
        return CocoSource(file=data, folder=folder or data.parent)
    return find_benchmark(data) or FolderSource(folder=data)


def results_json(results: Sequence[Result]) -> dict[str, Any] | list[dict[str, Any]]:
    """Build the value that `--json` prints: one object, or a list of objects for several models."""
    objects = [_result_json(result) for result in results]
    return objects[0] if len(objects) == 1 else objects


def _result_json(result: Result) -> dict[str, Any]:
    content = _measured_json(result.measured)
    if result.beside is None:
        return content | {"beside": None}
    domains = result.measured.clicks.domains
    differences = {
        "overall": _figures_json(result.click_differences()),
        "domains": {domain: _figures_json(result.click_differences(domain)) for domain in domains},
    }
    if result.measured.automatic is not None:
        differences["automatic"] = {
            "overall": _figures_json(result.automatic_differences()),
            "domains": {domain: _figures_json(result.automatic_differences(domain)) for domain in domains},
        }
    return content | {"beside": _measured_json(result.beside) | {"difference": differences}}


def _measured_json(measured: Measured) -> dict[str, Any]:
    automatic = measured.automatic.to_json() if measured.automatic else None
    return measured.clicks.to_json() | {"automatic": automatic}


def _figures_json(figures: Mapping[str, Estimate | None]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, figure in figures.items():
        content |= scores.figure_json(name, figure)
    return content


def shown(bar: Progress, title: str) -> Callable[[int, int], None]:
    """Show progress as a bar on a terminal, or as a line every few seconds elsewhere."""
    if bar.disable:
        log(f"{title} ...")
        return print_lines(title)
    task = bar.add_task(title, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A loaded model, ready for clicks and for automatic masks."""

    segmenter: Segmenter
    proposer: Proposer


def _called(contenders: Mapping[str, Contender]) -> dict[str, str]:
    """Choose each model's name for tables; models that share a name are called by their model_id."""
    names = [contender.segmenter.name for contender in contenders.values()]
    return {
        name: contender.segmenter.name if names.count(contender.segmenter.name) == 1 else contender.segmenter.model_id
        for name, contender in contenders.items()
    }


def load_contender(name: str, generate: GenerateConfig) -> Contender:
    """Load a model by name, or the classical baseline.

    Raises:
        ValueError: The model is unknown.
    """
    if name == BASELINE:
        classical = FelzenszwalbSegmenter()
        return Contender(segmenter=classical, proposer=classical)
    model = load_model(name)
    return Contender(segmenter=make_segmenter(model), proposer=SamProposer(model=model, config=generate))
